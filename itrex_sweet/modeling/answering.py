"""Answers texts and token ids by an executor: the half of the model class that runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.config import Policy
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, NonFiniteLogitsError
from itrex_sweet.modeling.outputs import SweetClassifierOutput
from itrex_sweet.modeling.predictions import calibrated_logits, checked_top_k, exit_layers, predictions_of, unanswered
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.call import Call, Threshold, checked_policy
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.limits import faults, reasons
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.shutdown import ends_before_exit
from itrex_sweet.tokenization import Reading, TextReader
from itrex_sweet.tokenization.inputs import labels_of, listed, numbers_of

logger = logging.getLogger(__name__)


class AnsweringModel:
    """Answers rows by the executor of a backend, under a policy that each call may replace.

    Whoever derives from it sets `artifact`, `config` (of transformers), `backend`, `executor` and `tokenizer`.
    """

    artifact: Artifact
    config: Any
    backend: Backend
    executor: Executor
    _tokenizer: Any = None
    _reader: TextReader | None = None
    _warned_of_lengths = False

    @property
    def tokenizer(self) -> Any:
        """Makes token ids of the texts that `predict` gets; `None` where the artifact has none."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        if tokenizer is not None and not callable(tokenizer):
            raise ConfigError(f"tokenizer is a {type(tokenizer).__name__}; transformers' AutoTokenizer reads one.")
        self._tokenizer = tokenizer
        self._reader = None

    @property
    def policy(self) -> Policy:
        """When a row may leave, unless a call says otherwise; `save_pretrained` writes it."""
        return self.executor.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.executor.policy = checked_policy(self.artifact, policy)

    @ends_before_exit
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
        """Answers a padded batch; padding is dropped first and never computed.

        Args:
            input_ids: (rows, columns) integers, as a tensor, an array or nested lists; no rows are fine.
            attention_mask: the same shape, 1 where a column counts and 0 where not.
            token_type_ids: the same shape, integers.
            labels: (rows,) integers, -100 for none; with them, `loss` is the mean cross-entropy of the logits returned.
            return_dict: a plain tuple if false.
            threshold, policy, quality, max_exit, deadline_ms: as in `predict`, for this call.
            raw_logits: do not divide logits by the temperature of their exit.

        Returns:
            logits (rows, labels) of the exit each row left at, `exit_layer`, `confidence` and `stopped_by`. The softmax
            of the logits is the probability that `predict` calls `score`, unless they are raw. A row whose logits are
            not finite keeps them so, with NaN confidence.

        Raises:
            InputError: what is no token id, mask, type or label, shapes that differ, a row without tokens, or one that
                the model cannot take.
            ConfigError: what the call says about stopping does not fit the model.
        """
        call = Call.of(self.artifact, self.policy, threshold, policy, quality, max_exit, deadline_ms)
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
        batch = TokenBatch.from_padded(ids, mask, types, self.backend.uncounted_token)
        if labels is not None:
            labels = torch.from_numpy(labels_of(labels, len(batch), self.config.num_labels))
        for fault in faults(batch, self.backend):
            raise InputError(fault.message, fault.rows)
        self._warn_of_untrained_lengths(batch)
        answers = self._answers(batch, call)
        logits = torch.from_numpy(answers.logits if raw_logits else calibrated_logits(answers, call.policy))
        output = SweetClassifierOutput(
            loss=None if labels is None else torch.nn.functional.cross_entropy(logits, labels),
            logits=logits,
            exit_layer=torch.from_numpy(self.exit_layers(answers)),
            confidence=torch.from_numpy(answers.confidence),
            out_of_time=None if answers.out_of_time is None else torch.from_numpy(answers.out_of_time),
            stopped_by=call.stopped_by(answers).tolist(),
        )
        return output if return_dict is None or return_dict else output.to_tuple()

    @ends_before_exit
    def predict(
        self,
        texts: Iterable[Any],
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
        top_k: int | str | None = None,
    ) -> list[dict[str, Any]]:
        """Classifies texts, each leaving at the first exit that is confident enough.

        Args:
            texts: a list, any other ordered iterable, or a column of pandas, datasets, pyarrow, polars or NumPy. Each
                of them is a string, or for sentence-pair tasks two: a tuple, a list or
                `{"text": ..., "text_pair": ...}`; (rows, 2) arrays are pairs. None is fine.
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
            top_k: also give the most probable labels, so many of them, or `"all"`.

        Returns:
            per text, in order: `label`, `score` (its probability), `exit_layer`, and `stopped_by`: `"confidence"`,
            `"deadline"`, `"max_exit"` or `"full_depth"`; `error` in place of an answer. With `top_k` also `labels`:
            `{"label", "score"}` by falling score, which sum to 1 over all of them.

        Raises:
            InputError: what is given is no list of texts, or a text is empty, not a text, too long and refused, or
                such that the model cannot take its tokens (before anything is computed).
            NonFiniteLogitsError: the model answered NaN; the other rows' answers are in its `answers`.
            ConfigError: a setting of the call is wrong or does not fit the model.
        """
        call = Call.of(self.artifact, self.policy, threshold, policy, quality, max_exit, deadline_ms)
        top_k = checked_top_k(top_k)
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size, least=1)
        for name, value, known in (
            ("overlong", overlong, ("truncate", "refuse")),
            ("errors", errors, ("raise", "mark")),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: choose one of {', '.join(known)}.")
        texts = listed(texts)
        reading = self._read(texts, max_length, overlong)
        if reading.errors and errors == "raise":
            raise _unreadable(reading.errors, len(texts))
        answers = self._answers(reading.batch, call, batch_size)
        results: list[dict[str, Any]] = [{}] * len(texts)
        for row, reason in reading.errors.items():
            results[row] = unanswered(reason)
        broken = []
        predictions = predictions_of(self.artifact, call, answers, self._label_names(), top_k)
        for row, prediction in zip(reading.rows, predictions, strict=True):
            results[row] = prediction
            if "error" in prediction:
                broken.append(row)
        if broken and errors == "raise":
            raise NonFiniteLogitsError(
                f"the model's logits are not finite for rows {broken}; its weights or training diverged. "
                "The other rows' answers are in this error's `answers`.",
                tuple(broken),
                results,
            )
        return results

    @ends_before_exit
    def read(self, texts: Iterable[Any], max_length: int | None = None) -> TokenBatch:
        """Texts as packed rows, all of them, for the executor.

        Args:
            texts, max_length: as in `predict`.

        Raises:
            InputError, ConfigError: as in `predict`.
        """
        texts = listed(texts)
        reading = self._read(texts, max_length, "truncate")
        if reading.errors:
            raise _unreadable(reading.errors, len(texts))
        return reading.batch

    def exit_layers(self, answers: Answers) -> np.ndarray:
        """(rows,) int64: the exit of each answer, a count of layers from 1."""
        return exit_layers(self.artifact, answers)

    def reader_of(self, tokenizer: Any) -> TextReader:
        """Reads texts by a tokenizer, within the model's limits; the one of the model's own is kept."""
        if tokenizer is None:
            raise ArtifactError(
                f"{self.artifact.directory} has no tokenizer: write the artifact with one (save_artifact(model, DIR, "
                "tokenizer)), set model.tokenizer, or call the model with token ids."
            )
        reader = self._reader
        if reader is None or reader.tokenizer is not tokenizer:
            reader = TextReader(tokenizer, self.backend.max_tokens, self.backend.uncounted_token)
            if tokenizer is self.tokenizer:
                self._reader = reader
        return reader

    # ------------------------------------------------------------------ parts of it

    def _read(self, texts: list[Any], max_length: int | None, overlong: str) -> Reading:
        reading = self.reader_of(self.tokenizer).read(texts, max_length, overlong)
        reading = reading.without(reasons(reading.batch, self.backend))
        self._warn_of_untrained_lengths(reading.batch)
        return reading

    def _answers(self, batch: TokenBatch, call: Call, batch_size: int | None = None) -> Answers:
        return self.executor.run(batch, call.policy, batch_size, call.deadline)

    def _warn_of_untrained_lengths(self, batch: TokenBatch) -> None:
        """Says once where rows are longer than those that the model was trained on."""
        trained = (self.artifact.config.get("sweet") or {}).get("longest_row")
        if self._warned_of_lengths or not isinstance(trained, int) or not len(batch):
            return
        if (longest := int(batch.lengths.max())) > trained:
            self._warned_of_lengths = True
            logger.warning(
                "%s was trained on rows of up to %d tokens and answers one of %d: what it learned may not hold there. "
                "max_length=%d cuts longer texts. Further rows are not warned of.",
                self.artifact.directory,
                trained,
                longest,
                trained,
            )

    def _label_names(self) -> list[str]:
        names = self.config.id2label
        return [str(names.get(label, f"LABEL_{label}")) for label in range(self.backend.num_labels)]


def _unreadable(errors: dict[int, str], total: int) -> InputError:
    shown = "; ".join(f"row {row}: {reason}" for row, reason in list(errors.items())[:5])
    return InputError(f"{len(errors)} of {total} texts cannot be read: {shown}", tuple(errors))
