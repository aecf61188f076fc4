"""`Classifier`: an artifact, opened to classify texts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from itrex_sweet.artifact import INT8, Artifact, open_artifact
from itrex_sweet.classifier.notices import warn_of_another_calibration
from itrex_sweet.classifier.options import checked_dtype_name, checked_warm_up, refuse_adapter
from itrex_sweet.classifier.reopening import Origin, reopen
from itrex_sweet.classifier.zero_shot import ZeroShot
from itrex_sweet.defaults import DEFAULT_BACKEND, DEFAULT_BATCH_SIZE
from itrex_sweet.hub import fetch
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.request import Threshold
from itrex_sweet.tasks import SINGLE_LABEL
from itrex_sweet.tokenization.stored import run_tokenizer_of


class Classifier(ZeroShot):
    """Early-exit text classifier on the CPU.

    `itrex_sweet.load(DIR)` creates it. With the native engine it needs only NumPy and `tokenizers`, and imports neither
    torch nor transformers. It is thread-safe, and can be used in a child process after a fork. A pickle or copy stores
    folder and settings, and loads the artifact again.

    Args:
        artifact: opened by `open_artifact`.
        backend, threshold, batch_size, dtype, warm_up, threads: as of `load`.
        tokenizer: tokenizes texts; without one, `predict` raises an error.

    Attributes:
        artifact: the opened artifact.
        backend: runs the model.
        executor: runs packed rows, as `read(texts)` returns them, through the backend, and returns arrays.
    """

    def __init__(
        self,
        artifact: Artifact,
        backend: str = DEFAULT_BACKEND,
        threshold: Threshold | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        tokenizer: Any = None,
        dtype: Any = None,
        warm_up: Sequence[tuple[int, int]] = (),
        threads: int | None = None,
    ):
        self.artifact = artifact
        policy = artifact.policy if threshold is None else artifact.policy.with_threshold(threshold)
        dtype, warm_up = checked_dtype_name(dtype), checked_warm_up(warm_up)
        self.computed_in = dtype or "float32"  # unless the artifact is quantized
        self.backend = load_backend(artifact, backend, dtype=dtype, warm_up=warm_up, threads=threads)
        self.executor = Executor(self.backend, policy, batch_size)
        self.tokenizer = tokenizer
        self._origin = Origin.of(artifact, dict(backend=backend, dtype=dtype, warm_up=warm_up, threads=threads))
        if threshold is None:
            warn_of_another_calibration(artifact, self.backend.name)

    @classmethod
    def load(
        cls,
        model_id: str | os.PathLike,
        *,
        backend: str = DEFAULT_BACKEND,
        threshold: Threshold | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        dtype: Any = None,
        warm_up: Sequence[tuple[int, int]] = (),
        threads: int | None = None,
        verify: bool = True,
        subfolder: str = "",
        revision: str = "main",
        token: bool | str | None = None,
        cache_dir: str | os.PathLike | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Any:
        """Loads an artifact from a folder or from the Hugging Face hub.

        Args:
            model_id: a folder, or a repository on the hub.
            backend: name of a backend, or `"auto"` for the fastest one here for this kind of artifact.
            threshold: replaces the stored thresholds; one for all exits, or one for each but the last, in [0, 1].
            batch_size: rows computed together.
            dtype: what a float artifact is computed in: `"float32"`, or on `native`, `ipex` and `openvino`
                `"bfloat16"`; also `"fp32"`, `"bf16"`, dtypes of torch, and `"auto"` for the default.
            warm_up: (rows, tokens) of expected batches, for backends that compile by shape.
            threads: maximum number of threads; by default the cores that this process may use, or fewer if
                `OMP_NUM_THREADS` or `torch.set_num_threads` says so. Short calls of the native engine use fewer.
            verify: compare files with the recorded sizes and hashes before use.
            subfolder, revision, token, cache_dir, force_download, local_files_only: as of
                `huggingface_hub.snapshot_download`.

        Raises:
            ConfigError: a setting is wrong.
            ArtifactError: the folder does not exist, or is a plain checkpoint without exits, an adapter without its
                model, corrupt, or newer than this release; its contents are invalid; or its tokenizer cannot be loaded,
                or has ids outside the embedding table. Code in the folder is never run.
            BackendUnavailable: the backend cannot run here.
            MissingExtraError: the artifact needs a package that is not installed.
        """
        options = dict(revision=revision, token=token, cache_dir=cache_dir, force_download=force_download)
        directory = fetch(model_id, subfolder=subfolder, local_files_only=local_files_only, **options)
        refuse_adapter(directory)
        artifact = open_artifact(directory, verify=verify)
        tokenizer = cls._tokenizer_of(artifact)
        model = cls(artifact, backend, threshold, batch_size, tokenizer, dtype=dtype, warm_up=warm_up, threads=threads)
        settings = {**model._origin.settings, "verify": verify}
        model._origin = dataclasses.replace(model._origin, settings=settings, tokenizer=tokenizer)
        return model

    @staticmethod
    def _tokenizer_of(artifact: Artifact) -> Any:
        return run_tokenizer_of(artifact)

    def __repr__(self) -> str:
        artifact, backend = self.artifact, self.backend
        engine = [backend.name, getattr(backend, "isa", None)]
        if (threads := getattr(backend, "threads", None)) is not None:
            engine.append(f"{threads} thread{'' if threads == 1 else 's'}")
        facts = {
            "family": artifact.config["model_type"],
            "architecture": artifact.architecture,
            **({} if artifact.task.name == SINGLE_LABEL else {"task": artifact.task.name}),
            "labels": backend.num_labels,
            "exits": artifact.exits,
            "precision": artifact.precision if artifact.precision == INT8 else self.computed_in,
            "backend": " ".join(filter(None, engine)),
            "policy": self.policy,
            "calibrated": bool(artifact.calibration),
        }
        shown = ", ".join(f"{name}={value}" for name, value in facts.items())
        return f"{type(self).__name__}({str(artifact.directory)!r}, {shown})"

    def __reduce__(self) -> Any:
        origin = self._origin
        settings = {**origin.settings, "batch_size": self.executor.batch_size}
        own_tokenizer = None if self.tokenizer is origin.tokenizer else self.tokenizer
        return reopen, (type(self), origin.directory, origin.identity, settings, self.policy, own_tokenizer)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, by id."""
        return self.artifact.label_names

    @property
    def exits(self) -> tuple[int, ...]:
        """Exits of the model as numbers of layers; the last is its full depth."""
        return self.artifact.exits
