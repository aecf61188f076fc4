"""`SweetModelForSequenceClassification`: an artifact used as people use a model of optimum."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
from collections.abc import Sequence
from typing import Any

from optimum.modeling_base import OptimizedModel
from transformers import AutoModelForSequenceClassification

from itrex_sweet.artifact import INT8, Artifact, copy_artifact, open_artifact
from itrex_sweet.hub import fetch
from itrex_sweet.modeling.answering import AnsweringModel
from itrex_sweet.modeling.loading import checked_dtype_name, checked_warm_up, dtype_of, heed, refuse_adapter
from itrex_sweet.modeling.module_methods import ModuleMethods
from itrex_sweet.modeling.pipeline_registration import register
from itrex_sweet.modeling.reopening import Origin, reopen
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.call import Threshold
from itrex_sweet.runtime.executor import DEFAULT_BATCH_SIZE, Executor
from itrex_sweet.tokenization.stored import tokenizer_of

logger = logging.getLogger(__name__)


class SweetModelForSequenceClassification(AnsweringModel, ModuleMethods, OptimizedModel):
    """Early-exit text classifier, run by an executor on the CPU.

    `model(**tokenizer(texts, return_tensors="pt", padding=True))` and `pipeline("text-classification",
    model=model, tokenizer=tokenizer)` work as with any model; `model.predict(texts)` is the fast way.

    Threads may share one. Pickled or copied, it is its folder and its settings, and is opened there again.
    """

    auto_model_class = AutoModelForSequenceClassification
    main_input_name = "input_ids"
    base_model_prefix = "sweet_model"

    def __init__(
        self,
        artifact: Artifact,
        backend: str = "auto",
        threshold: Threshold | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        tokenizer: Any = None,
        dtype: str | None = None,
        warm_up: Sequence[tuple[int, int]] = (),
        threads: int | None = None,
    ):
        super().__init__(
            model=None, config=artifact.model_config(), preprocessors=[] if tokenizer is None else [tokenizer]
        )
        self.artifact = artifact
        policy = artifact.policy if threshold is None else artifact.policy.with_threshold(threshold)
        dtype, warm_up = checked_dtype_name(dtype), checked_warm_up(warm_up)
        self.computed_in = dtype or "float32"  # where the artifact is not quantized
        self.backend = load_backend(artifact, backend, dtype=dtype, warm_up=warm_up, threads=threads)
        self.executor = Executor(self.backend, policy, batch_size)
        self.tokenizer = tokenizer
        self._origin = Origin.of(artifact, dict(backend=backend, dtype=dtype, warm_up=warm_up, threads=threads))
        register()
        if threshold is None:
            self._warn_of_another_calibration()

    def __repr__(self) -> str:
        artifact, backend, policy = self.artifact, self.backend, self.policy
        engine = [backend.name, getattr(backend, "isa", None)]
        if (threads := getattr(backend, "threads", None)) is not None:
            engine.append(f"{threads} thread{'' if threads == 1 else 's'}")
        precision = artifact.precision if artifact.precision == INT8 else self.computed_in
        facts = {
            "family": self.config.model_type,
            "architecture": artifact.architecture,
            "labels": self.config.num_labels,
            "exits": artifact.exits,
            "precision": precision,
            "backend": " ".join(filter(None, engine)),
            "policy": policy,
            "calibrated": bool(artifact.calibration),
        }
        shown = ", ".join(f"{name}={value}" for name, value in facts.items())
        return f"{type(self).__name__}({str(artifact.directory)!r}, {shown})"

    def __reduce__(self) -> Any:
        origin = self._origin
        settings = {**origin.settings, "batch_size": self.executor.batch_size}
        own_tokenizer = None if self.tokenizer is origin.tokenizer else self.tokenizer
        return reopen, (type(self), origin.directory, origin.identity, settings, self.policy, own_tokenizer)

    def _warn_of_another_calibration(self) -> None:
        """Says so where the stored policy was calibrated on something else than what runs."""
        calibration = self.artifact.calibration
        running = {"backend": self.backend.name, "precision": self.artifact.precision}
        other = {
            name: calibration[name] for name in running if name in calibration and calibration[name] != running[name]
        }
        if other:
            was = " and ".join(f"{name} {value}" for name, value in other.items())
            logger.warning(
                "%s was calibrated on %s, and runs on %s: what its policy promises was shown for that. Calibrate anew: "
                "itrex-sweet calibrate.",
                self.artifact.directory,
                was,
                " and ".join(running[name] for name in other),
            )

    # ------------------------------------------------------------------ load and save

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | os.PathLike,
        *,
        backend: str = "auto",
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
        **others: Any,
    ) -> SweetModelForSequenceClassification:
        """Loads an artifact from a folder or from the Hugging Face hub.

        Args:
            model_id: a folder, or a repository on the hub.
            backend: name of a backend, or `"auto"` for the one that measured fastest for such an artifact here.
            threshold: instead of the stored one; one for all exits, or one for each but the last, in [0, 1].
            batch_size: rows computed together.
            dtype: what a float artifact is computed in: `"float32"`, or on `native` and `ipex` `"bfloat16"`; also
                `"fp32"`, `"bf16"`, dtypes of torch, and `"auto"` for the default. `torch_dtype` means the same.
            warm_up: (rows, tokens) of batches to be expected, for backends that compile by shape.
            threads: to compute with at most; else the cores that this process may use, or less where
                `OMP_NUM_THREADS` or `torch.set_num_threads` says so. Short calls of the native engine use fewer.
            verify: compare the recorded sizes and hashes before use.
            subfolder, revision, token, cache_dir, force_download, local_files_only: as everywhere on the hub.
            others: arguments of transformers that ask for what happens anyway, such as `device_map="cpu"`.

        Raises:
            ConfigError: a setting is wrong, or asks for what this package does not do.
            TypeError: an unknown argument.
            ArtifactError: not there, a plain checkpoint without exits, an adapter alone, corrupt, or newer than this
                release; a number, shape or name in it breaks the format's rules; or its tokenizer cannot be loaded, or
                gives ids that the embedding table lacks. Nothing in the folder is ever run.
            BackendUnavailable: the backend named cannot run here.
        """
        dtype = dtype_of(dtype, others)
        heed(others, inspect.signature(cls.from_pretrained).parameters)
        options = dict(revision=revision, token=token, cache_dir=cache_dir, force_download=force_download)
        directory = fetch(model_id, subfolder=subfolder, local_files_only=local_files_only, **options)
        refuse_adapter(directory)
        artifact = open_artifact(directory, verify=verify)
        tokenizer = tokenizer_of(artifact)
        model = cls(artifact, backend, threshold, batch_size, tokenizer, dtype=dtype, warm_up=warm_up, threads=threads)
        settings = {**model._origin.settings, "verify": verify}
        model._origin = dataclasses.replace(model._origin, settings=settings, tokenizer=tokenizer)
        return model

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Writes the artifact with the model's present policy, tokenizer and card included.

        Args:
            save_directory: made if missing; an artifact there is replaced only once the new one is whole.
            push_to_hub: upload it then; `repository_id` and the other arguments of `push_to_hub` follow.

        Raises:
            ArtifactError: the folder cannot be written; what it held before is untouched.
        """
        self._save_pretrained(save_directory)
        return self.push_to_hub(save_directory, **kwargs) if push_to_hub else None

    def _save_pretrained(self, save_directory: str | os.PathLike) -> None:
        copy_artifact(self.artifact, save_directory, policy=self.policy)

    def push_to_hub(
        self,
        save_directory: str | os.PathLike,
        repository_id: str,
        private: bool | None = None,
        token: bool | str | None = None,
        commit_message: str = "Upload an early-exit classifier",
    ) -> str:
        """Uploads a saved folder, sub-folders included, in one commit.

        Returns:
            address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id=repository_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository_id, folder_path=save_directory, commit_message=commit_message))

    def pipeline(self, **options: Any) -> Any:
        """Makes transformers' text-classification pipeline of this model and its tokenizer.

        Args:
            options: as of `itrex_sweet.modeling.pipelines.SweetTextClassificationPipeline`.
        """
        from itrex_sweet.modeling.pipelines import SweetTextClassificationPipeline

        return SweetTextClassificationPipeline(model=self, **options)
