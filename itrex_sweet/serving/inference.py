"""Answers the texts of one request: tokenizes, submits, waits, and reads the scores off the answers."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from itrex_sweet.classifier.predictions import ALL, calibrated_logits, predictions_of
from itrex_sweet.errors import NonFiniteLogitsError, RequestError
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.request import Request
from itrex_sweet.serving.completion import Completions, Receive
from itrex_sweet.serving.failures import EMPTY, TOO_MANY_TEXTS
from itrex_sweet.serving.models import Model
from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.options import Options
from itrex_sweet.serving.settings import Settings
from itrex_sweet.serving.spare_time import SpareTime

Texts = list[str | tuple[str, str]]

# Characters that are tokenized in the event loop, by the native reader: it takes less time than a thread's wake-up.
_SHORT = 2000
# Expected seconds up to which the event loop computes a lone request itself, which saves the wake-ups of two threads.
_HERE_SECONDS = 0.002


@dataclass
class Outcome:
    """Answers of one request.

    Args:
        model: that answered.
        request: its stopping options, as it was answered.
        answers: one per text, in order.
        tokens, characters: of all texts.
        seconds: of tokenization, queue and inference.
    """

    model: Model
    request: Request
    answers: Answers
    tokens: int
    characters: int
    seconds: tuple[float, float, float]

    def predictions(self, with_all_labels: bool = False) -> list[dict[str, Any]]:
        """Returns one dictionary per text as of `Classifier.predict`, and its `confidence`.

        Args:
            with_all_labels: as of `predict(..., top_k="all")`.

        Raises:
            NonFiniteLogitsError: the logits of a text are NaN or infinite.
        """
        backend, top_k = self.model.classifier.backend, ALL if with_all_labels else None
        found, broken = predictions_of(backend, self.request, self.answers, self.model.labels, top_k)
        if broken:
            raise NonFiniteLogitsError(f"the model's logits are not finite for texts {broken}.", tuple(broken))
        for prediction, confidence in zip(found, self.answers.confidence.tolist(), strict=True):
            prediction["confidence"] = confidence
        return found

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Result of `predictions`."""
        return self.predictions()

    @cached_property
    def logits(self) -> np.ndarray:
        """Logits of each text divided by the temperature of its exit, (texts, labels) float32."""
        return calibrated_logits(self.answers, self.request.policy)


class Inference:
    """Answers requests.

    Args:
        settings: of the server.
        completions: of the event loop.

    Attributes:
        requests: counts the requests of the server that are not answered.
    """

    def __init__(self, settings: Settings, completions: Completions):
        self._settings, self._completions = settings, completions
        self._spare_time = SpareTime(completions.loop)
        self.requests: Callable[[], int] = lambda: 0
        self._tokenizers = ThreadPoolExecutor(2, thread_name_prefix="itrex-sweet-tokenizer")

    async def answer(
        self,
        model: Model,
        texts: Texts,
        options: Options,
        arrived: float,
        receive: Receive | None = None,
        seen: Observation | None = None,
    ) -> Outcome:
        """Answers texts.

        Args:
            arrived: time of the request, of `time.perf_counter`.
            receive: see `Completions.wait`.
            seen: notes what happens to the request.

        Raises:
            SweetError: the request is refused, or a text cannot be answered.
        """
        if seen is not None:
            seen.model, seen.batch, seen.texts = model.observed, len(texts) > 1, texts
        self._check_count(texts)
        if self.requests() == 1:
            model.classifier.backend.expect_call()  # threads wake while the texts are tokenized
        request = model.request(options, arrived, self._settings.default_deadline_ms)
        with model.in_use():
            began = time.perf_counter()
            characters = sum(len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in texts)
            truncate = self._settings.auto_truncate if options.truncate is None else options.truncate
            if characters <= _SHORT and model.reads_fast:
                batch = model.read(texts, options, truncate)
            else:
                loop = asyncio.get_running_loop()
                batch = await loop.run_in_executor(self._tokenizers, model.read, texts, options, truncate)
            tokenized = time.perf_counter()
            if seen is not None:
                seen.tokenized(batch.lengths, characters, tokenized - began)
                if seen.segments is not None:
                    request = dataclasses.replace(request, trace=seen.segments)
            submission = model.scheduler.submit(batch, request, _HERE_SECONDS if self.requests() == 1 else 0.0)
            if submission.done():
                answers = submission.result()
            else:
                if model.single_threaded is not None:
                    self._spare_time.offer(model.scheduler, model.single_threaded)
                answers = await self._completions.wait(submission, receive)
        queued, ended = submission.started_at - submission.submitted_at, submission.finished_at
        seconds = (tokenized - began, queued, ended - submission.started_at)
        if seen is not None:
            seen.timed(*seconds[1:])
            seen.answers = answers
        return Outcome(model, answers.request, answers, len(batch.input_ids), characters, seconds)

    def _check_count(self, texts: Texts) -> None:
        if not texts:
            raise RequestError(EMPTY, "the request has no text.")
        if len(texts) > (limit := self._settings.max_client_batch_size):
            raise RequestError(TOO_MANY_TEXTS, f"batch size {len(texts)} > maximum allowed batch size {limit}")

    def close(self) -> None:
        """Ends the threads."""
        self._tokenizers.shutdown(wait=False, cancel_futures=True)
