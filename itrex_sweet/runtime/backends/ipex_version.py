"""Compares the versions of torch and of Intel Extension for PyTorch, and imports neither."""

from __future__ import annotations

from importlib import metadata

from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.extras import install_command

DISTRIBUTION = "intel-extension-for-pytorch"
INSTALL = f"{install_command('ipex')} in an environment of its own: its last release needs torch 2.8"


def refuse_unusable_ipex() -> None:
    """Looks at versions only.

    Raises:
        BackendUnavailable: IPEX is not installed, or made for another torch.
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
            f"{DISTRIBUTION} {version} does not work with torch {torch_version}; both need the same first two numbers. "
            f"Install them with {INSTALL}."
        )
