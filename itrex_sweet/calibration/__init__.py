"""Making confidences honest, and policies fit, on the model that will run: temperatures, thresholds."""

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
