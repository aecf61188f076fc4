"""How sure an exit is, and who may leave: pure functions on NumPy arrays, the same for every backend."""

from __future__ import annotations

import numpy as np

from itrex_sweet.config import Policy


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of `logits / temperature`.

    Args:
        logits: (..., labels) float32.
        temperature: divides the logits; above 1 softens (Guo et al. 2017, arXiv 1706.04599, equation 9).

    Returns:
        (..., labels) float32, summing to 1; NaN where the logits are not finite.
    """
    scaled = np.asarray(logits, dtype=np.float32) / temperature
    with np.errstate(invalid="ignore"):
        powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


def max_probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Confidence as the largest softmax probability (SWEET, arXiv 2306.02307, section 3.1).

    Args:
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32 in (0, 1]; NaN where the logits are not finite.
    """
    scaled = np.asarray(logits, dtype=np.float32) / temperature
    with np.errstate(invalid="ignore"):
        return 1 / np.exp(scaled - scaled.max(axis=-1, keepdims=True)).sum(axis=-1)  # the largest of the powers is 1


_CRITERIA = {"max_probability": max_probability}


def confidence(policy: Policy, exit_index: int, logits: np.ndarray) -> np.ndarray:
    """Confidence of each row at an exit under a policy.

    Args:
        exit_index: place of the exit among the exits, from 0.
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32.
    """
    return _CRITERIA[policy.criterion](logits, policy.temperatures[exit_index])


def may_leave(policy: Policy, exit_index: int, confidences: np.ndarray) -> np.ndarray:
    """Which rows are answered at an exit; at the last one, all.

    NaN confidence never leaves early, so that a row whose logits broke is not answered before the end.

    Returns:
        (rows,) bool.
    """
    if exit_index == len(policy.thresholds):
        return np.ones(len(confidences), dtype=bool)
    return confidences > policy.thresholds[exit_index]
