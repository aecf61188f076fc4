"""Loads the classifier of a worker: with the worker's CPUs as threads, and only the artifact that was asked for."""

from __future__ import annotations

import os
import sys
from typing import Any

from itrex_sweet.artifact import open_artifact
from itrex_sweet.classifier import Classifier
from itrex_sweet.classifier.reopening import identity_of
from itrex_sweet.errors import ArtifactError
from itrex_sweet.hub import fetch


def load_for_worker(
    artifact: str | os.PathLike, *, threads: int | None = None, identity: str | None = None, **options: Any
) -> Classifier:
    """Loads an artifact in a worker.

    Args:
        artifact: a folder, on this machine, or a repository on the Hub.
        threads: maximum number of threads; by default the CPUs that Ray assigned to this worker, rounded down, at least
            1, and outside of Ray those of `Classifier.load`.
        identity: hash of the artifact, as `artifact_identity` returns it.
        options: other options of `Classifier.load`.

    Raises:
        ArtifactError: the folder contains another artifact, and as `Classifier.load`.
        ConfigError, BackendUnavailable, MissingExtraError: as `Classifier.load`.
    """
    classifier = Classifier.load(artifact, threads=assigned_cpus() if threads is None else threads, **options)
    if identity is not None and (found := identity_of(classifier.artifact)) != identity:
        raise ArtifactError(
            f"{artifact} on {os.uname().nodename} is another artifact ({found[:12]}) than the one asked for "
            f"({identity[:12]}): copy the same folder to every machine."
        )
    return classifier


def artifact_identity(artifact: str | os.PathLike) -> str:
    """Computes the SHA-256 of an artifact, without loading it for running.

    Raises:
        ArtifactError: as `Classifier.load`.
    """
    return identity_of(open_artifact(fetch(artifact)))


def assigned_cpus() -> int | None:
    """Returns the CPUs that Ray assigned to this worker, rounded down, at least 1; `None` outside of a Ray worker.

    Ray sets `OMP_NUM_THREADS` in its workers too, but not in those that find it set on their machine.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_task_id() is None and context.get_actor_id() is None:
        return None  # the driver
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))
