"""The package's own engine in the comparison, with any policy on one loaded model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from record import MeasuredSeconds

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.evaluation.report import single_exit_policy
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.ragged import TokenBatch


class Sweet:
    """An artifact on one of the backends, run as by `model.predict`, without tokenization."""

    def __init__(self, artifact: Path, backend: str):
        self.model = SweetModelForSequenceClassification.from_pretrained(artifact, backend=backend)
        self.name = f"{self.model.backend.name} {self.model.artifact.precision}"

    def full_depth(self) -> Policy:
        """Returns a policy that probes every exit and never exits early, since the temperatures flatten confidences.

        A threshold of 1 would switch the probes off.
        """
        exits = len(self.model.artifact.exits)
        return Policy((0.9999999,) * (exits - 1), (1e6,) * exits)

    def leaving_at_each_exit(self) -> dict[int, Policy]:
        """Returns exit → policy under which every row leaves there, without probing the exits before it."""
        return {
            exit_: single_exit_policy(place, self.model.policy) for place, exit_ in enumerate(self.model.artifact.exits)
        }

    def batch_by_batch(self, batches: Sequence[TokenBatch], policy: Policy) -> Callable[[], MeasuredSeconds]:
        """Returns a function that runs one batch after the other and returns seconds per batch."""
        return partial(self._each, list(batches), policy)

    def all_rows(self, rows: TokenBatch, policy: Policy, batch_size: int) -> Callable[[], Answers]:
        """Returns a function that runs all rows in one call: sorted by length, with batches refilled."""
        return partial(self.model.executor.run, rows, policy, batch_size)

    def answers(self, rows: TokenBatch, policy: Policy) -> Answers:
        """Returns the answers of the rows, in their order."""
        return self.model.executor.run(rows, policy)

    def mean_layers(self, answers: Answers) -> float:
        """Returns the mean number of layers per row."""
        return float(np.mean(self.model.exit_layers(answers)))

    def _each(self, batches: list[TokenBatch], policy: Policy) -> Any:
        seconds = MeasuredSeconds()
        for batch in batches:
            start = time.perf_counter()
            self.model.executor.run(batch, policy, len(batch))
            seconds.append(time.perf_counter() - start)
        return seconds
