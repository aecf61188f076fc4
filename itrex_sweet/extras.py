"""Optional packages: the extra that installs each of them, and the error that names it where one is missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from itrex_sweet.errors import MissingExtraError

# Import name of an optional package, and the extra of `setup.py` that installs it. A package that several extras
# install is listed with the smallest of them.
EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "accelerate": "train",
    "datasets": "train",
    "pyarrow": "train",  # of datasets
    "optimum": "train",
    "neural_compressor": "quantize",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "intel_extension_for_pytorch": "ipex",
    "peft": "peft",
    "matplotlib": "plot",
    "opentelemetry": "tracing",
    "orjson": "serve",
    "uvicorn": "serve",
    "uvloop": "serve",
    "httptools": "serve",
    "grpc": "grpc",
    "google": "grpc",  # of protobuf
    "ray": "ray",
    "pyspark": "spark",
}


def install_command(extra: str) -> str:
    """Returns the shell command that installs an extra of this package."""
    return f"pip install 'itrex-sweet[{extra}]'"


def is_installed(package: str) -> bool:
    """Returns whether an optional package can be found; does not import it.

    Args:
        package: import name, a key of `EXTRAS`.
    """
    return importlib.util.find_spec(package) is not None


def require(package: str, purpose: str) -> ModuleType:
    """Imports an optional package and returns it.

    Args:
        package: import name, a key of `EXTRAS`.
        purpose: subject of the error message: what needs the package, in the singular, such as `"training"`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    with naming_extras(purpose):
        return importlib.import_module(package)


def require_installed(package: str, purpose: str) -> None:
    """Checks that an optional package can be found, without the cost of importing it.

    Raises:
        MissingExtraError: the package is not installed.
    """
    if not is_installed(package):
        raise _missing(package, purpose)


@contextmanager
def naming_extras(purpose: str) -> Iterator[None]:
    """Turns the `ModuleNotFoundError` of an optional package into an error that names the extra.

    Other import errors, such as that of an installed package which does not load, pass unchanged.

    Raises:
        MissingExtraError: a package of `EXTRAS` is imported in the block and is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS or is_installed(package):
            raise
        raise _missing(package, purpose) from error


def _missing(package: str, purpose: str) -> MissingExtraError:
    extra = EXTRAS[package]
    return MissingExtraError(
        f"{purpose} needs {package}, which is not installed: {install_command(extra)}.", package=package, extra=extra
    )
