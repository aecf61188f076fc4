"""The default policy's threshold, estimated while a model trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from itrex_sweet.policy import DEFAULT_THRESHOLD
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task, task_named

MAX_DISAGREEMENT = 0.005  # share of rows whose early answer differs from the last exit's
MIN_ROWS = 500
WINDOW = 2000  # rows, after which older ones count half
EVALUATION_INTERVAL = 50  # batches; reading the counts waits for the device

# Candidates. Training rows agree at least as well as others, so none is below the default.
CANDIDATES = (DEFAULT_THRESHOLD, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999)
# In regression the confidence is 1 / (1 + error): candidates are estimated errors, in the unit of the values.
ERROR_CANDIDATES = tuple(1 / (1 + 10 ** (place / 8)) for place in range(24, -33, -1))  # errors from 1000 to 0.0001
VALUE_TOLERANCE = 0.25  # difference up to which values agree, in standard deviations of the last exit's values


class ThresholdEstimator:
    """Estimates the smallest threshold at which early answers agree with the last exit.

    A fixed threshold suits no two tasks: where exits are overconfident, 0.9 costs points. The estimate counts, over the
    recent batches of training and before the step on each, how many rows would get another answer than from the last
    exit under each candidate: another label, another set of labels, or a value that differs by more than
    `VALUE_TOLERANCE`. It is no guarantee, since the rows are those trained on; calibration on unseen rows gives
    one.

    Args:
        task: of the model; single-label classification by default.

    Attributes:
        threshold: in [`DEFAULT_THRESHOLD`, 1], in regression in [0, 1]; 1 if no candidate agrees on all but
            `MAX_DISAGREEMENT` of the rows, and `None` before `MIN_ROWS` rows.
    """

    def __init__(self, task: Task | None = None) -> None:
        self.task = task or task_named(SINGLE_LABEL)
        self.candidates = ERROR_CANDIDATES if self.task.name == REGRESSION else CANDIDATES
        self.threshold: float | None = None
        self._disagreements: torch.Tensor | None = None  # (candidates,)
        self._rows = 0.0
        self._in_window = 0
        self._batches = 0

    @torch.no_grad()
    def update(
        self, logits: Mapping[int, torch.Tensor], correctness_logits: Mapping[int, torch.Tensor] | None = None
    ) -> bool:
        """Counts one batch.

        Args:
            logits: exit → (rows, labels), the last exit included.
            correctness_logits: exit → (rows,), of every exit but the last; needed in regression.

        Returns:
            `True` if `threshold` was computed again.
        """
        if len(logits) < 2:
            return False  # without an early exit there is no threshold
        stacked = torch.stack([logits[exit_] for exit_ in sorted(logits)]).float()
        confidence, differs = self._compare(stacked, correctness_logits or {})
        candidates = torch.tensor(self.candidates, device=confidence.device)
        leaves = confidence[:, None] > candidates[:, None]  # (exits, candidates, rows)
        # Of the first exit that is confident.
        disagreements = (leaves.any(0) & differs.gather(0, leaves.int().argmax(0))).sum(1).float()
        if self._disagreements is None:
            self._disagreements = torch.zeros_like(disagreements)
        self._disagreements += disagreements
        self._rows += stacked.shape[1]
        self._in_window += stacked.shape[1]
        self._batches += 1
        is_due = self._batches % EVALUATION_INTERVAL == 0 and self._rows >= MIN_ROWS
        if is_due:
            self.threshold = self._estimate()
        if self._in_window >= WINDOW:
            self._disagreements /= 2
            self._rows /= 2
            self._in_window = 0
        return is_due

    def _compare(
        self, logits: torch.Tensor, correctness_logits: Mapping[int, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the confidence of every exit but the last, and if its answer differs from the last exit's, both
        (exits, rows), for logits (exits, rows, labels).
        """
        if self.task.name == REGRESSION:
            confidence = torch.stack([correctness_logits[exit_] for exit_ in sorted(correctness_logits)]).float()
            values = logits[..., 0]
            tolerance = VALUE_TOLERANCE * values[-1].std(correction=0)
            return torch.sigmoid(confidence), (values[:-1] - values[-1]).abs() > tolerance
        if self.task.name == MULTI_LABEL:
            is_on = logits > 0
            return torch.sigmoid(logits[:-1].abs().amin(-1)), (is_on[:-1] != is_on[-1]).any(-1)
        confidence, label = logits.softmax(-1).max(-1)
        return confidence[:-1], label[:-1] != label[-1]

    def _estimate(self) -> float:
        smallest = 1.0
        shares = (self._disagreements / self._rows).tolist()
        for candidate, share in zip(reversed(self.candidates), reversed(shares), strict=True):
            if share > MAX_DISAGREEMENT:
                break
            smallest = candidate
        return smallest
