"""Backends by name. Each file here imports the library it runs on, and only when asked for."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

from itrex_sweet.artifact import CASCADE, INT8, Artifact
from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.extras import EXTRAS, install_command, is_installed
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.backends.ipex_version import refuse_unusable_ipex
from itrex_sweet.runtime.native.cores import checked_threads
from itrex_sweet.runtime.native.library import ENVIRONMENT, NOT_BUILT, available, load

logger = logging.getLogger(__name__)

BACKENDS = ("native", "ipex", "torch")
AUTO, REFERENCE = "auto", "torch"


def load_backend(
    artifact: Artifact,
    name: str = AUTO,
    *,
    dtype: str | None = None,
    warm_up: Sequence[tuple[int, int]] = (),
    threads: int | None = None,
) -> Backend:
    """Makes the backend that will run an artifact.

    Args:
        artifact: opened by `open_artifact`.
        name: one of `BACKENDS`, or `"auto"` for the one that measured fastest for such an artifact; which it took is
            logged, and stands in the backend's `name`.
        dtype: what a float artifact is computed in: `"float32"`, or on `native` and `ipex` `"bfloat16"`.
        warm_up: (rows, tokens) of batches to be expected, for backends that compile by shape.
        threads: that the backend computes with at most; if absent, what `runtime.native.cores` finds for `native`, and
            what torch is set to for the others.

    Raises:
        BackendUnavailable: the backend named does not exist or cannot run here; none is put in its place.
        ConfigError: a dtype that the backend does not compute in, or a number of threads that is none.
    """
    options = dict(dtype=dtype, warm_up=warm_up, threads=threads)
    on_threads = {} if threads is None else {"threads": checked_threads(threads)}
    if name == AUTO:
        return _fastest(artifact, options)
    if name not in BACKENDS:
        raise BackendUnavailable(f"backend={name!r} is not there. Backends here: {', '.join(BACKENDS)}, or 'auto'.")
    if artifact.architecture == CASCADE:
        from itrex_sweet.runtime.backends.cascade import CascadeBackend

        return CascadeBackend(artifact, [load_backend(stage, name, **options) for stage in artifact.stages])
    if name == "ipex":
        if not is_installed("torch"):
            refuse_unusable_ipex()
        from itrex_sweet.runtime.backends.ipex import IpexBackend

        return IpexBackend(artifact, dtype or "float32", warm_up, **on_threads)
    if name == "native":
        from itrex_sweet.runtime.backends.native import NativeBackend

        return NativeBackend(artifact, dtype=dtype, **on_threads)
    if dtype not in (None, "float32"):
        raise ConfigError(
            f"dtype={dtype!r}: the {name} backend computes in float32; 'native' and 'ipex' have bfloat16."
        )
    _refuse_missing_torch()
    from itrex_sweet.runtime.backends.torch import TorchBackend

    return TorchBackend(artifact, **on_threads)


def missing_for(name: str) -> str | None:
    """What keeps a backend from running here, in words; `None` if nothing does."""
    try:
        if name == "ipex":
            refuse_unusable_ipex()
        elif name == "native":
            load()
        else:
            _refuse_missing_torch()
    except BackendUnavailable as error:
        return str(error)
    return None


def _fastest(artifact: Artifact, options: dict[str, Any]) -> Backend:
    """The first that can run the artifact, in the order of what was measured (`benchmarks/results`).

    IPEX pays where the native engine does not know the family: for integers with fixed scales and for bfloat16.
    Where no fast engine runs, a warning says so, why, and what to do.
    """
    fixed_scales = artifact.precision == INT8 and artifact.quantization.get("recipe") != "dynamic"
    in_bfloat16 = options["dtype"] == "bfloat16"
    names = ["native", "ipex"] if fixed_scales or in_bfloat16 else ["native"]
    if "native" in names and os.environ.get(ENVIRONMENT):
        load()  # an instruction set that was forced and is not there raises
    passed_over = {}
    for name in names:
        if (reason := missing_for(name)) is None:
            try:
                backend = load_backend(artifact, name, **options)
            except BackendUnavailable as error:
                reason = str(error)
            else:
                logger.info("backend='auto' took %s.", name)
                if name == "native":
                    _warn_of_portable_kernels(artifact)
                return backend
        logger.info("backend='auto' passed over %s: %s", name, reason)
        passed_over[name] = reason
    try:
        backend = load_backend(artifact, REFERENCE, **options)
    except BackendUnavailable as error:
        passed_over[REFERENCE] = str(error)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        raise BackendUnavailable(f"No backend can run {artifact.directory} here ({reasons})") from error
    _warn_of_the_reference(artifact, passed_over)
    return backend


def _refuse_missing_torch() -> None:
    for package in ("torch", "transformers"):
        if not is_installed(package):
            extra = install_command(EXTRAS[package])
            raise BackendUnavailable(f"backend='torch' needs {package}, which is not installed: {extra}.")


def _warn_of_the_reference(artifact: Artifact, passed_over: dict[str, str]) -> None:
    """Says that the reference runs in the place of a fast engine."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    remedies = []
    if all(reason == NOT_BUILT for reason in available().values()):
        remedies.append("install a C++ compiler (g++ or clang++) and itrex-sweet once more, which builds the engine")
    if artifact.precision == INT8:
        remedies.append("run the float32 artifact that this one was quantized from, or install itrex-sweet[ipex]")
        slower = " It computes 8-bit layers as exact integers, slower than the float32 artifact."
    else:
        slower = ""
    remedies.append("backend='torch' asks for it by name, without this warning")
    _warn_once(
        f"{artifact.directory} runs on the torch reference backend, not on a fast engine ({reasons}).{slower} "
        f"Remedies: {'; '.join(remedies)}."
    )


def _warn_of_portable_kernels(artifact: Artifact) -> None:
    """Says that kernels without vector instructions run, unless they were asked for."""
    instruction_sets = available()
    best = next((isa for isa, reason in instruction_sets.items() if reason is None), None)
    if os.environ.get(ENVIRONMENT) or best != "portable":
        return
    reasons = "; ".join(f"{isa}: {reason}" for isa, reason in instruction_sets.items() if reason is not None)
    remedy = (
        "install itrex-sweet once more with a recent g++ or clang++, which builds them"
        if NOT_BUILT in instruction_sets.values()
        else "use a processor with AVX2"
    )
    _warn_once(
        f"{artifact.directory} runs on the native engine's portable kernels, without vector instructions, many times "
        f"slower than the others ({reasons}). Remedy: {remedy}; {ENVIRONMENT}=portable asks for them, without this "
        "warning."
    )


@functools.cache
def _warn_once(message: str) -> None:
    """One warning of each kind for each artifact and process."""
    logger.warning("%s", message)
