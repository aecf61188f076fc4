"""Temperature scaling on held-out rows, and measures of calibration: NLL, ECE and Brier score."""

from __future__ import annotations

import numpy as np

from itrex_sweet.arguments import positive_number, whole_number
from itrex_sweet.errors import InputError
from itrex_sweet.evaluation.labels import checked_labels

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_NUM_BINS = 15
_BISECTION_STEPS = 60  # more than float64 resolves


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature of maximum likelihood (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The log-likelihood is concave in the inverse temperature; its maximum is found by bisection of its derivative, in
    float64. Rows whose logits are not finite are ignored.

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.

    Returns:
        a value between `MIN_TEMPERATURE` and `MAX_TEMPERATURE`; near the minimum if all rows are predicted correctly;
        1 if there are no rows.
    """
    logits, labels = _finite(logits, labels)
    if not len(labels):
        return 1.0
    label_logits = logits[np.arange(len(labels)), labels]
    low, high = 1.0 / MAX_TEMPERATURE, 1.0 / MIN_TEMPERATURE
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2.0
        expected = (_softmax(middle * logits) * logits).sum(axis=1)
        low, high = (middle, high) if (label_logits - expected).mean() > 0.0 else (low, middle)
    return float(np.clip(1.0 / ((low + high) / 2.0), MIN_TEMPERATURE, MAX_TEMPERATURE))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Returns the mean of `-log p(label)` in nats, over rows whose logits are finite.

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.
    """
    scaled, labels = _scaled(logits, labels, temperature)
    largest = scaled.max(axis=1)
    log_sum_exp = largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
    return float((log_sum_exp - scaled[np.arange(len(labels)), labels]).mean())


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: int = _NUM_BINS
) -> float:
    """Returns the mean gap between confidence and accuracy, in bins of equal width (Guo et al. 2017, equation 3).

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.

    Returns:
        a fraction in [0, 1].
    """
    scaled, labels = _scaled(logits, labels, temperature)
    probabilities = _softmax(scaled)
    bins = whole_number("bins", bins, 1)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    indices = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(indices, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier_score(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Returns the mean squared error of the probabilities, summed over labels (Brier 1950), from 0 to 2.

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.
    """
    scaled, labels = _scaled(logits, labels, temperature)
    probabilities = _softmax(scaled)
    probabilities[np.arange(len(labels)), labels] -= 1.0
    return float((probabilities**2).sum(axis=1).mean())


def as_binary(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns multi-label logits and labels as those of one binary task per row and label, for the functions above.

    Args:
        logits: (rows, labels); the softmax of (0, logit) is its sigmoid.
        labels: (rows, labels) ones and zeros.

    Returns:
        logits (rows * labels, 2) and labels (rows * labels,).
    """
    flat = np.asarray(logits).reshape(-1)
    return np.stack([np.zeros_like(flat), flat], axis=1), np.asarray(labels).reshape(-1)


def _scaled(logits: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scaled logits and the labels of rows whose logits are finite.

    Raises:
        InputError: no row has finite logits.
        ConfigError: a temperature that is not positive.
    """
    temperature = positive_number("temperature", temperature)
    logits, labels = _finite(logits, labels)
    if not len(labels):
        raise InputError("no row has finite logits.")
    return logits / temperature, labels


def _finite(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits, in float64, and labels of the rows whose logits are finite."""
    try:
        logits = np.asarray(logits, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the logits are not numbers: {error}") from error
    if logits.ndim != 2:
        raise InputError(f"logits have shape {logits.shape}; expected (rows, labels).")
    labels = checked_labels(labels, len(logits), logits.shape[1], "the logits")
    kept = np.isfinite(logits).all(axis=1)
    return logits[kept], labels[kept]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
