"""One request for classification, as metrics, logs and traces see it."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from itrex_sweet.runtime.answers import Answers
    from itrex_sweet.serving.observed_model import ObservedModel
    from itrex_sweet.serving.observer import Observer

OK = 200


class Observation:
    """One request for classification, from its arrival to its answer. Used by one thread.

    Args:
        observer: receives it when it has ended.
        route: name of the route, such as `"predict"`.
        request_id: of the client, or made by the server.
        span: of the request, if it is traced.
        started: time of its arrival, by default now.

    Attributes:
        batch: whether the client sent a list of texts.
        model: that the request asks for; `None` if it is not known.
        texts: of the request, for the log; only read if texts are logged.
        segments: list that the scheduler fills with the segments that it runs, `None` unless the request is traced.
        answers: `None` until the model has answered.
        status: of the response, in HTTP; 0 until then.
        error: kind of the failure, such as `"overloaded"`; empty if there is none.
        started, tokenized_at, finished: times of `time.perf_counter`, in seconds.
        tokenization, queue, inference: seconds.
        lengths: tokens of each row, (rows,).
        characters: of all texts.
    """

    __slots__ = (
        *("_observer", "answers", "batch", "characters", "error", "finished", "inference", "lengths", "model"),
        *("queue", "request_id", "route", "segments", "span", "started", "status", "texts", "tokenization"),
        "tokenized_at",
    )

    def __init__(self, observer: Observer, route: str, request_id: str, span: Any = None, started: float | None = None):
        self._observer = observer
        self.route = route
        self.request_id = request_id
        self.span = span
        self.segments: list[tuple[int, float, float, int, int]] | None = None if span is None else []
        self.batch = False
        self.model: ObservedModel | None = None
        self.texts: Any = None
        self.answers: Answers | None = None
        self.status = 0
        self.error = ""
        self.started = perf_counter() if started is None else started
        self.finished = self.tokenized_at = self.tokenization = self.queue = self.inference = 0.0
        self.lengths: list[np.ndarray] = []
        self.characters = 0

    @property
    def is_degraded(self) -> bool:
        """True if load lowered the quality of the answers."""
        return self.answers is not None and self.answers.request.quality is not None

    def tokenized(self, lengths: np.ndarray, characters: int, seconds: float) -> None:
        """Notes that texts were tokenized.

        Args:
            lengths: tokens of each row, (rows,).
            characters: of all texts.
            seconds: taken.
        """
        self.lengths.append(lengths)
        self.characters += characters
        self.tokenization += seconds
        self.tokenized_at = perf_counter()

    def timed(self, queue: float, inference: float) -> None:
        """Notes the seconds that rows waited for their first segment, and from there to their answer."""
        self.queue += queue
        self.inference += inference

    def succeeded(self, status: int = OK) -> None:
        """Ends the request with its answer."""
        self._end(status, "")

    def failed(self, status: int, error: str) -> None:
        """Ends the request with an error.

        Args:
            status: of the response, in HTTP; 499 if the client left.
            error: kind of the failure, such as `"overloaded"`.
        """
        self._end(status, error)

    @property
    def rows(self) -> int:
        """Number of rows that were tokenized."""
        return sum(map(len, self.lengths))

    @property
    def tokens(self) -> int:
        """Number of tokens of all rows."""
        return int(sum(each.sum() for each in self.lengths))

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds from arrival to answer, of tokenization, in the queue and of inference, by name."""
        return {
            "total": self.finished - self.started,
            "tokenization": self.tokenization,
            "queue": self.queue,
            "inference": self.inference,
        }

    def _end(self, status: int, error: str) -> None:
        if self.status == 0:  # the first end counts
            self.finished = perf_counter()
            self.status, self.error = status, error
            self._observer.ended(self)
