"""Check that OpenVINO can run models here, without importing it or torch."""

from __future__ import annotations

from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.extras import EXTRAS, install_command, is_installed


def check_openvino() -> None:
    """Checks that OpenVINO, and torch and transformers, which build its models, are installed.

    Raises:
        BackendUnavailable: one of them is not installed.
    """
    for package in ("openvino", "torch", "transformers"):
        if not is_installed(package):
            raise BackendUnavailable(
                f"backend='openvino' needs {package}, which is not installed: {install_command(EXTRAS['openvino'])}."
            )
