"""Softmax and logistic function in float32, and the binomial distribution. Imports NumPy only."""

from __future__ import annotations

import math

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


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """Returns the probability of at most so many successes; 1 without trials.

    Args:
        probability: of a success, above 0 and below 1.
    """
    if trials == 0:
        return 1.0
    counts = np.arange(1, successes + 1)
    log_odds = math.log(probability) - math.log1p(-probability)
    # Logarithms of the terms relative to the first, by the ratio of neighbors. Double precision would lose digits here.
    ratios = np.log((trials + 1 - counts) / counts) + log_odds
    terms = np.concatenate(([0.0], np.cumsum(ratios, dtype=np.longdouble)))
    largest = terms.max()
    scale = math.exp(trials * math.log1p(-probability) + largest)
    return min(1.0, scale * float(np.exp((terms - largest).astype(np.float64)).sum()))
