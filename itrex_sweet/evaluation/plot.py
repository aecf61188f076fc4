"""Plots of speed–accuracy curves and calibrations, with matplotlib but without its global state."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from itrex_sweet.errors import ArtifactError
from itrex_sweet.evaluation.curve import Curve, CurvePoint
from itrex_sweet.evaluation.report import Report
from itrex_sweet.extras import require_installed

# Colour-blind safe colours (Okabe and Ito 2008), and a marker for each.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_TEXT_COLOUR, _GRID_COLOUR = "#333333", "#D9D9D9"
_MIN_SPAN = 4.0  # percent, of the vertical axis


def require_matplotlib() -> None:
    """Checks that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_installed("matplotlib", "a picture")


def plot_curves(
    curves: Mapping[str, Curve],
    path: str | os.PathLike,
    title: str | None = None,
    reports: Mapping[str, Report] | None = None,
) -> Path:
    """Plots the metric over mean layers, and over milliseconds if they were measured, as a PNG.

    Args:
        curves: by name.
        path: of the PNG; its folder is created if missing.
        title: of the plot.
        reports: by the same names; their policies are marked with rings. They may have a threshold per exit, and so
            need not lie on the curve.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    require_matplotlib()
    reports = reports or {}
    timed = any(point.milliseconds is not None for curve in curves.values() for point in curve.points)
    figure = _new_figure(10.4 if timed else 6.0)
    panels = figure.subplots(1, 2 if timed else 1, sharey=True, squeeze=False)[0]
    metric = next(iter(curves.values())).metric_name if curves else "accuracy"
    _draw(panels[0], curves, lambda point: point.mean_layers, reports)
    _mark_full_depth(panels[0], curves)
    shown = [point.metric for curve in curves.values() for point in curve.points]
    _set_y_limits(panels[0], [100 * metric for metric in (*shown, *(report.metric for report in reports.values()))])
    panels[0].set_xlabel("layers run per text, mean")
    panels[0].set_ylabel(f"{metric}, %")
    if timed:
        _draw(panels[1], curves, lambda point: point.milliseconds, reports)
        panels[1].set_xlabel("milliseconds per text")
    if len(curves) > 1 or reports:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    if title:
        figure.suptitle(title, fontsize=12, color=_TEXT_COLOUR)
    return _save(figure, path)


def require_plot(path: Path) -> None:
    """Checks that a plot can be written to a file, without changing it.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    require_matplotlib()
    created: list[Path] = []
    try:
        created = [parent for parent in path.parents if not parent.exists()]
        existed = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise ArtifactError(f"cannot write {path} ({error}).") from error
    finally:
        for parent in created:
            with suppress(OSError):
                parent.rmdir()


def plot_calibration(calibration: Mapping[str, Any], path: str | os.PathLike) -> Path:
    """Plots the candidates of a calibration by cost and score, with the selected one marked.

    Args:
        calibration: as recorded in the artifact.
        path: of the PNG; its folder is created if missing.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    require_matplotlib()
    in_time = calibration["unit"] == "milliseconds"
    found = [
        (each["milliseconds"] if in_time else each["mean_layers"], 100 * each["score"])
        for each in calibration["candidates"]
    ]
    certified = calibration["certified"]
    chosen = calibration["candidates"].index(calibration["chosen"])
    figure = _new_figure(6.4)
    panel = figure.subplots()
    panel.plot(*zip(*found, strict=True), color=_GRID_COLOUR, linewidth=1.6, zorder=1)
    first = 1 if certified is None else certified
    others = "candidates" if certified is None else "not certified"
    groups = {"full model": found[:1], "certified": found[1:first], others: found[first:]}
    for (name, points), colour in zip(groups.items(), (_COLOURS[6], _COLOURS[0], _COLOURS[1]), strict=True):
        if points:
            panel.scatter(*zip(*points, strict=True), s=34, color=colour, label=name, zorder=2)
    ring = dict(s=190, facecolors="none", edgecolors=_COLOURS[2], linewidths=2)
    panel.scatter(*found[chosen], label="chosen", zorder=3, **ring)
    budget = calibration["budget"]
    drop = next((budget[name] for name in budget if name.endswith("_drop")), None)
    if drop is not None:
        panel.axhline(found[0][1] - 100 * drop, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        panel.annotate(
            f"{100 * drop:g} % below full depth",
            xy=(0.99, found[0][1] - 100 * drop),
            xycoords=panel.get_yaxis_transform(),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color="#666666",
        )
    _set_y_limits(panel, [score for _, score in found])
    _style(panel)
    batch = f", batches of {calibration['batch_size']}" if in_time else ""
    panel.set_xlabel(f"milliseconds per text{batch}" if in_time else "layers run per text, mean")
    panel.set_ylabel(f"{budget.get('metric', 'accuracy' if 'max_agreement_drop' not in budget else 'agreement')}, %")
    panel.legend(frameon=False, fontsize=9)
    figure.suptitle(
        f"calibrated on {calibration['source']}, {calibration['rows_testing']} rows", fontsize=11, color=_TEXT_COLOUR
    )
    return _save(figure, path)


def _new_figure(width: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | os.PathLike) -> Path:
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise ArtifactError(f"cannot write {path} ({error}).") from error
    return path


def _draw(
    panel: Any,
    curves: Mapping[str, Curve],
    x_value: Callable[[CurvePoint | Report], float | None],
    reports: Mapping[str, Report],
) -> None:
    """Draws a line per curve, with points in the order of thresholds, and rings for policies."""
    for index, (name, curve) in enumerate(curves.items()):
        shown = [(value, 100 * point.metric) for point in curve.points if (value := x_value(point)) is not None]
        if not shown:
            continue
        panel.plot(
            *zip(*shown, strict=True),
            label=name,
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linewidth=1.6,
            clip_on=False,
        )
        report = reports.get(name)
        if report is not None and (value := x_value(report)) is not None:
            panel.scatter(
                value,
                100 * report.metric,
                label="stored policy" if len(curves) == 1 else f"{name}, stored policy",
                s=150,
                facecolors="none",
                edgecolors=_COLOURS[index % len(_COLOURS)],
                linewidths=2,
                zorder=3,
                clip_on=False,
            )
    _style(panel)


def _style(panel: Any) -> None:
    panel.set_xlim(left=0)
    panel.grid(True, color=_GRID_COLOUR, linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color(_TEXT_COLOUR)
    panel.tick_params(colors=_TEXT_COLOUR, labelsize=9)


def _set_y_limits(panel: Any, values: Sequence[float]) -> None:
    """Limits the vertical axis to the values, but to no less than `_MIN_SPAN` percent."""
    low, high = min(values, default=0.0), max(values, default=100.0)
    margin = max(0.06 * (high - low), (_MIN_SPAN - (high - low)) / 2)
    panel.set_ylim(low - margin, min(high + margin, max(high, 100.0) + 0.06 * (high - low + _MIN_SPAN)))


def _mark_full_depth(panel: Any, curves: Mapping[str, Curve]) -> None:
    for depth in sorted({curve.depth for curve in curves.values()}):
        panel.axvline(depth, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        panel.annotate(
            f"full depth, {depth} layers",
            xy=(depth, 0.03),
            xycoords=panel.get_xaxis_transform(),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color="#666666",
        )
