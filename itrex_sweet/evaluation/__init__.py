"""Evaluation of early-exit models: per-exit tables, speed–accuracy curves, plots and model cards."""

from itrex_sweet.evaluation.curve import Curve, CurvePoint
from itrex_sweet.evaluation.evaluation import Evaluation, evaluate, evaluate_models
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.plot import plot_curves
from itrex_sweet.evaluation.report import ExitReport, Report

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
