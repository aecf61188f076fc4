"""Version check of Intel Extension for PyTorch, without importing it or torch."""

from __future__ import annotations

from importlib import metadata

from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.extras import install_command

DISTRIBUTION = "intel-extension-for-pytorch"
INSTALL = f"{install_command('ipex')} in an environment of its own: its last release needs torch 2.8"


def check_ipex_version() -> None:
    """Checks that the installed IPEX was built for the installed torch.

    Raises:
        BackendUnavailable: IPEX or torch is not installed, or IPEX was built for another torch.
    """
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise BackendUnavailable(f"{DISTRIBUTION} is not installed. Install it with {INSTALL}.") from None
    try:
        torch_version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        raise BackendUnavailable(f"{DISTRIBUTION} needs torch. Install both with {INSTALL}.") from None
    if version.split(".")[:2] != torch_version.split(".")[:2]:
        raise BackendUnavailable(
            f"{DISTRIBUTION} {version} does not work with torch {torch_version}; the first two components must match. "
            f"Install them with {INSTALL}."
        )
