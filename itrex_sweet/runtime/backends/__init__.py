"""Backends by name. Each file here imports the library it runs on, and only when asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from itrex_sweet.artifact import CASCADE, INT8, Artifact
from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.runtime.backends.base import Backend

logger = logging.getLogger(__name__)

BACKENDS = ("ipex", "torch")
AUTO, REFERENCE = "auto", "torch"


def load_backend(
    artifact: Artifact, name: str = AUTO, *, dtype: str | None = None, warm_up: Sequence[tuple[int, int]] = ()
) -> Backend:
    """Makes the backend that will run an artifact.

    Args:
        artifact: opened by `open_artifact`.
        name: one of `BACKENDS`, or `"auto"` for the one that measured fastest for such an artifact; which it took is
            logged, and stands in the backend's `name`.
        dtype: what a float artifact is computed in: `"float32"`, or on `ipex` `"bfloat16"`.
        warm_up: (rows, tokens) of batches to be expected, for backends that compile by shape.

    Raises:
        BackendUnavailable: the backend named does not exist or cannot run here; none is put in its place.
        ConfigError: a dtype that the backend does not compute in.
    """
    if name == AUTO:
        name = _fastest(artifact, dtype)
        if name != REFERENCE:
            logger.info("backend='auto' took %s.", name)
    if name not in BACKENDS:
        raise BackendUnavailable(f"backend={name!r} is not there. Backends here: {', '.join(BACKENDS)}, or 'auto'.")
    if artifact.architecture == CASCADE:
        from itrex_sweet.runtime.cascade import CascadeBackend

        options = dict(dtype=dtype, warm_up=warm_up)
        return CascadeBackend(artifact, [load_backend(stage, name, **options) for stage in artifact.stages])
    if name == "ipex":
        from itrex_sweet.runtime.backends.ipex import IpexBackend

        return IpexBackend(artifact, dtype or "float32", warm_up)
    if dtype not in (None, "float32"):
        raise ConfigError(f"dtype={dtype!r}: the torch backend computes in float32; backend='ipex' has bfloat16.")
    from itrex_sweet.runtime.backends.torch import TorchBackend

    return TorchBackend(artifact)


def missing_for(name: str) -> str | None:
    """What keeps a backend from running here, in words; `None` if nothing does."""
    if name != "ipex":
        return None
    from itrex_sweet.runtime.backends.ipex import refuse_unusable_ipex

    try:
        refuse_unusable_ipex()
    except BackendUnavailable as error:
        return str(error)
    return None


def _fastest(artifact: Artifact, dtype: str | None) -> str:
    """By measurement (`benchmarks/results/ipex_speed.json`): IPEX for integers with fixed scales and for bfloat16."""
    fixed_scales = artifact.precision == INT8 and artifact.quantization.get("recipe") != "dynamic"
    return "ipex" if (fixed_scales or dtype == "bfloat16") and missing_for("ipex") is None else REFERENCE
