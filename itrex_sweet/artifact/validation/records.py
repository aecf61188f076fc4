"""Validates the records of calibration, costs, quantization and provenance."""

from __future__ import annotations

from collections.abc import Sequence

from itrex_sweet.artifact.layout import FLOAT32, INT8
from itrex_sweet.artifact.validation.values import Value

MAX_ROWS = 1 << 53


def check_records(settings: Value, exits: Sequence[int]) -> None:
    """Checks the fields of the records that this package uses; other fields may have any value.

    Raises:
        ArtifactError: a record is null or has another form.
    """
    for name, check in (
        ("provenance", _check_provenance),
        ("quantization", _check_quantization),
        ("calibration", _check_calibration),
        ("costs", _check_costs),
    ):
        part = settings.get(name)
        if part is not None and part.mapping():
            check(part, exits)


def _check_provenance(provenance: Value, exits: Sequence[int]) -> None:
    if (versions := provenance.get("versions")) is not None:
        versions.mapping()


def _check_quantization(quantization: Value, exits: Sequence[int]) -> None:
    if (recipe := quantization.get("recipe")) is not None:
        recipe.string()
    if (embeddings := quantization.get("embeddings")) is not None:
        embeddings.one_of((FLOAT32, INT8))


def _check_calibration(calibration: Value, exits: Sequence[int]) -> None:
    for name in ("backend", "precision"):
        if (value := calibration.non_null(name)) is not None:
            value.string()
    for candidate in [] if (part := calibration.non_null("candidates")) is None else part.items():
        candidate["mean_layers"].number(0.0)
        if (milliseconds := candidate.non_null("milliseconds")) is not None:
            milliseconds.number(0.0)
        for threshold in candidate["thresholds"].items(len(exits) - 1):
            threshold.number(0.0, 1.0)
    if (budget := calibration.non_null("budget")) is not None:
        for name, value in budget.fields():
            if name == "confidence" or (name.startswith("max_") and value.value is not None):
                value.number(0.0)
    if (against := calibration.non_null("against")) is not None and against.mapping():
        for name in ("name", "kind", "sha256"):
            against[name].string()
        if (score := against.non_null("score")) is not None:
            score.number()
    for label in [] if (part := calibration.non_null("labels")) is None else part.items():
        label["label"].string()
        label["agreeing"].integer(0, label["rows"].integer(0, MAX_ROWS))
    if (traffic := calibration.non_null("traffic")) is not None and traffic.mapping():
        _check_traffic(traffic, exits)


def _check_traffic(traffic: Value, exits: Sequence[int]) -> None:
    """Checks the counts of rows by label, exit and probability bin."""
    if tuple(traffic["exits"].items(len(exits))[place].value for place in range(len(exits))) != tuple(exits):
        traffic["exits"].refuse(f"the exits are {list(exits)}")
    labels = traffic["rows"].items()
    of_values = len(labels) == 1  # of a regression, whose scores are values
    edges = [edge.number() if of_values else edge.number(0.0, 1.0) for edge in traffic["score_edges"].items()]
    if edges != sorted(edges):
        traffic["score_edges"].refuse("rising edges are needed")
    if (sets := traffic.non_null("sets")) is not None:
        for each in sets.items(len(labels) - 1):
            for label in each.items():
                label.integer(0, MAX_ROWS)
    total = 0
    for label in labels:
        for exit_ in label.items(len(exits)):
            total += sum(count.integer(0, MAX_ROWS) for count in exit_.items(len(edges) + 1))
    if not total:
        traffic["rows"].refuse("at least one row is needed")


def _check_costs(costs: Value, exits: Sequence[int]) -> None:
    costs["processor"].string()
    costs["threads"].integer(1, 1 << 16)
    axes = []
    for name in ("batch_sizes", "lengths"):
        values = [part.integer(1, 1 << 31) for part in costs[name].items()]
        if not values or values != sorted(set(values)):
            costs[name].refuse("rising numbers are needed")
        axes.append(len(values))
    batch_sizes, lengths = axes
    for table in costs["through"].items(len(exits)):
        _check_table(table, batch_sizes, lengths)
    _check_table(costs["probe"], batch_sizes, lengths)
    for row in costs["on_real_rows"].items(batch_sizes):
        for value in row.items(2):
            value.number()


def _check_table(table: Value, batch_sizes: int, lengths: int) -> None:
    """Checks a table of milliseconds, (batch sizes, lengths)."""
    for row in table.items(batch_sizes):
        for value in row.items(lengths):
            value.number(0.0)
