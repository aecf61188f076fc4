"""Classifies texts by an executor: the half of `Classifier` that runs."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from itrex_sweet.arguments import choice, whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.classifier.arrays import PredictionArrays, arrays_of
from itrex_sweet.classifier.notices import warn_of_untrained_lengths
from itrex_sweet.classifier.predictions import checked_top_k, exit_layers, predictions_of, unanswered
from itrex_sweet.defaults import OVERLONG, TRUNCATE
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, NonFiniteLogitsError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.limits import reasons
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request, RequestCache, Threshold, checked_policy
from itrex_sweet.runtime.shutdown import finish_before_exit
from itrex_sweet.tokenization import Reading, TextReader
from itrex_sweet.tokenization.inputs import listed


class Predictor:
    """Classifies texts with the executor of a backend and a policy.

    Subclasses set `artifact`, `backend`, `executor` and `tokenizer`.
    """

    artifact: Artifact
    backend: Backend
    executor: Executor
    _tokenizer: Any = None
    _reader: TextReader | None = None
    _reader_within_limits: TextReader | None = None  # the own reader, if `_is_within_limits`
    _warned_of_lengths = False

    @property
    def tokenizer(self) -> Any:
        """Tokenizes the texts of `predict`; `None` if the artifact has no tokenizer."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        if tokenizer is not None and not callable(tokenizer):
            raise ConfigError(f"tokenizer is a {type(tokenizer).__name__}; transformers' AutoTokenizer reads one.")
        self._tokenizer = tokenizer
        self._reader = None

    @property
    def reader_info(self) -> dict[str, str | None]:
        """Returns the name of the tokenizer that encodes texts, `reader`, and the `reason` if it is not the native
        one."""
        reader = self.reader_of(self.tokenizer)
        return {"reader": reader.reader_name, "reason": reader.reader_reason}

    @property
    def policy(self) -> Policy:
        """Default policy of calls, which decides at which exit a row leaves."""
        return self.executor.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.executor.policy = checked_policy(self.artifact, policy)

    @finish_before_exit
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
        overlong: str = TRUNCATE,
        errors: str = "raise",
        top_k: int | str | None = None,
        as_arrays: bool = False,
    ) -> list[dict[str, Any]] | PredictionArrays:
        """Classifies texts. Each text leaves at the first exit whose confidence exceeds its threshold.

        Args:
            texts: a list, any other ordered iterable, or a column of pandas, datasets, pyarrow, polars or NumPy; may be
                empty. Each element is a string, or for sentence-pair tasks a tuple or list of two strings or
                `{"text": ..., "text_pair": ...}`; (rows, 2) arrays are pairs.
            threshold: for this call; one for all exits, or one for each but the last, in [0, 1].
            policy: for this call, replaces the stored policy.
            quality: for this call, in [0, 1]: selects a policy of the calibrated curve by its cost, from the fastest,
                0, to the full model, 1. The calibration guarantee holds for the stored policy only.
            max_exit: for this call: the deepest exit used, a number of layers.
            deadline_ms: for this call, from its start: after so many milliseconds, rows are answered by the deepest
                exit that they have reached. A running segment is finished, and the first exit is computed for every
                row.
            batch_size: for this call, rows computed together.
            max_length: maximum number of tokens per row; by default the limit of model and tokenizer.
            overlong: `"truncate"` cuts longer texts with a warning, `"refuse"` treats them as errors.
            errors: `"raise"`, or `"mark"` to classify the valid texts and return an `error` for the others.
            top_k: number of most probable labels to return in `labels`, or `"all"`.
            as_arrays: whether to return `PredictionArrays`: NumPy arrays of label ids, scores, exits and reasons, in
                place of dictionaries; not with `top_k`.

        Returns:
            One dictionary per text, in order: `label`, `score` (its probability), `exit_layer`, and `stopped_by`:
            `"confidence"`, `"deadline"`, `"max_exit"` or `"full_depth"`; for a text without an answer, `error`. With
            `top_k` also `labels`: `{"label", "score"}` by descending score.

            A multi-label model gives `labels`, those that are on, as `{"label", "score"}` by descending score, in place
            of `label` and `score`, and with `top_k` also `scores`: the same of the most probable labels, on or not. A
            regression model gives `score`, the value, and no label.

            With `as_arrays`, `labels`, `scores`, `exit_layers` and `stopped_by` of all texts as arrays.

        Raises:
            InputError: not a list of texts, or a text is empty, not a string, too long with `overlong="refuse"`, or has
                tokens outside the model's limits. Raised before anything is computed.
            NonFiniteLogitsError: logits are NaN or infinite; the other rows' answers are in its `answers`.
            ConfigError: an option is wrong or does not fit the model.
        """
        request = self._request(threshold, policy, quality, max_exit, deadline_ms)
        top_k = checked_top_k(top_k)
        if as_arrays and top_k is not None:
            raise ConfigError("as_arrays and top_k exclude one another; give one of them.")
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size, minimum=1)
        choice("overlong", overlong, OVERLONG)
        choice("errors", errors, _ERRORS)
        texts = texts.copy() if type(texts) is list else listed(texts)
        self.backend.expect_call()  # threads wake while the texts are tokenized
        reading = self._read(texts, max_length, overlong)
        if reading.errors and errors == "raise":
            raise _unreadable(reading.errors, len(texts))
        answers = self._answers(reading.batch, request, batch_size)
        if as_arrays:
            arrays = arrays_of(self.backend, request, answers, reading.rows, reading.errors, len(texts))
            if arrays.errors and errors == "raise":
                _raise_not_finite(list(arrays.errors), arrays)
            return arrays
        results, broken = predictions_of(self.backend, request, answers, self._label_names(), top_k)
        if reading.errors:
            answered, results = results, [{}] * len(texts)
            for row, reason in reading.errors.items():
                results[row] = unanswered(reason, self.artifact.task.name)
            for row, prediction in zip(reading.rows, answered, strict=True):
                results[row] = prediction
        elif broken and errors == "raise":
            _raise_not_finite(broken, results)
        return results

    def answers(
        self,
        texts: Iterable[Any],
        *,
        threshold: Threshold | None = None,
        policy: Policy | None = None,
        quality: float | None = None,
        max_exit: int | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        overlong: str = TRUNCATE,
        top_k: int | str | None = None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Classifies a stream of texts, and yields each answer as soon as its row leaves.

        Rows that wait at an exit are batched with rows of later texts. Memory use does not grow with the number of
        texts. Closing the iterator cancels the texts that have no answer yet.

        Args:
            texts: an ordered iterable of elements as of `predict`, also an endless generator; `batch_size` elements are
                read at a time.
            threshold, policy, quality, max_exit, batch_size, max_length, overlong, top_k: as of `predict`.

        Returns:
            An iterator over pairs of the index of a text, from 0, and its answer as in `predict`. Each index occurs
            once. A text that cannot be tokenized or answered has an `error`.

        Raises:
            ConfigError: as of `predict`.
            InputError: `texts` is a lone text, a table, a mapping or a set.
        """
        request = self._request(threshold, policy, quality, max_exit, None)
        top_k = checked_top_k(top_k)
        size = self.executor.batch_size if batch_size is None else whole_number("batch_size", batch_size, minimum=1)
        choice("overlong", overlong, OVERLONG)
        texts = iter(texts if isinstance(texts, Iterator) else listed(texts))
        stream = self._stream(texts, request, size, max_length, overlong, top_k)
        return iter(lambda: self._next(stream), None)

    @finish_before_exit
    def _next(self, stream: Iterator[tuple[int, dict[str, Any]]]) -> tuple[int, dict[str, Any]] | None:
        return next(stream, None)

    def _stream(
        self,
        texts: Iterator[Any],
        request: Request,
        size: int,
        max_length: int | None,
        overlong: str,
        top_k: int | str | None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        places: dict[int, int] = {}  # number of a row in the executor's stream -> place of its text
        unread: deque[tuple[int, dict[str, Any]]] = deque()

        task = self.artifact.task.name

        def batches() -> Iterator[TokenBatch]:
            first = rows = 0
            while chunk := list(islice(texts, size)):
                reading = self._read(chunk, max_length, overlong)
                unread.extend((first + place, unanswered(reason, task)) for place, reason in reading.errors.items())
                places.update((rows + row, first + place) for row, place in enumerate(reading.rows))
                first, rows = first + len(chunk), rows + len(reading.rows)
                yield reading.batch

        for answers in self.executor.stream(batches(), request.policy, size):
            while unread:
                yield unread.popleft()
            predictions, _ = predictions_of(self.backend, request, answers, self._label_names(), top_k)
            for row, prediction in zip(answers.rows.tolist(), predictions, strict=True):
                yield places.pop(row), prediction
        yield from unread

    @finish_before_exit
    def read(self, texts: Iterable[Any], max_length: int | None = None, overlong: str = TRUNCATE) -> TokenBatch:
        """Tokenizes texts and packs them for the executor.

        Args:
            texts, max_length, overlong: as of `predict`.

        Raises:
            InputError, ConfigError: as of `predict`, for any text.
        """
        texts = texts.copy() if type(texts) is list else listed(texts)
        choice("overlong", overlong, OVERLONG)
        reading = self._read(texts, max_length, overlong)
        if reading.errors:
            raise _unreadable(reading.errors, len(texts))
        return reading.batch

    def exit_layers(self, answers: Answers) -> np.ndarray:
        """Returns the exit of each answer, (rows,) int64, as a number of layers."""
        return exit_layers(self.artifact, answers)

    def reader_of(self, tokenizer: Any) -> TextReader:
        """Returns a reader of texts for a tokenizer and the model's limits; that of the own tokenizer is cached."""
        if tokenizer is None:
            raise ArtifactError(
                f"{self.artifact.directory} has no tokenizer: write the artifact with one (save_artifact(model, DIR, "
                "tokenizer)), set model.tokenizer, or call the model with token ids."
            )
        reader = self._reader
        if reader is None or reader.tokenizer is not tokenizer:
            reader = TextReader(tokenizer, self.backend.max_tokens, self.backend.padding_idx)
            if tokenizer is self.tokenizer:
                self._reader = reader
                if self._is_within_limits(reader):
                    self._reader_within_limits = reader
        return reader

    # ------------------------------------------------------------------ parts of it

    def _read(self, texts: list[Any], max_length: int | None, overlong: str, tokenizer: Any = None) -> Reading:
        reader = self.reader_of(tokenizer or self.tokenizer)
        batch = reader.pack(texts) if max_length is None else None
        if batch is not None:
            reading = Reading(batch, range(len(texts)))
        else:
            reading = reader.read(texts, max_length, overlong)
        if batch is None or reader is not self._reader_within_limits:
            reading = reading.without(reasons(reading.batch, self.backend))
        self._warn_of_untrained_lengths(reading.batch)
        return reading

    def _is_within_limits(self, reader: TextReader) -> bool:
        """Returns whether the model can compute every row that `reader.pack` returns."""
        largest_id, largest_type, types = reader.max_id, reader.max_type, self.backend.token_types
        if largest_id is None or largest_id >= self.backend.vocabulary:
            return False
        return types is None or (largest_type is not None and largest_type < types)

    def _request(
        self,
        threshold: Threshold | None,
        policy: Policy | None,
        quality: float | None,
        max_exit: int | None,
        deadline_ms: float | None,
    ) -> Request:
        return self._requests.of(self.artifact, self.policy, threshold, policy, quality, max_exit, deadline_ms)

    @functools.cached_property
    def _requests(self) -> RequestCache:
        return RequestCache()

    def _answers(self, batch: TokenBatch, request: Request, batch_size: int | None = None) -> Answers:
        return self.executor.run(batch, request.policy, batch_size, request.deadline)

    def _warn_of_untrained_lengths(self, batch: TokenBatch) -> None:
        """Warns once where rows are longer than those that the model was trained on."""
        if not self._warned_of_lengths:
            self._warned_of_lengths = warn_of_untrained_lengths(self.artifact, batch)

    def _label_names(self) -> Sequence[str]:
        return self.artifact.label_names


_ERRORS = ("raise", "mark")


def _raise_not_finite(rows: list[int], answers: Any) -> None:
    """Raises NonFiniteLogitsError for rows whose logits are not finite."""
    raise NonFiniteLogitsError(
        f"the model's logits are not finite for rows {rows}; its weights or training diverged. "
        "The other rows' answers are in this error's `answers`.",
        tuple(rows),
        answers,
    )


def _unreadable(errors: dict[int, str], total: int) -> InputError:
    shown = "; ".join(f"row {row}: {reason}" for row, reason in list(errors.items())[:5])
    return InputError(f"{len(errors)} of {total} texts cannot be read: {shown}", tuple(errors))
