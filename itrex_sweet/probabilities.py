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
    terms = [
        math.lgamma(trials + 1)
        - math.lgamma(each + 1)
        - math.lgamma(trials - each + 1)
        + each * math.log(probability)
        + (trials - each) * math.log1p(-probability)
        for each in range(successes + 1)
    ]
    largest = max(terms)
    return min(1.0, math.exp(largest) * math.fsum(math.exp(term - largest) for term in terms))
