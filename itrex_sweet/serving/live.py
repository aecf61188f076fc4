"""State of a server in the last minutes, as the live page shows it."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from itrex_sweet.serving.history import QUANTILES, SECONDS
from itrex_sweet.serving.observed_model import ObservedModel
from itrex_sweet.serving.observer import Observer
from itrex_sweet.version import __version__


def live_state(observer: Observer) -> dict[str, Any]:
    """Returns the state of a server in plain JSON types."""
    observer.count()
    now = perf_counter() - observer.started
    return {
        "version": __version__,
        "uptime_seconds": round(now, 1),
        "in_flight": observer.in_flight,
        "failures": observer.history.to_dict(now)["failures"],
        "quantiles": list(QUANTILES),
        "seconds": SECONDS - 1,
        "models": [_model_state(model, now) for model in observer.models.values()],
    }


def _model_state(model: ObservedModel, now: float) -> dict[str, Any]:
    rows, depth = model.rows.sum(axis=1).tolist(), model.exits[-1]
    saved = sum((depth - exit_) * count for exit_, count in zip(model.exits, rows, strict=True))
    history = model.history.to_dict(now)
    del history["failures"]  # are counted for the server, because a request that fails may name no model
    state = None if model.snapshot is None else model.snapshot()
    return {
        "name": model.name,
        "exits": list(model.exits),
        "facts": model.facts,
        "rows": rows,
        "layers_saved": saved / max(depth * sum(rows), 1),
        "degraded": int(model.degraded),
        "queue": None if state is None else list(state.rows_waiting),
        "history": history,
        "drift": _drift_state(model, now),
    }


def _drift_state(model: ObservedModel, now: float) -> dict[str, Any] | None:
    """Returns the comparison with the calibration rows; `None` for a model without calibration."""
    if model.drift is None:
        return None
    report, (calibration, live) = model.drift.report(), model.drift.exit_shares
    history = [
        {"age": round(now - time, 1), "exits": found.exits, "labels": found.labels, "scores": found.scores}
        for time, found in model.drift.history
    ]
    return {
        "rows": model.drift.rows,
        "report": None if report is None else report.to_dict(),
        "calibration_shares": calibration,
        "live_shares": live,
        "history": history,
    }
