"""Softmax and logistic function in float32. Imports NumPy only."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns the softmax of `logits / temperature`.

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


def logistic(values: np.ndarray) -> np.ndarray:
    """Computes `1 / (1 + exp(-value))` in float32."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-np.asarray(values, dtype=np.float32)))
