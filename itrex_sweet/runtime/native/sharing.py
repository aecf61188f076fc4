"""One copy of packed weights, and of threads, for all backends of a process that can share them."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Hashable

from itrex_sweet.artifact import Artifact
from itrex_sweet.runtime.native.cores import default_threads
from itrex_sweet.runtime.native.handle import EngineModel, EngineThreads
from itrex_sweet.runtime.native.library import Library

# Both are used without a lock, which a fork could leave locked: two threads that load the same model at the same time
# may each create one, and later ones share the second.
_models: weakref.WeakValueDictionary[Hashable, EngineModel] = weakref.WeakValueDictionary()
_threads: weakref.WeakValueDictionary[Hashable, EngineThreads] = weakref.WeakValueDictionary()


def shared_model(
    library: Library, artifact: Artifact, use_bfloat16: bool, create: Callable[[], EngineModel]
) -> EngineModel:
    """Returns the packed model of an artifact's weights: that of another backend, or the result of `create`.

    Models are the same if config, exits and the verified hashes of the weights files are. The policy may differ.
    """
    weights = _verified_hashes(artifact)
    if weights is None:
        return create()
    settings = [dict(artifact.config), artifact.exits, artifact.shares_pooler, artifact.precision]
    key = (library.path, use_bfloat16, weights, json.dumps(settings, sort_keys=True, default=str))
    found = _models.get(key)
    if found is None:
        _models[key] = found = create()
    return found


def shared_threads(library: Library) -> EngineThreads:
    """Returns the threads of backends that are loaded without a number of threads; see `default_threads`.

    All models of a process together then use no more threads than one.
    """
    key = (library.path, default_threads())
    found = _threads.get(key)
    if found is None:
        _threads[key] = found = EngineThreads(library, key[1])
    return found


def _verified_hashes(artifact: Artifact) -> tuple[tuple[str, str], ...] | None:
    """Returns the SHA-256 of each weights file by name, or `None` if one was not verified."""
    prefix = artifact.prefix
    files = {
        name.removeprefix(prefix): file for name, file in artifact.contents.weights.items() if name.startswith(prefix)
    }
    if not files or not all(file.verified and file.recorded is not None for file in files.values()):
        return None
    return tuple(sorted((name, file.recorded.sha256) for name, file in files.items()))
