"""Classifies texts by an executor: the half of `Classifier` that runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.classifier.notices import warn_of_untrained_lengths
from itrex_sweet.classifier.predictions import checked_top_k, exit_layers, predictions_of, unanswered
from itrex_sweet.config import Policy
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, NonFiniteLogitsError
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.call import Call, Threshold, checked_policy
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.limits import reasons
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.shutdown import ends_before_exit
from itrex_sweet.tokenization import Reading, TextReader
from itrex_sweet.tokenization.inputs import listed


class Predictor:
    """Answers texts by the executor of a backend, under a policy that each call may replace.

    Whoever derives from it sets `artifact`, `backend`, `executor` and `tokenizer`.
    """

    artifact: Artifact
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
        """When a row may leave, unless a call says otherwise."""
        return self.executor.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.executor.policy = checked_policy(self.artifact, policy)

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
        _check_choice("overlong", overlong, _OVERLONG)
        _check_choice("errors", errors, ("raise", "mark"))
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
        overlong: str = "truncate",
        top_k: int | str | None = None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Classifies a stream of texts, and yields each answer as soon as its row leaves.

        Rows that wait at an exit are computed together with those of later texts, so the memory needed does not grow
        with the number of texts. Closing the iterator drops the texts that are not answered yet.

        Args:
            texts: any ordered iterable of what `predict` takes, also a generator without end; `batch_size` of them are
                read at a time.
            threshold, policy, quality, max_exit, batch_size, max_length, overlong, top_k: as of `predict`.

        Returns:
            an iterator over pairs: the place of a text, from 0, and its answer as `predict` gives it, every place once.
            A text that cannot be read or answered has an `error`.

        Raises:
            ConfigError: as of `predict`.
            InputError: `texts` is a lone text, a table, a mapping or a set.
        """
        call = Call.of(self.artifact, self.policy, threshold, policy, quality, max_exit)
        top_k = checked_top_k(top_k)
        size = self.executor.batch_size if batch_size is None else whole_number("batch_size", batch_size, least=1)
        _check_choice("overlong", overlong, _OVERLONG)
        texts = iter(texts if isinstance(texts, Iterator) else listed(texts))
        stream = self._stream(texts, call, size, max_length, overlong, top_k)
        return iter(lambda: self._next(stream), None)

    @ends_before_exit
    def _next(self, stream: Iterator[tuple[int, dict[str, Any]]]) -> tuple[int, dict[str, Any]] | None:
        return next(stream, None)

    def _stream(
        self,
        texts: Iterator[Any],
        call: Call,
        size: int,
        max_length: int | None,
        overlong: str,
        top_k: int | str | None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        places: dict[int, int] = {}  # number of a row in the executor's stream -> place of its text
        unread: deque[tuple[int, dict[str, Any]]] = deque()

        def batches() -> Iterator[TokenBatch]:
            first = rows = 0
            while chunk := list(islice(texts, size)):
                reading = self._read(chunk, max_length, overlong)
                unread.extend((first + place, unanswered(reason)) for place, reason in reading.errors.items())
                places.update((rows + row, first + place) for row, place in enumerate(reading.rows))
                first, rows = first + len(chunk), rows + len(reading.rows)
                yield reading.batch

        for answers in self.executor.stream(batches(), call.policy, size):
            while unread:
                yield unread.popleft()
            predictions = predictions_of(self.artifact, call, answers, self._label_names(), top_k)
            for row, prediction in zip(answers.rows.tolist(), predictions, strict=True):
                yield places.pop(row), prediction
        yield from unread

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
            reader = TextReader(tokenizer, self.backend.max_tokens, self.backend.padding_idx)
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
        """Warns once where rows are longer than those that the model was trained on."""
        if not self._warned_of_lengths:
            self._warned_of_lengths = warn_of_untrained_lengths(self.artifact, batch)

    def _label_names(self) -> Sequence[str]:
        return self.artifact.label_names


_OVERLONG = ("truncate", "refuse")


def _check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r}: choose one of {', '.join(known)}.")


def _unreadable(errors: dict[int, str], total: int) -> InputError:
    shown = "; ".join(f"row {row}: {reason}" for row, reason in list(errors.items())[:5])
    return InputError(f"{len(errors)} of {total} texts cannot be read: {shown}", tuple(errors))
