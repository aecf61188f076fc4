"""Metrics, logs and traces of a server: what the application tells them, and what they show."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.serving.histogram import Histogram
from itrex_sweet.serving.history import History
from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.observed_model import ObservedModel

if TYPE_CHECKING:
    from itrex_sweet.serving.logs import RequestLog
    from itrex_sweet.serving.tracing import Tracing

_PENDING = 128  # requests that are counted together: arrays of them cost less than one update per metric
# Buckets of text-embeddings-inference: seconds from 15 µs to 1250 s, tokens of a text.
DURATIONS = tuple(1e-5 * 1.5**power for power in range(1, 47))
LENGTHS = tuple(2.0**power for power in range(20))
STEPS = ("total", "tokenization", "queue", "inference")


class Observer:
    """Counts requests, and passes them on to the log and to tracing. Used by one thread, that of the event loop.

    Args:
        log: writes a line per request; `None` for no log.
        tracing: records spans; `None` for no traces.

    Attributes:
        models: by name.
        started: time of `time.perf_counter`, in seconds.
        in_flight: requests without an answer.
        succeeded, refused: requests that were answered, or not, by whether they are a batch.
        failed: requests answered with an error, by type.
        rows: that were answered.
        history: failures in each of the last seconds, also of requests without a known model.
        durations: of requests that were answered, by step, in seconds, and the same per row.
        lengths: tokens of each row.
    """

    def __init__(self, log: RequestLog | None = None, tracing: Tracing | None = None):
        self.models: dict[str, ObservedModel] = {}
        self.started = perf_counter()
        self.in_flight = 0
        self.succeeded: Counter[bool] = Counter()
        self.refused: Counter[bool] = Counter()
        self.failed: Counter[str] = Counter()
        self.rows = 0
        self.history = History(0)
        self.durations = {step: Histogram(DURATIONS) for step in STEPS}
        self.row_durations = {step: Histogram(DURATIONS) for step in STEPS}
        self.lengths = Histogram(LENGTHS)
        self._log = log
        self._tracing = tracing
        self._pending: list[Observation] = []
        self._run = secrets.token_hex(4)  # of the identifiers of requests that bring none
        self._numbers = 0

    def add_model(self, name: str, *arguments: Any, **options: Any) -> ObservedModel:
        """Adds a model, or replaces that of the same name, whose counts continue; with the arguments of
        `ObservedModel`."""
        model = ObservedModel(name, *arguments, **options)
        if name in self.models:
            self.count()
            model.continue_from(self.models[name])
        self.models[name] = model
        return model

    def remove_model(self, name: str) -> None:
        """Removes a model; requests that it still answers are not counted by exit."""
        self.count()
        del self.models[name]

    def begin(
        self, route: str, headers: Mapping[bytes, bytes] | None = None, arrived: float | None = None
    ) -> Observation:
        """Returns the observation of a request that has arrived.

        Args:
            route: its path, such as `"/predict"`.
            headers: of the request: `x-request-id` names it, and `traceparent` its place in a trace.
            arrived: time of `time.perf_counter`, by default now.
        """
        self.in_flight += 1
        self._numbers += 1
        headers = headers or {}
        given = headers.get(b"x-request-id")
        request_id = f"{self._run}-{self._numbers}" if given is None else _printable(given)
        span = None if self._tracing is None else self._tracing.begin(route, request_id, headers)
        return Observation(self, route, request_id, span, arrived)

    def close(self) -> None:
        """Sends the spans that wait, after the last request."""
        if self._tracing is not None:
            self._tracing.close()

    def ended(self, seen: Observation) -> None:
        """Counts a request that has ended, now or with later ones."""
        self.in_flight -= 1
        if self._log is not None:
            self._log.write(seen)
        if seen.span is not None:
            self._tracing.end(seen)
        seen.texts = None
        self._pending.append(seen)
        if len(self._pending) >= _PENDING:
            self.count()

    def count(self) -> None:
        """Counts the requests that have ended and the segments that have run; before counts are read."""
        for model in self.models.values():
            model.count_segments()
        pending, self._pending = self._pending, []
        answered = [seen for seen in pending if not seen.error]
        self._count_failures([seen for seen in pending if seen.error])
        if not answered:
            return
        self.succeeded.update(seen.batch for seen in answered)
        sizes = np.array([seen.rows for seen in answered])
        self.rows += int(sizes.sum())
        for step, values in zip(STEPS, np.array([[*seen.seconds.values()] for seen in answered]).T, strict=True):
            self.durations[step].add(values)
            self.row_durations[step].add(np.repeat(values, sizes))
        lengths = [each for seen in answered for each in seen.lengths]
        if lengths:
            self.lengths.add(np.concatenate(lengths))
        by_model: dict[ObservedModel, list[Observation]] = {}
        for seen in answered:
            if seen.model is not None and seen.answers is not None:
                by_model.setdefault(seen.model, []).append(seen)
        for model, requests in by_model.items():
            model.add(requests, self.started)

    def _count_failures(self, failed: list[Observation]) -> None:
        self.refused.update(seen.batch for seen in failed)
        self.failed.update(seen.error for seen in failed)
        self.history.add_failures(np.array([seen.finished for seen in failed]) - self.started)


def _printable(given: bytes) -> str:
    """Returns an identifier that a client chose, as it can stand in a header and in a log."""
    return "".join(each if each.isprintable() else "?" for each in given[:128].decode("ascii", errors="replace"))
