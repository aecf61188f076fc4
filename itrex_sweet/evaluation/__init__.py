"""What an early-exit model is worth: per-exit tables, speed–accuracy curves, plots and model cards."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "Curve": "itrex_sweet.evaluation.curve",
    "CurvePoint": "itrex_sweet.evaluation.curve",
    "Evaluation": "itrex_sweet.evaluation.evaluation",
    "evaluate": "itrex_sweet.evaluation.evaluation",
    "evaluate_models": "itrex_sweet.evaluation.evaluation",
    "ExitOutcomes": "itrex_sweet.evaluation.outcomes",
    "ExitReport": "itrex_sweet.evaluation.report",
    "Report": "itrex_sweet.evaluation.report",
    "plot_curves": "itrex_sweet.evaluation.plot",
    "render_card": "itrex_sweet.evaluation.model_card",
}

__all__ = [
    "Curve",
    "CurvePoint",
    "Evaluation",
    "ExitOutcomes",
    "ExitReport",
    "Report",
    "evaluate",
    "evaluate_models",
    "plot_curves",
    "render_card",
]

if TYPE_CHECKING:
    from itrex_sweet.evaluation.curve import Curve, CurvePoint
    from itrex_sweet.evaluation.evaluation import Evaluation, evaluate, evaluate_models
    from itrex_sweet.evaluation.model_card import render_card
    from itrex_sweet.evaluation.outcomes import ExitOutcomes
    from itrex_sweet.evaluation.plot import plot_curves
    from itrex_sweet.evaluation.report import ExitReport, Report


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value
