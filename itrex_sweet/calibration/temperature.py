"""One temperature per exit, fitted on held-out rows, and how well confidences then match accuracy."""

from __future__ import annotations

import numpy as np

from itrex_sweet.arguments import real_number, whole_number
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation.labels import checked_labels

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_BINS = 15
_STEPS = 60  # halvings of the interval: far below float64's resolution of a temperature


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes the labels likeliest (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The likelihood is concave in the inverse temperature, so its one maximum is found by bisecting its slope, in
    float64. Rows whose logits are not finite are left out.

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.

    Returns:
        within `MIN_TEMPERATURE` and `MAX_TEMPERATURE`, whose lower end stands for rows that are all answered
        right, where no temperature is too low; 1 without any row.
    """
    logits, labels = _finite(logits, labels)
    if not len(labels):
        return 1.0
    right = logits[np.arange(len(labels)), labels]
    low, high = 1.0 / MAX_TEMPERATURE, 1.0 / MIN_TEMPERATURE
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        expected = (_softmax(middle * logits) * logits).sum(axis=1)
        low, high = (middle, high) if (right - expected).mean() > 0.0 else (low, middle)
    return float(np.clip(1.0 / ((low + high) / 2.0), MIN_TEMPERATURE, MAX_TEMPERATURE))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of `-log p(label)` in nats, over rows whose logits are finite.

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.
    """
    scaled, labels = _scaled(logits, labels, temperature)
    most = scaled.max(axis=1)
    total = most + np.log(np.exp(scaled - most[:, None]).sum(axis=1))
    return float((total - scaled[np.arange(len(labels)), labels]).mean())


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: int = _BINS
) -> float:
    """Mean gap between confidence and accuracy, in bins of equal width (Guo et al. 2017, equation 3).

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.

    Returns:
        share in [0, 1].
    """
    scaled, labels = _scaled(logits, labels, temperature)
    probabilities = _softmax(scaled)
    bins = whole_number("bins", bins, 1)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(places, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier_score(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean squared distance between probabilities and the truth, over all labels (Brier 1950), from 0 to 2.

    Args:
        logits: (rows, labels).
        labels: (rows,) ids from 0.
    """
    scaled, labels = _scaled(logits, labels, temperature)
    probabilities = _softmax(scaled)
    probabilities[np.arange(len(labels)), labels] -= 1.0
    return float((probabilities**2).sum(axis=1).mean())


def _scaled(logits: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits by temperature and labels of the rows that have an answer.

    Raises:
        InputError: no row has one.
        ConfigError: a temperature that is not positive.
    """
    temperature = real_number("temperature", temperature)
    if not 0.0 < temperature < np.inf:
        raise ConfigError(f"temperature={temperature}: a positive number, and a finite one.")
    logits, labels = _finite(logits, labels)
    if not len(labels):
        raise InputError("there is no row with finite logits, so there is nothing to measure.")
    return logits / temperature, labels


def _finite(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have an answer, in float64."""
    try:
        logits = np.asarray(logits, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the logits are no numbers: {error}") from error
    if logits.ndim != 2:
        raise InputError(f"logits have shape {logits.shape}; (rows, labels) is needed.")
    labels = checked_labels(labels, len(logits), logits.shape[1], "the logits")
    kept = np.isfinite(logits).all(axis=1)
    return logits[kept], labels[kept]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
