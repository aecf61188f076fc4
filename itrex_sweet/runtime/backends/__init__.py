"""Backends and their selection. The library of a backend is imported when the backend is loaded."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

from itrex_sweet.artifact import CASCADE, INT8, Artifact
from itrex_sweet.defaults import DEFAULT_BACKEND
from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.extras import EXTRAS, install_command, is_installed
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.backends.ipex_version import check_ipex_version
from itrex_sweet.runtime.backends.openvino_version import check_openvino
from itrex_sweet.runtime.native.cores import validate_threads
from itrex_sweet.runtime.native.library import ISA_VARIABLE, NOT_BUILT, available, load

logger = logging.getLogger(__name__)

BACKENDS = ("native", "ipex", "openvino", "torch")
REFERENCE = "torch"


def load_backend(
    artifact: Artifact,
    name: str = DEFAULT_BACKEND,
    *,
    dtype: str | None = None,
    warm_up: Sequence[tuple[int, int]] = (),
    threads: int | None = None,
) -> Backend:
    """Loads the backend that runs an artifact.

    Args:
        artifact: opened by `open_artifact`.
        name: one of `BACKENDS`, or `"auto"` for the fastest one that supports the artifact; the selection is logged and
            is the `name` of the backend.
        dtype: precision of a float artifact: `"float32"`, or `"bfloat16"` on `native`, `ipex` and `openvino`.
        warm_up: (rows, tokens) of expected batches, for backends that compile per shape.
        threads: maximum number of threads; by default `runtime.native.cores.default_threads()` for `native` and
            `openvino`, and `torch.get_num_threads()` for the others.

    Raises:
        BackendUnavailable: the named backend does not exist or cannot run here. There is no fallback.
        ConfigError: the backend does not support the dtype, or the number of threads is invalid.
    """
    options = dict(dtype=dtype, warm_up=warm_up, threads=threads)
    thread_options = {} if threads is None else {"threads": validate_threads(threads)}
    if name == DEFAULT_BACKEND:
        return _load_fastest(artifact, options)
    if name not in BACKENDS:
        raise BackendUnavailable(f"backend={name!r} is unknown; expected one of {', '.join(BACKENDS)} or 'auto'.")
    if artifact.architecture == CASCADE:
        from itrex_sweet.runtime.backends.cascade import CascadeBackend

        return CascadeBackend(artifact, [load_backend(stage, name, **options) for stage in artifact.stages])
    if name == "ipex":
        if not is_installed("torch"):
            check_ipex_version()
        from itrex_sweet.runtime.backends.ipex import IpexBackend

        return IpexBackend(artifact, dtype or "float32", warm_up, **thread_options)
    if name == "openvino":
        check_openvino()
        from itrex_sweet.runtime.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(artifact, dtype or "float32", warm_up, **thread_options)
    if name == "native":
        from itrex_sweet.runtime.backends.native import NativeBackend

        return NativeBackend(artifact, dtype=dtype, **thread_options)
    if dtype not in (None, "float32"):
        raise ConfigError(
            f"dtype={dtype!r}: the {name} backend supports float32 only; 'native', 'ipex' and 'openvino' support "
            "bfloat16."
        )
    _check_torch_installed()
    from itrex_sweet.runtime.backends.torch import TorchBackend

    return TorchBackend(artifact, **thread_options)


def unavailable_reason(name: str) -> str | None:
    """Returns the reason why a backend cannot run here, or `None` if it can."""
    try:
        if name == "ipex":
            check_ipex_version()
        elif name == "openvino":
            check_openvino()
        elif name == "native":
            load()
        else:
            _check_torch_installed()
    except BackendUnavailable as error:
        return str(error)
    return None


def _load_fastest(artifact: Artifact, options: dict[str, Any]) -> Backend:
    """Loads the first backend that can run the artifact, in the order of measured speed (`benchmarks/results`).

    IPEX and OpenVINO are faster than torch for static INT8 and for bfloat16, so they are tried for models that the
    native engine does not support. If no fast backend is available, a warning gives the reasons and remedies.
    """
    is_static_int8 = artifact.precision == INT8 and artifact.quantization.get("recipe") != "dynamic"
    is_bfloat16 = options["dtype"] == "bfloat16"
    names = ["native", "ipex", "openvino"] if is_static_int8 or is_bfloat16 else ["native"]
    if "native" in names and os.environ.get(ISA_VARIABLE):
        load()  # raises if the selected instruction set is not available
    unavailable = {}
    for name in names:
        if (reason := unavailable_reason(name)) is None:
            try:
                backend = load_backend(artifact, name, **options)
            except BackendUnavailable as error:
                reason = str(error)
            else:
                logger.info("backend='auto' selected %s.", name)
                if name == "native":
                    _warn_about_portable_kernels(artifact)
                return backend
        logger.info("backend='auto' skipped %s: %s", name, reason)
        unavailable[name] = reason
    try:
        backend = load_backend(artifact, REFERENCE, **options)
    except BackendUnavailable as error:
        unavailable[REFERENCE] = str(error)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        raise BackendUnavailable(f"No backend can run {artifact.directory} here ({reasons})") from error
    _warn_about_reference_backend(artifact, unavailable)
    return backend


def _check_torch_installed() -> None:
    for package in ("torch", "transformers"):
        if not is_installed(package):
            extra = install_command(EXTRAS[package])
            raise BackendUnavailable(f"backend='torch' needs {package}, which is not installed: {extra}.")


def _warn_about_reference_backend(artifact: Artifact, unavailable: dict[str, str]) -> None:
    """Warns that the reference backend runs because no fast backend is available."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
    remedies = []
    if all(reason == NOT_BUILT for reason in available().values()):
        remedies.append("install a C++ compiler (g++ or clang++) and reinstall itrex-sweet to build the engine")
    if artifact.precision == INT8:
        remedies.append("run the float32 artifact that this one was quantized from, or install itrex-sweet[openvino]")
        slower = " It emulates INT8 layers and is slower than with the float32 artifact."
    else:
        slower = ""
    remedies.append("select backend='torch' explicitly to suppress this warning")
    _warn_once(
        f"{artifact.directory} runs on the torch reference backend, not on a fast engine ({reasons}).{slower} "
        f"Remedies: {'; '.join(remedies)}."
    )


def _warn_about_portable_kernels(artifact: Artifact) -> None:
    """Warns that kernels without vector instructions run, unless they were selected explicitly."""
    instruction_sets = available()
    best = next((isa for isa, reason in instruction_sets.items() if reason is None), None)
    if os.environ.get(ISA_VARIABLE) or best != "portable":
        return
    reasons = "; ".join(f"{isa}: {reason}" for isa, reason in instruction_sets.items() if reason is not None)
    remedy = (
        "reinstall itrex-sweet with a recent g++ or clang++ to build them"
        if NOT_BUILT in instruction_sets.values()
        else "use a processor with AVX2"
    )
    _warn_once(
        f"{artifact.directory} runs on the native engine's portable kernels, which use no vector instructions and are "
        f"many times slower than the others ({reasons}). Remedy: {remedy}; {ISA_VARIABLE}=portable suppresses this "
        "warning."
    )


@functools.cache
def _warn_once(message: str) -> None:
    """Logs a warning once per artifact and process."""
    logger.warning("%s", message)
