"""Agreement of an engine with the reference, multiply-adds of a model, and the peak rate of the processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from itrex_sweet.errors import SweetError


def agreement(reference: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Compares an engine's logits (rows, labels) with the reference's.

    Returns:
        `same_label` in percent; `cosine` of the logits, mean and minimum over rows; `correlation` of the logits after
        subtracting each label's mean, which distinguishes rows with random weights too; `largest_difference`.
    """
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(logits, axis=1)
    cosines = (reference * logits).sum(1) / np.maximum(norms, 1e-12)
    centered, expected = logits - logits.mean(0), reference - reference.mean(0)
    spread = np.linalg.norm(centered) * np.linalg.norm(expected)
    return {
        "same_label": round(100 * float((reference.argmax(1) == logits.argmax(1)).mean()), 2),
        "cosine": round(float(cosines.mean()), 5),
        "least_cosine": round(float(cosines.min()), 5),
        "correlation": round(float((centered * expected).sum() / max(spread, 1e-12)), 5),
        "largest_difference": round(float(np.abs(reference - logits).max()), 4),
    }


def multiply_adds(config: Mapping[str, Any], tokens: int) -> dict[str, float]:
    """Returns multiply-adds per token of all layers for rows of `tokens`: linear layers, and attention products."""
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return {"linear": layers * (4.0 * hidden**2 + 2.0 * hidden * inner), "attention": layers * 2.0 * tokens * hidden}


def sweet_op_peak(threads: int) -> float | None:
    """Measures the peak rate of 8-bit multiply-adds per second, from registers. `None` without the native library."""
    try:
        from itrex_sweet.runtime.native import library

        return float(library.load().sweet_op_peak(threads))
    except (ImportError, AttributeError, SweetError):
        return None
