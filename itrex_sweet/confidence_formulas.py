"""Formulas of confidence that read the logits of one exit, by NumPy. `itrex_sweet.criteria` chooses among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from itrex_sweet.probabilities import logistic, softmax


def max_probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns the largest softmax probability (SWEET, arXiv 2306.02307, section 3.1).

    Args:
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32 in (0, 1]; NaN where the logits are not finite.
    """
    scaled = np.asarray(logits, dtype=np.float32) / temperature
    with np.errstate(invalid="ignore"):
        return 1 / np.exp(scaled - scaled.max(axis=-1, keepdims=True)).sum(axis=-1)  # the largest of the powers is 1


def entropy(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns 1 minus the entropy of the softmax, divided by its maximum `log(labels)` (DeeBERT, arXiv 2004.12993).

    Args:
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32 in [0, 1]; NaN where the logits are not finite.
    """
    shares = softmax(logits, temperature)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    with np.errstate(invalid="ignore"):
        return (1 + (shares * logarithms).sum(axis=-1) / np.log(np.float32(shares.shape[-1]))).clip(0, 1)


def margin(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns the largest softmax probability minus the second largest.

    Args:
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32 in [0, 1]; NaN where the logits are not finite.
    """
    two = np.partition(softmax(logits, temperature), -2, axis=-1)[..., -2:]
    return two[..., 1] - two[..., 0]


def one_against_rest(logits: np.ndarray, temperature: float, label: int) -> np.ndarray:
    """Returns `max(p, 1 - p)` of the softmax probability `p` of one label.

    Args:
        logits: (rows, labels) float32.
        label: id of the label.

    Returns:
        (rows,) float32 in [0.5, 1]; NaN where the logits are not finite.
    """
    shares = softmax(logits, temperature)
    rest = np.delete(shares, label, axis=-1).sum(axis=-1)  # 1 - p, without cancellation
    return np.maximum(shares[..., label], rest).clip(max=np.float32(1))


def label_distance(
    logits: np.ndarray, temperature: float = 1.0, label_thresholds: Sequence[float] | None = None
) -> np.ndarray:
    """Returns the distance of the least certain label of a multi-label row from its threshold, in logits:
    `min |logit / temperature - logit(threshold)|`, where `logit(p) = log(p / (1 - p))`.

    Args:
        logits: (rows, labels) float32.
        label_thresholds: one per label, by default 0.5.

    Returns:
        (rows,) float32, at least 0; NaN where the logits are not finite.
    """
    logits = np.asarray(logits, dtype=np.float32)
    scaled = logits / temperature
    if label_thresholds is not None:
        scaled = scaled - label_offsets(label_thresholds)
    return np.where(np.isfinite(logits).all(axis=-1), np.abs(scaled).min(axis=-1), np.float32("nan"))


def label_offsets(label_thresholds: Sequence[float]) -> np.ndarray:
    """Returns `log(p / (1 - p))` of the thresholds `p` of labels, (labels,) float32."""
    thresholds = np.asarray(label_thresholds, dtype=np.float64)
    return np.log(thresholds / (1.0 - thresholds)).astype(np.float32)


def label_confidence(
    logits: np.ndarray, temperature: float = 1.0, label_thresholds: Sequence[float] | None = None
) -> np.ndarray:
    """Returns the confidence of the least confident label, `logistic(label_distance)`: the minimum over labels of
    `max(p, 1 - p)` where thresholds are 0.5, and 0.5 where a probability equals its threshold.

    Arguments and rows that are not finite as of `label_distance`.

    Returns:
        (rows,) float32 in [0.5, 1].
    """
    return logistic(label_distance(logits, temperature, label_thresholds))


def label_entropy(
    logits: np.ndarray, temperature: float = 1.0, label_thresholds: Sequence[float] | None = None
) -> np.ndarray:
    """Returns 1 minus the binary entropy, in bits, of `label_confidence`: (rows,) float32 in [0, 1]."""
    distance = label_distance(logits, temperature, label_thresholds)
    return entropy(np.stack([distance, np.zeros_like(distance)], axis=-1))


def label_margin(
    logits: np.ndarray, temperature: float = 1.0, label_thresholds: Sequence[float] | None = None
) -> np.ndarray:
    """Returns `2 p - 1` of the confidence `p` of the least confident label: (rows,) float32 in [0, 1]."""
    return 2 * label_confidence(logits, temperature, label_thresholds) - 1
