"""Whether an engine computes the right thing, how much it has to compute, and how fast it could at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from itrex_sweet.errors import SweetError


def agreement(reference: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """An engine's logits (rows, labels) beside the reference's.

    Returns:
        `same_label` in percent; `cosine` of the logits, mean and least over rows; `correlation` of the logits over
        rows, each label's mean taken off (what random weights leave to tell rows apart); `largest_difference`.
    """
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(logits, axis=1)
    cosines = (reference * logits).sum(1) / np.maximum(norms, 1e-12)
    ours, theirs = logits - logits.mean(0), reference - reference.mean(0)
    spread = np.linalg.norm(ours) * np.linalg.norm(theirs)
    return {
        "same_label": round(100 * float((reference.argmax(1) == logits.argmax(1)).mean()), 2),
        "cosine": round(float(cosines.mean()), 5),
        "least_cosine": round(float(cosines.min()), 5),
        "correlation": round(float((ours * theirs).sum() / max(spread, 1e-12)), 5),
        "largest_difference": round(float(np.abs(reference - logits).max()), 4),
    }


def multiply_adds(config: Mapping[str, Any], tokens: int) -> dict[str, float]:
    """Multiply-adds per token of all layers in full, in rows of `tokens`: linear layers, and attention's products."""
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return {"linear": layers * (4.0 * hidden**2 + 2.0 * hidden * inner), "attention": layers * 2.0 * tokens * hidden}


def sweet_op_peak(threads: int) -> float | None:
    """Multiply-adds of 8-bit integers per second, out of registers: the limit here. `None` without our library."""
    try:
        from itrex_sweet.runtime.native import library

        return float(library.load().sweet_op_peak(threads))
    except (ImportError, AttributeError, SweetError):
        return None
