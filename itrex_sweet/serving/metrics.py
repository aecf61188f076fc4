"""Metrics of a server as Prometheus reads them: those of text-embeddings-inference by its names, and our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from itrex_sweet.drift import VERDICTS
from itrex_sweet.runtime.request import STOPPED_BY
from itrex_sweet.serving.exposition import Exposition
from itrex_sweet.serving.observed_model import ObservedModel
from itrex_sweet.serving.observer import STEPS, Observer
from itrex_sweet.serving.process_metrics import add_process_metrics
from itrex_sweet.version import __version__

_METHODS = {False: "single", True: "batch"}
# Names of text-embeddings-inference for errors.
_ERRORS = {"tokenizer": "tokenization", "backend": "inference", "cancelled": "dropped", "too_many_texts": "batch_size"}


def metrics_text(observer: Observer) -> str:
    """Returns the metrics of a server in Prometheus' text format."""
    observer.count()
    document = Exposition()
    _add_requests(document, observer)
    _add_models(document, list(observer.models.values()))
    add_process_metrics(document)
    return document.text()


def _add_requests(document: Exposition, observer: Observer) -> None:
    """Adds the metrics of text-embeddings-inference, which have no label for the model."""
    succeeded, refused = observer.succeeded, observer.refused
    counts = {method: succeeded[key] + refused[key] for key, method in _METHODS.items()}
    document.counter("te_request_count", "Requests.", [({"method": name}, count) for name, count in counts.items()])
    document.counter(
        "te_request_success",
        "Requests that were answered.",
        [({"method": name}, succeeded[key]) for key, name in _METHODS.items()],
    )
    failed = sorted(observer.failed.items())
    document.counter(
        "te_request_failure",
        "Requests that were answered with an error, by its type.",
        [({"err": _ERRORS.get(error, error)}, count) for error, count in failed],
    )
    document.counter("te_predict_count", "Texts that were answered.", [({}, observer.rows)])
    document.counter("te_predict_success", "Texts that were answered.", [({}, observer.rows)])
    for prefix, durations, unit in (
        ("te_request", observer.durations, "a request"),
        ("te_predict", observer.row_durations, "a text"),
    ):
        for step in STEPS:
            name = f"{prefix}_duration" if step == "total" else f"{prefix}_{step}_duration"
            document.histogram(name, f"Seconds of {unit}: {step}.", [({}, durations[step])])
    document.histogram("te_request_input_length", "Tokens of a text.", [({}, observer.lengths)])
    document.gauge("itrex_sweet_requests_in_flight", "Requests without an answer.", [({}, observer.in_flight)])


def _add_models(document: Exposition, models: list[ObservedModel]) -> None:
    document.histogram("te_batch_next_size", "Texts of a batch that enters the model.", _joined(models, "batch_sizes"))
    document.histogram("te_batch_next_tokens", "Tokens of such a batch.", _joined(models, "batch_tokens"))
    states = {model: model.snapshot() for model in models if model.snapshot is not None}
    document.gauge("te_queue_size", "Texts that wait.", [({}, sum(sum(s.rows_waiting) for s in states.values()))])

    def each_exit(values: Any) -> Iterator[tuple[dict[str, str], float]]:
        for model in models:
            for exit_, value in zip(model.exits, values(model), strict=False):
                yield {"model": model.name, "exit": str(exit_)}, value

    document.gauge(
        "itrex_sweet_info",
        "1; describes the model.",
        [({"model": model.name, "version": __version__, **model.facts}, 1) for model in models],
    )
    document.counter(
        "itrex_sweet_rows_total",
        "Texts answered, by the exit that answered (a number of layers) and the reason.",
        [
            ({"model": model.name, "exit": str(exit_), "stopped_by": reason}, int(model.rows[place, code]))
            for model in models
            for place, exit_ in enumerate(model.exits)
            for code, reason in enumerate(STOPPED_BY)
        ],
    )
    rows = [({"model": model.name}, model.rows.sum(axis=1), model.exits) for model in models]
    document.counter(
        "itrex_sweet_layers_saved_total",
        "Layers that answered texts did not run because they left at an exit.",
        [(labels, sum((exits[-1] - e) * int(n) for e, n in zip(exits, of, strict=True))) for labels, of, exits in rows],
    )
    document.counter(
        "itrex_sweet_layers_full_total",
        "Layers that answered texts would have run without exits.",
        [(labels, exits[-1] * int(of.sum())) for labels, of, exits in rows],
    )
    document.histogram(
        "itrex_sweet_request_duration_seconds",
        "Seconds from the arrival of a request to its answer.",
        [({"model": m.name, "route": route}, histogram) for m in models for route, histogram in m.requests.items()],
    )
    document.counter(
        "itrex_sweet_segments_total", "Runs of segments, by the exit.", each_exit(lambda m: m.segments.tolist())
    )
    document.counter("itrex_sweet_segment_rows_total", "Texts in them.", each_exit(lambda m: m.segment_rows.tolist()))
    document.counter(
        "itrex_sweet_segment_seconds_total", "Seconds of them.", each_exit(lambda m: m.segment_seconds.tolist())
    )
    document.counter(
        "itrex_sweet_degraded_rows_total",
        "Texts answered with lowered quality because of load.",
        [({"model": model.name}, int(model.degraded)) for model in models],
    )
    _add_queues(document, states)
    _add_drift(document, [model for model in models if model.drift is not None])


def _joined(models: list[ObservedModel], name: str) -> Iterator[tuple[dict[str, str], Any]]:
    return (({"model": model.name}, getattr(model, name)) for model in models)


def _add_queues(document: Exposition, states: dict[ObservedModel, Any]) -> None:
    """Adds the state of the schedulers."""
    for name, field, description in (
        ("itrex_sweet_queue_rows", "rows_waiting", "Texts that wait for the segment in front of an exit."),
        ("itrex_sweet_queue_tokens", "tokens_waiting", "Tokens of these texts."),
    ):
        document.gauge(
            name,
            description,
            [
                ({"model": model.name, "exit": str(exit_)}, value)
                for model, state in states.items()
                for exit_, value in zip(model.exits, getattr(state, field), strict=False)
            ],
        )
    document.gauge(
        "itrex_sweet_quality",
        "Quality of the policy of new requests: 1 unless load lowered it.",
        [({"model": model.name}, state.quality) for model, state in states.items()],
    )


def _add_drift(document: Exposition, models: list[ObservedModel]) -> None:
    reports = {model: model.drift.report() for model in models}
    found = {model: report for model, report in reports.items() if report is not None}
    document.gauge(
        "itrex_sweet_drift_rows",
        "Answers compared with the calibration rows.",
        [({"model": model.name}, model.drift.rows) for model in models],
    )
    document.gauge(
        "itrex_sweet_drift_index",
        "Population stability index of the last answers: 0 if they are distributed as the calibration rows.",
        [
            ({"model": model.name, "distribution": name}, getattr(report, name))
            for model, report in found.items()
            for name in ("exits", "labels", "scores")
        ],
    )
    document.gauge(
        "itrex_sweet_drift_ks",
        "Kolmogorov-Smirnov statistic of the scores of the last answers.",
        [({"model": model.name}, report.ks) for model, report in found.items()],
    )
    document.gauge(
        "itrex_sweet_drift_verdict",
        "1 for the verdict on the last answers.",
        [
            ({"model": model.name, "verdict": verdict}, int(report.verdict == verdict))
            for model, report in found.items()
            for verdict in VERDICTS
        ],
    )
