"""Backends by name. Each file here imports the library it runs on, and only when asked for."""

from __future__ import annotations

from itrex_sweet.artifact import CASCADE, Artifact
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.backends.base import Backend

BACKENDS = ("torch",)


def load_backend(artifact: Artifact, name: str = "auto") -> Backend:
    """Makes the backend that will run an artifact.

    Args:
        artifact: opened by `open_artifact`.
        name: one of `BACKENDS`, or `"auto"` for the best one here.

    Raises:
        BackendUnavailable: the backend named does not exist or cannot run here; none is put in its place.
    """
    if name == "auto":
        name = BACKENDS[0]
    if name not in BACKENDS:
        raise BackendUnavailable(f"backend={name!r} is not there. Backends here: {', '.join(BACKENDS)}, or 'auto'.")
    if artifact.architecture == CASCADE:
        from itrex_sweet.runtime.cascade import CascadeBackend

        return CascadeBackend(artifact, [load_backend(stage, name) for stage in artifact.stages])
    from itrex_sweet.runtime.backends.torch import TorchBackend

    return TorchBackend(artifact)
