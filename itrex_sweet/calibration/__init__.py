"""Calibration of an artifact on the backend that runs it: temperatures, thresholds and statistical guarantees."""

from itrex_sweet.calibration.temperature import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from itrex_sweet.calibration.transfer import transfer_thresholds

__all__ = [
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "transfer_thresholds",
]
