"""Counts of one served model: rows by exit and reason, segments, drift, and the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.classifier.predictions import labels_and_scores
from itrex_sweet.drift import Reference, least_scores, number_sets
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.request import DEADLINE, STOPPED_BY, Request
from itrex_sweet.serving.histogram import Histogram
from itrex_sweet.serving.history import History
from itrex_sweet.serving.live_drift import LiveDrift
from itrex_sweet.serving.observation import Observation
from itrex_sweet.tasks import MULTI_LABEL

_DEADLINE = STOPPED_BY.index(DEADLINE)
_MAX_SEGMENTS = 100_000  # that wait to be counted
BATCH_SIZES = tuple(2.0**power for power in range(13))
BATCH_TOKENS = tuple(2.0**power for power in range(21))
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class ObservedModel:
    """Counts of one served model.

    Args:
        name: under which clients know it.
        artifact: that is served.
        backend: runs it.
        policy: of requests without options of their own.
        snapshot: returns the state of its scheduler, see `Scheduler.snapshot`.
        facts: shown beside the name, such as backend and data type.

    Attributes:
        rows: answered, by exit and reason, (exits, reasons).
        degraded: rows that were answered with lowered quality.
        requests: by route, seconds from arrival to answer.
        batch_sizes, batch_tokens: rows and tokens of the batches that enter the model.
        segments, segment_rows, segment_seconds: (exits,): the segments run in front of each exit, their rows and time.
        drift: `None` if the artifact holds no calibration, or is served under another policy.
    """

    def __init__(
        self,
        name: str,
        artifact: Artifact,
        backend: Backend,
        policy: Policy,
        snapshot: Callable[[], Any] | None = None,
        facts: dict[str, str] | None = None,
    ):
        self.name = name
        self.exits: tuple[int, ...] = tuple(artifact.exits)
        self.facts = facts or {}
        self.snapshot = snapshot
        self.rows = np.zeros((len(self.exits), len(STOPPED_BY)), dtype=np.int64)
        self.degraded = np.zeros((), dtype=np.int64)  # an array, so that a model that replaces this one can share it
        self.requests: dict[str, Histogram] = {}
        self.batch_sizes, self.batch_tokens = Histogram(BATCH_SIZES), Histogram(BATCH_TOKENS)
        self.segments, self.segment_rows = (np.zeros(len(self.exits), dtype=np.int64) for _ in range(2))
        self.segment_seconds = np.zeros(len(self.exits))
        self.history = History(len(self.exits))
        traffic = artifact.calibration.get("traffic")
        # Under other thresholds rows leave elsewhere, with or without drift.
        self.drift = LiveDrift(Reference(traffic)) if traffic and policy == artifact.policy else None
        self._backend, self._policy = backend, policy
        self._is_multi_label = artifact.task.name == MULTI_LABEL
        self._ran: deque[tuple[int, int, int, float]] = deque(maxlen=_MAX_SEGMENTS)

    def continue_from(self, former: ObservedModel) -> None:
        """Takes over the counts of a model with the same exits that this one replaces; drift starts again."""
        if former.exits == self.exits:
            for name in ("rows", "degraded", "requests", "batch_sizes", "batch_tokens", "history"):
                setattr(self, name, getattr(former, name))
            for name in ("segments", "segment_rows", "segment_seconds"):
                setattr(self, name, getattr(former, name))

    def segment_ran(self, exit_index: int, rows: int, tokens: int, seconds: float) -> None:
        """Notes a segment that has run; for any thread."""
        self._ran.append((exit_index, rows, tokens, seconds))

    def add(self, requests: Sequence[Observation], origin: float) -> None:
        """Counts the answers of requests that have ended.

        Args:
            requests: each with answers.
            origin: time of `time.perf_counter` at which the server started, in seconds.
        """
        sizes = np.array([len(seen.answers) for seen in requests], dtype=np.int64)
        finished = np.array([seen.finished for seen in requests]) - origin
        latencies = np.array([seen.finished - seen.started for seen in requests])
        exits = np.concatenate([seen.answers.exit_index for seen in requests])
        self.history.add_latencies(finished, latencies)
        self.history.add_rows(np.repeat(finished, sizes), exits)
        routes = [seen.route for seen in requests]
        for route in dict.fromkeys(routes):
            chosen = latencies[[each == route for each in routes]]
            self.requests.setdefault(route, Histogram(SECONDS)).add(chosen)
        self.degraded += int(sizes[[seen.is_degraded for seen in requests]].sum())
        by_policy: dict[tuple[int, float | None], list[Answers]] = {}
        for seen in requests:
            request = seen.answers.request
            by_policy.setdefault((id(request.policy), request.quality), []).append(seen.answers)
        for parts in by_policy.values():
            self._add_answers(parts[0].request, Answers.joined(parts), finished[-1])

    def count_segments(self) -> None:
        """Counts the segments that have run since the last call."""
        ran = [self._ran.popleft() for _ in range(len(self._ran))]
        if ran:
            exits, rows, tokens, seconds = map(np.array, zip(*ran, strict=True))
            np.add.at(self.segments, exits, 1)
            np.add.at(self.segment_rows, exits, rows)
            np.add.at(self.segment_seconds, exits, seconds)
            self.batch_sizes.add(rows[exits == 0])
            self.batch_tokens.add(tokens[exits == 0])

    def _add_answers(self, request: Request, answers: Answers, time: float) -> None:
        """Counts answers of one policy by reason, and for drift unless load, a client or the deadline stopped them."""
        reasons = request.stopped_by_codes(answers)
        np.add.at(self.rows, (answers.exit_index, reasons), 1)
        if self.drift is not None and request.quality is None and request.policy == self._policy:
            labels, scores = self._labels_and_scores(request, answers)
            chosen = reasons != _DEADLINE
            self.drift.add(labels[chosen], answers.exit_index[chosen], scores[chosen], time)

    def _labels_and_scores(self, request: Request, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels and scores as `Reference.count` needs them."""
        labels, scores = labels_and_scores(self._backend, request, answers)
        if labels is None:  # regression
            return np.zeros(len(scores), dtype=np.int64), scores
        if self._is_multi_label:
            numbers = number_sets([np.flatnonzero(row).tolist() for row in labels], self.drift.reference.sets)
            return numbers, least_scores(scores, labels)
        return labels, scores
