"""The default policy's threshold, estimated while a model trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from itrex_sweet.policy import DEFAULT_THRESHOLD

MAX_DISAGREEMENT = 0.005  # share of rows whose early answer differs from the last exit's
MIN_ROWS = 500
WINDOW = 2000  # rows, after which older ones count half
EVALUATION_INTERVAL = 50  # batches; reading the counts waits for the device

# Candidates. Training rows agree at least as well as others, so none is below the default.
CANDIDATES = (DEFAULT_THRESHOLD, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999)


class ThresholdEstimator:
    """Estimates the smallest threshold at which early answers agree with the last exit.

    A fixed threshold suits no two tasks: where exits are overconfident, 0.9 costs points. The estimate counts, over the
    recent batches of training and before the step on each, how many rows would get another answer than from the last
    exit under each candidate. It is no guarantee, since the rows are those trained on; calibration on unseen rows gives
    one.

    Attributes:
        threshold: in [`DEFAULT_THRESHOLD`, 1]; 1 if no candidate agrees on all but `MAX_DISAGREEMENT` of the rows, and
            `None` before `MIN_ROWS` rows.
    """

    def __init__(self) -> None:
        self.threshold: float | None = None
        self._disagreements: torch.Tensor | None = None  # (candidates,)
        self._rows = 0.0
        self._in_window = 0
        self._batches = 0

    @torch.no_grad()
    def update(self, logits: Mapping[int, torch.Tensor]) -> bool:
        """Counts one batch.

        Args:
            logits: exit → (rows, labels), the last exit included.

        Returns:
            `True` if `threshold` was computed again.
        """
        if len(logits) < 2:
            return False  # without an early exit there is no threshold
        confidence, label = torch.stack([logits[exit_] for exit_ in sorted(logits)]).float().softmax(-1).max(-1)
        candidates = torch.tensor(CANDIDATES, device=confidence.device)
        leaves = confidence[:-1, None] > candidates[:, None]  # (exits, candidates, rows)
        answer = label.gather(0, leaves.int().argmax(0))  # of the first exit that is confident
        disagreements = (leaves.any(0) & (answer != label[-1])).sum(1).float()
        if self._disagreements is None:
            self._disagreements = torch.zeros_like(disagreements)
        self._disagreements += disagreements
        self._rows += label.shape[1]
        self._in_window += label.shape[1]
        self._batches += 1
        is_due = self._batches % EVALUATION_INTERVAL == 0 and self._rows >= MIN_ROWS
        if is_due:
            self.threshold = self._estimate()
        if self._in_window >= WINDOW:
            self._disagreements /= 2
            self._rows /= 2
            self._in_window = 0
        return is_due

    def _estimate(self) -> float:
        smallest = 1.0
        shares = (self._disagreements / self._rows).tolist()
        for candidate, share in zip(reversed(CANDIDATES), reversed(shares), strict=True):
            if share > MAX_DISAGREEMENT:
                break
            smallest = candidate
        return smallest
