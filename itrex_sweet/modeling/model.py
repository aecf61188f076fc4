"""`SweetModelForSequenceClassification`: an artifact with the interface of transformers and optimum models."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

import torch
from optimum.modeling_base import OptimizedModel
from transformers import AutoModelForSequenceClassification

from itrex_sweet.artifact import Artifact, copy_artifact
from itrex_sweet.classifier import Classifier
from itrex_sweet.classifier.predictions import calibrated_logits
from itrex_sweet.defaults import DEFAULT_BACKEND, DEFAULT_BATCH_SIZE
from itrex_sweet.errors import InputError
from itrex_sweet.modeling.loading import check_further_arguments, dtype_of
from itrex_sweet.modeling.losses import targets_of, task_loss
from itrex_sweet.modeling.module_methods import ModuleMethods
from itrex_sweet.modeling.outputs import SweetClassifierOutput
from itrex_sweet.modeling.pipeline_registration import register
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.limits import faults
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Threshold
from itrex_sweet.runtime.shutdown import finish_before_exit
from itrex_sweet.tokenization.inputs import numbers_of
from itrex_sweet.tokenization.stored import tokenizer_of


class SweetModelForSequenceClassification(Classifier, ModuleMethods, OptimizedModel):
    """`Classifier` with the interface of a transformers model.

    `model(**tokenizer(texts, return_tensors="pt", padding=True))` and `pipeline("text-classification",
    model=model, tokenizer=tokenizer)` work as with any model; `model.predict(texts)` is faster.
    """

    auto_model_class = AutoModelForSequenceClassification
    main_input_name = "input_ids"
    base_model_prefix = "sweet_model"

    def __init__(
        self,
        artifact: Artifact,
        backend: str = DEFAULT_BACKEND,
        threshold: Threshold | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        tokenizer: Any = None,
        dtype: str | None = None,
        warm_up: Sequence[tuple[int, int]] = (),
        threads: int | None = None,
    ):
        OptimizedModel.__init__(
            self,
            model=None,
            config=artifact.model_config(),
            preprocessors=[] if tokenizer is None else [tokenizer],
        )
        Classifier.__init__(self, artifact, backend, threshold, batch_size, tokenizer, dtype, warm_up, threads)
        register()

    # ------------------------------------------------------------------ answers

    @finish_before_exit
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        return_dict: bool | None = True,
        threshold: Threshold | None = None,
        policy: Policy | None = None,
        quality: float | None = None,
        max_exit: int | None = None,
        deadline_ms: float | None = None,
        raw_logits: bool = False,
    ) -> SweetClassifierOutput | tuple:
        """Classifies a padded batch. Padding is removed first and not computed.

        Args:
            input_ids: (rows, columns) integers, as a tensor, an array or nested lists; no rows are fine.
            attention_mask: the same shape, 1 for tokens and 0 for padding.
            token_type_ids: the same shape, integers.
            labels: (rows,) integers, -100 for rows to ignore; of a multi-label model (rows, labels) of 0 and 1, of
                regression (rows,) numbers. If given, `loss` is the mean cross-entropy, binary cross-entropy or squared
                error of the logits.
            return_dict: whether to return an output object instead of a tuple.
            threshold, policy, quality, max_exit, deadline_ms: as of `predict`.
            raw_logits: whether to return logits that are not divided by the temperature of their exit.

        Returns:
            logits (rows, labels) of the exit each row left at, `exit_layer`, `confidence` and `stopped_by`. The softmax
            (of a multi-label model the logistic function) of the logits is the probability that `predict` calls
            `score`, unless they are raw; of regression they are the values. A row whose logits are
            not finite keeps them so, with NaN confidence.

        Raises:
            InputError: invalid token ids, mask, types or labels, different shapes, a row without tokens, or a row
                outside the model's limits.
            ConfigError: an option does not fit the model.
        """
        request = self._request(threshold, policy, quality, max_exit, deadline_ms)
        if input_ids is None:
            raise InputError("input_ids is missing: model(**tokenizer(texts, return_tensors='pt', padding=True)).")
        ids, mask, types = (
            numbers_of(name, values)
            for name, values in (
                ("input_ids", input_ids),
                ("attention_mask", attention_mask),
                ("token_type_ids", token_type_ids),
            )
        )
        batch = TokenBatch.from_padded(ids, mask, types, self.backend.padding_idx)
        if labels is not None:
            labels = targets_of(labels, len(batch), self.config.num_labels, self.artifact.task.name)
        for fault in faults(batch, self.backend):
            raise InputError(fault.message, fault.rows)
        self._warn_of_untrained_lengths(batch)
        answers = self._answers(batch, request)
        logits = torch.from_numpy(answers.logits if raw_logits else calibrated_logits(answers, request.policy))
        output = SweetClassifierOutput(
            loss=None if labels is None else task_loss(logits, labels, self.artifact.task.name),
            logits=logits,
            exit_layer=torch.from_numpy(self.exit_layers(answers)),
            confidence=torch.from_numpy(answers.confidence),
            out_of_time=None if answers.out_of_time is None else torch.from_numpy(answers.out_of_time),
            stopped_by=request.stopped_by(answers),
        )
        return output if return_dict is None or return_dict else output.to_tuple()

    def _label_names(self) -> list[str]:
        names = self.config.id2label
        return [str(names.get(label, f"LABEL_{label}")) for label in range(self.backend.num_labels)]

    # ------------------------------------------------------------------ load and save

    @classmethod
    def from_pretrained(
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
        **others: Any,
    ) -> SweetModelForSequenceClassification:
        """Loads an artifact from a folder or from the Hugging Face hub, as `itrex_sweet.load` does.

        Args:
            model_id: a folder, or a repository on the hub.
            backend: name of a backend, or `"auto"` for the fastest one here for this kind of artifact.
            threshold: replaces the stored thresholds; one for all exits, or one for each but the last, in [0, 1].
            batch_size: rows computed together.
            dtype: what a float artifact is computed in: `"float32"`, or on `native`, `ipex` and `openvino`
                `"bfloat16"`; also `"fp32"`, `"bf16"`, dtypes of torch, and `"auto"` for the default.
                `torch_dtype` means the same.
            warm_up: (rows, tokens) of expected batches, for backends that compile by shape.
            threads: maximum number of threads; by default the cores that this process may use, or fewer if
                `OMP_NUM_THREADS` or `torch.set_num_threads` says so. Short calls of the native engine use fewer.
            verify: compare files with the recorded sizes and hashes before use.
            subfolder, revision, token, cache_dir, force_download, local_files_only: as of
                `huggingface_hub.snapshot_download`.
            others: arguments of transformers with the values that apply here anyway, such as `device_map="cpu"`.

        Raises:
            ConfigError: a setting is wrong or not supported.
            TypeError: an unknown argument.
            ArtifactError, BackendUnavailable: as of `itrex_sweet.load`.
        """
        dtype = dtype_of(dtype, others)
        check_further_arguments(others, inspect.signature(cls.from_pretrained).parameters)
        return cls.load(
            model_id,
            backend=backend,
            threshold=threshold,
            batch_size=batch_size,
            dtype=dtype,
            warm_up=warm_up,
            threads=threads,
            verify=verify,
            subfolder=subfolder,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )

    @staticmethod
    def _tokenizer_of(artifact: Artifact) -> Any:
        return tokenizer_of(artifact)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Writes the artifact with the present policy, tokenizer and model card included.

        Args:
            save_directory: created if missing; an existing artifact is replaced after the new one is complete.
            push_to_hub: whether to upload it; `kwargs` are arguments of `push_to_hub`.

        Raises:
            ArtifactError: the folder cannot be written; its contents are unchanged.
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
            URL of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id=repository_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository_id, folder_path=save_directory, commit_message=commit_message))

    def pipeline(self, **options: Any) -> Any:
        """Creates transformers' text-classification pipeline with this model and its tokenizer.

        Args:
            options: as of `itrex_sweet.modeling.pipelines.SweetTextClassificationPipeline`.
        """
        from itrex_sweet.modeling.pipelines import SweetTextClassificationPipeline

        return SweetTextClassificationPipeline(model=self, **options)
