"""`SweetModelForSequenceClassification`: an artifact used as people use a model of optimum."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from optimum.modeling_base import OptimizedModel
from transformers import AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from itrex_sweet import criteria
from itrex_sweet.artifact import Artifact, copy_artifact, open_artifact
from itrex_sweet.config import Policy
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, NonFiniteLogitsError
from itrex_sweet.hub import fetch
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.call import Call, Threshold
from itrex_sweet.runtime.executor import DEFAULT_BATCH_SIZE, Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.stored_tokenizer import tokenizer_of
from itrex_sweet.tokenization import TextReader

logger = logging.getLogger(__name__)


@dataclass
class SweetClassifierOutput(SequenceClassifierOutput):
    """`SequenceClassifierOutput` and where each row left.

    Args:
        exit_layer: (rows,) int64, the exit that answered, a count of layers from 1.
        confidence: (rows,) float32, by the policy's criterion.
        out_of_time: (rows,) bool, whether a deadline ended the row's way; `None` where there was none.
    """

    exit_layer: torch.LongTensor | None = None
    confidence: torch.FloatTensor | None = None
    out_of_time: torch.BoolTensor | None = None


class SweetModelForSequenceClassification(OptimizedModel):
    """Early-exit text classifier, run by an executor on the CPU.

    `model(**tokenizer(texts, return_tensors="pt", padding=True))` and `pipeline("text-classification",
    model=model, tokenizer=tokenizer)` work as with any model; `model.predict(texts)` is the fast way.
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
    ):
        config = artifact.model_config()
        super().__init__(model=None, config=config, preprocessors=[] if tokenizer is None else [tokenizer])
        self.artifact = artifact
        policy = artifact.policy if threshold is None else artifact.policy.with_threshold(threshold)
        self.computed_in = dtype or "float32"  # where the artifact is not quantized
        self.backend = load_backend(artifact, backend, dtype=dtype, warm_up=warm_up)
        self.executor = Executor(self.backend, policy, batch_size)
        self.tokenizer = tokenizer
        if threshold is None:
            self._warn_of_another_calibration()

    @property
    def policy(self) -> Policy:
        """When a row may leave, unless a call says otherwise; `save_pretrained` writes it."""
        return self.executor.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.executor.policy = self.artifact.checked(policy)

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
        dtype: str | None = None,
        warm_up: Sequence[tuple[int, int]] = (),
        verify: bool = True,
        subfolder: str = "",
        revision: str = "main",
        token: bool | str | None = None,
        cache_dir: str | os.PathLike | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> SweetModelForSequenceClassification:
        """Loads an artifact from a folder or from the Hugging Face hub.

        Args:
            model_id: a folder, or a repository on the hub.
            backend: name of a backend, or `"auto"` for the one that measured fastest for such an artifact here.
            threshold: instead of the stored one; one for all exits, or one for each but the last, in [0, 1].
            batch_size: rows computed together.
            dtype: what a float artifact is computed in: `"float32"`, or on `native` and `ipex` `"bfloat16"`.
            warm_up: (rows, tokens) of batches to be expected, for backends that compile by shape.
            verify: compare the recorded sizes and hashes before use.
            subfolder, revision, token, cache_dir, force_download, local_files_only: as everywhere on the hub.

        Raises:
            ArtifactError: not there, a plain checkpoint without exits, corrupt, or newer than this release; a number,
                shape or name in it breaks the format's rules; or its tokenizer cannot be loaded, or gives ids that the
                embedding table lacks. Nothing in the folder is ever run.
            BackendUnavailable: the backend named cannot run here.
        """
        options = dict(revision=revision, token=token, cache_dir=cache_dir, force_download=force_download)
        directory = fetch(model_id, subfolder=subfolder, local_files_only=local_files_only, **options)
        artifact = open_artifact(directory, verify=verify)
        tokenizer = tokenizer_of(artifact)
        return cls(artifact, backend, threshold, batch_size, tokenizer, dtype=dtype, warm_up=warm_up)

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

    # ------------------------------------------------------------------ what transformers' pipeline asks for

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits."""
        return torch.float32

    def to(self, device: torch.device | str | int) -> SweetModelForSequenceClassification:
        """Accepts the CPU, and nothing else.

        Raises:
            ConfigError: another device.
        """
        if torch.device(device).type != "cpu":
            raise ConfigError(f"device={str(device)!r}: early exits run on the CPU here.")
        return self

    def eval(self) -> SweetModelForSequenceClassification:
        """Does nothing: there is no training mode."""
        return self

    def can_generate(self) -> bool:
        """No."""
        return False

    # ------------------------------------------------------------------ answer

    def forward(
        self,
        input_ids: torch.Tensor | np.ndarray,
        attention_mask: torch.Tensor | np.ndarray | None = None,
        token_type_ids: torch.Tensor | np.ndarray | None = None,
        labels: torch.Tensor | np.ndarray | None = None,
        return_dict: bool = True,
        threshold: Threshold | None = None,
        policy: Policy | None = None,
        quality: float | None = None,
        max_exit: int | None = None,
        deadline_ms: float | None = None,
    ) -> SweetClassifierOutput | tuple:
        """Answers a padded batch; padding is dropped first and never computed.

        Args:
            input_ids: (rows, columns) integers.
            attention_mask: the same shape, 0 where a column does not count.
            token_type_ids: the same shape.
            labels: (rows,) integers; with them, `loss` is the mean cross-entropy of the answers.
            return_dict: a plain tuple if false.
            threshold, policy, quality, max_exit, deadline_ms: as in `predict`, for this call.

        Returns:
            logits (rows, labels) of the exit each row left at, `exit_layer` and `confidence`. A row whose logits
            are not finite keeps them so, with NaN confidence.

        Raises:
            InputError: a row without tokens, token ids out of range, a row too long for the model, or bad labels.
            ConfigError: what the call says about stopping does not fit the model.
        """
        call = Call.of(self.artifact, self.policy, threshold, policy, quality, max_exit, deadline_ms)
        batch = TokenBatch.from_padded(
            _array(input_ids), _array(attention_mask), _array(token_type_ids), self.backend.uncounted_token
        )
        answers = self._answers(batch, call)
        logits = torch.from_numpy(answers.logits)
        output = SweetClassifierOutput(
            loss=None if labels is None else self._loss(logits, torch.as_tensor(labels)),
            logits=logits,
            exit_layer=torch.from_numpy(self.exit_layers(answers)),
            confidence=torch.from_numpy(answers.confidence),
            out_of_time=None if answers.out_of_time is None else torch.from_numpy(answers.out_of_time),
        )
        return output if return_dict else output.to_tuple()

    def predict(
        self,
        texts: Sequence[Any],
        *,
        threshold: Threshold | None = None,
        policy: Policy | None = None,
        quality: float | None = None,
        max_exit: int | None = None,
        deadline_ms: float | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        overlong: str = "truncate",
        errors: str = "raise",
    ) -> list[dict[str, Any]]:
        """Classifies texts, each leaving at the first exit that is confident enough.

        Args:
            texts: strings, or pairs of strings for sentence-pair tasks; none is fine.
            threshold: for this call; one for all exits, or one for each but the last, in [0, 1].
            policy: for this call, instead of the stored one.
            quality: for this call, in [0, 1]: a step of the calibrated curve, from the fastest policy found, 0, to the
                full model, 1; a share of the way in cost. What was promised, was promised of the stored policy alone.
            max_exit: for this call: the exit, a count of layers, that answers whoever reaches it.
            deadline_ms: for this call, from its beginning: when so many milliseconds are over, rows are answered by
                the best exit that they have reached. The segment that is running is finished, and every row gets the
                first exit's answer at least.
            batch_size: rows computed together, for this call.
            max_length: tokens per row at most; the model's and tokenizer's limit if absent.
            overlong: `"truncate"` cuts longer texts with a warning, `"refuse"` treats them as errors.
            errors: `"raise"`, or `"mark"` to answer the good rows and give the bad ones an `error`.

        Returns:
            per text, in order: `label`, `score` (its probability), `exit_layer`, and `stopped_by`: `"confidence"`,
            `"deadline"`, `"max_exit"` or `"full_depth"`; `error` in place of an answer.

        Raises:
            InputError: a text is empty, not a text, or too long and refused (before anything is computed).
            NonFiniteLogitsError: the model answered NaN; the other rows' answers are in its `answers`.
            ConfigError: what the call says about stopping does not fit the model.
        """
        call = Call.of(self.artifact, self.policy, threshold, policy, quality, max_exit, deadline_ms)
        if isinstance(texts, str):
            raise InputError("predict takes a list of texts; wrap a single one: predict([text]).")
        for name, value, known in (
            ("errors", errors, ("raise", "mark")),
            ("overlong", overlong, ("truncate", "refuse")),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: choose one of {', '.join(known)}.")
        texts = list(texts)
        reading = self._reader().read(texts, max_length, overlong)
        if reading.errors and errors == "raise":
            shown = "; ".join(f"row {row}: {reason}" for row, reason in list(reading.errors.items())[:5])
            raise InputError(
                f"{len(reading.errors)} of {len(texts)} texts cannot be read: {shown}", tuple(reading.errors)
            )
        answers = self._answers(reading.batch, call, batch_size)
        predictions = self._predictions(answers, call)
        results: list[dict[str, Any]] = [{}] * len(texts)
        for row, reason in reading.errors.items():
            results[row] = _unanswered(reason)
        for row, prediction in zip(reading.rows, predictions, strict=True):
            results[row] = prediction
        broken = tuple(reading.rows[row] for row in np.flatnonzero(~np.isfinite(answers.logits).all(axis=1)))
        if broken and errors == "raise":
            raise NonFiniteLogitsError(
                f"the model's logits are not finite for rows {list(broken)}; its weights or training diverged. "
                "The other rows' answers are in this error's `answers`.",
                broken,
                results,
            )
        return results

    def read(self, texts: Sequence[Any], max_length: int | None = None) -> TokenBatch:
        """Texts as packed rows, all of them, for the executor.

        Raises:
            InputError: a text is empty or not a text.
        """
        reading = self._reader().read(texts, max_length, "truncate")
        if reading.errors:
            row, reason = next(iter(reading.errors.items()))
            raise InputError(
                f"{len(reading.errors)} texts cannot be read, the first, row {row}: {reason}", tuple(reading.errors)
            )
        return reading.batch

    def exit_layers(self, answers: Answers) -> np.ndarray:
        """(rows,) int64: the exit of each answer, a count of layers from 1."""
        return np.asarray(self.artifact.exits, dtype=np.int64)[answers.exit_index]

    # ------------------------------------------------------------------ parts of it

    def _answers(self, batch: TokenBatch, call: Call, batch_size: int | None = None) -> Answers:
        self._refuse_impossible(batch)
        return self.executor.run(batch, call.policy, batch_size, call.deadline)

    def _refuse_impossible(self, batch: TokenBatch) -> None:
        bad = (batch.input_ids < 0) | (batch.input_ids >= self.backend.vocabulary)
        if bad.any():
            rows = np.unique(np.searchsorted(batch.cu_seqlens, np.flatnonzero(bad), side="right") - 1)
            raise InputError(
                f"token id {batch.input_ids[bad][0]} in rows {rows.tolist()}: ids go from 0 to "
                f"{self.backend.vocabulary - 1}. Is the tokenizer this model's own?",
                tuple(rows.tolist()),
            )
        limit = self.backend.max_tokens
        if limit is not None and len(batch) and batch.lengths.max() > limit:
            rows = np.flatnonzero(batch.lengths > limit).tolist()
            raise InputError(
                f"rows {rows} have up to {batch.lengths.max()} tokens; the model takes {limit}. "
                "Tokenize with truncation=True.",
                tuple(rows),
            )

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        bad = ((labels < 0) & (labels != -100)) | (labels >= self.config.num_labels)
        if bad.any():
            raise InputError(
                f"label {labels[bad][0].item()}: labels go from 0 to {self.config.num_labels - 1}.",
                tuple(torch.nonzero(bad).flatten().tolist()),
            )
        return torch.nn.functional.cross_entropy(logits, labels.long())

    def _predictions(self, answers: Answers, call: Call) -> list[dict[str, Any]]:
        temperatures = np.asarray(call.policy.temperatures, dtype=np.float32)[answers.exit_index]
        scores = criteria.probabilities(answers.logits, temperatures[:, None])
        labels = self.config.id2label
        return [
            {"label": labels[int(best)], "score": float(row[best]), "exit_layer": int(layer), "stopped_by": str(why)}
            if np.isfinite(row).all()
            else _unanswered("the model's logits are not finite")
            for row, best, layer, why in zip(
                scores, scores.argmax(axis=1), self.exit_layers(answers), call.stopped_by(answers), strict=True
            )
        ]

    def _reader(self) -> TextReader:
        if self.tokenizer is None:
            raise ArtifactError(
                f"{self.artifact.directory} has no tokenizer: write the artifact with one (save_artifact(model, DIR, "
                "tokenizer)), set model.tokenizer, or call the model with token ids."
            )
        return TextReader(self.tokenizer, self.backend.max_tokens, self.backend.uncounted_token)


def _unanswered(reason: str) -> dict[str, Any]:
    return {"label": None, "score": None, "exit_layer": None, "stopped_by": None, "error": reason}


def _array(values: torch.Tensor | np.ndarray | None) -> np.ndarray | None:
    if values is None:
        return None
    return values.numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
