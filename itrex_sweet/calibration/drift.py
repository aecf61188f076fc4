"""Detects drift of live traffic from the calibration rows: exits, labels and scores of the answers."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.drift import MIN_ROWS, Drift, Reference, least_scores, number_sets
from itrex_sweet.errors import ArtifactError, InputError
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task

_NUM_BINS = 10
_MAX_LABEL_SETS = 15  # of multi-label classification that are counted apart; the others are counted together
_MAX_VALUE = 1e300  # of a regression; excludes infinity


def traffic_summary(outcomes: ExitOutcomes, policy: Policy) -> dict[str, Any]:
    """Returns the distribution of a policy's answers in plain JSON types: counts by label, exit and bin of scores.

    Bins are quantiles of the scores. In multi-label classification, `sets` has the most frequent sets of labels, as
    lists of label ids, and the first axis of the counts has one entry per set, and a last one for all other sets. In
    regression that axis has one entry.
    """
    leaving = outcomes.leaving(policy)
    logits = outcomes.logits[np.arange(len(outcomes)), leaving]
    temperatures = np.asarray(policy.temperatures, dtype=np.float32)[leaving]
    task, decisions = outcomes.task, outcomes.answers(policy)
    scores = _scores(task, task.scores(logits, temperatures[:, None]), decisions)
    edges = np.unique(np.quantile(scores.astype(np.float64), np.linspace(0, 1, _NUM_BINS + 1)[1:-1])).round(6)
    sets: list[list[int]] | None = None
    if task.name == MULTI_LABEL:
        sets = _frequent_sets(decisions)
        labels, num_labels = number_sets([np.flatnonzero(row).tolist() for row in decisions], sets), len(sets) + 1
    elif task.name == REGRESSION:
        labels, num_labels = np.zeros(len(outcomes), dtype=np.int64), 1
    else:
        labels, num_labels = decisions, outcomes.logits.shape[2]
    shape = (num_labels, len(outcomes.exits), len(edges) + 1)
    return {
        "exits": list(outcomes.exits),
        "score_edges": edges.tolist(),
        **({} if sets is None else {"sets": sets}),
        "rows": _count(labels, leaving, scores, edges, shape).tolist(),
    }


def _scores(task: Task, scores: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Returns one score per row, (rows,), for scores (rows, labels): see `Drift`."""
    if task.name == REGRESSION:
        return scores[:, 0]
    if task.name == MULTI_LABEL:
        return least_scores(scores, decisions)
    return scores.max(axis=1)


def _frequent_sets(decisions: np.ndarray) -> list[list[int]]:
    """Returns the most frequent sets of labels among (rows, labels) decisions, by descending frequency."""
    sets, counts = np.unique(decisions, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MAX_LABEL_SETS]
    return [np.flatnonzero(sets[place] == 1).tolist() for place in order]


def drift(artifact: Artifact, predictions: Iterable[Mapping[str, Any]]) -> Drift:
    """Compares answers to live traffic with those to the calibration rows, by `Reference.compare`.

    Args:
        artifact: calibrated.
        predictions: of `model.predict` under the stored policy, with `exit_layer`, and `label` and `score`, `labels`
            (multi-label) or `score` (regression); rows with an `error` are skipped.

    Raises:
        ArtifactError: the artifact holds no calibration.
        InputError: too few rows, or rows that are not predictions of this model.
    """
    if isinstance(predictions, (str, bytes, Mapping)) or not isinstance(predictions, Iterable):
        raise InputError(
            f"predictions of type {type(predictions).__name__}, expected the list that model.predict returns."
        )
    summary = artifact.calibration.get("traffic")
    if not summary:
        raise ArtifactError(
            f"{artifact.directory} holds no calibration to compare traffic with; run `itrex-sweet calibrate` first."
        )
    rows = {number: row for number, row in enumerate(predictions) if not _has_error(row)}
    if len(rows) < MIN_ROWS:
        raise InputError(f"{len(rows)} answers are too few to detect drift; at least {MIN_ROWS} are needed.")
    reference = Reference(summary)
    return reference.compare(reference.count(*_parse_predictions(rows, artifact, reference)))


def _count(
    labels: np.ndarray, leaving: np.ndarray, scores: np.ndarray, edges: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Returns counts (labels, exits, bins) int64."""
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (labels, leaving, np.searchsorted(edges, scores)), 1)
    return counts


def _has_error(row: Any) -> bool:
    return isinstance(row, Mapping) and bool(row.get("error"))


def _parse_predictions(
    rows: Mapping[int, Any], artifact: Artifact, reference: Reference
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns label ids (indices of sets in multi-label classification, 0 in regression), indices of exits and scores.

    Args:
        rows: predictions by row number.
        artifact: whose task and labels the predictions have.
        reference: answers to the calibration rows.
    """
    exits, task, names = reference.exits, artifact.task, artifact.label_names
    exit_indices = {value: index for index, value in enumerate(exits)}
    label_ids = {value: index for index, value in enumerate(names)}
    parse, needed = _PARSERS[task.name]
    parsed = []
    for number, row in rows.items():
        found = None
        if isinstance(row, Mapping) and _is_among(row.get("exit_layer"), exit_indices, int):
            found = parse(row, label_ids)
        if found is None:
            fields = needed.format(names=", ".join(names))
            raise InputError(
                f"row {number} is not a prediction of this model: {reprlib.repr(row)}. It needs exit_layer (one of "
                f"{', '.join(map(str, exits))}) and {fields}.",
                (number,),
            )
        parsed.append((*found, exit_indices[row["exit_layer"]]))
    labels, scores, leaving = zip(*parsed, strict=True)
    numbered = number_sets(labels, reference.sets) if task.name == MULTI_LABEL else np.array(labels)
    return numbered, np.array(leaving), np.array(scores, dtype=np.float64)


def _parse_label(row: Mapping[str, Any], label_ids: Mapping[str, int]) -> tuple[int, float] | None:
    """Returns label id and probability; `None` if the row is not a prediction."""
    label, score = row.get("label"), row.get("score")
    return (label_ids[label], score) if _is_among(label, label_ids, str) and _is_number(score, 0.0, 1.0) else None


def _parse_labels(row: Mapping[str, Any], label_ids: Mapping[str, int]) -> tuple[list[int], float] | None:
    """Returns ids of the labels that are on, and the least probability; `None` if the row is not a prediction."""
    labels = row.get("labels")
    if not isinstance(labels, list) or not all(isinstance(each, Mapping) for each in labels):
        return None
    pairs = [_parse_label(each, label_ids) for each in labels]
    if any(pair is None for pair in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        return None
    return [pair[0] for pair in pairs], min((pair[1] for pair in pairs), default=0.0)


def _parse_value(row: Mapping[str, Any], label_ids: Mapping[str, int]) -> tuple[int, float] | None:
    """Returns 0 and the value; `None` if the row is not a prediction."""
    return (0, row["score"]) if "label" not in row and _is_number(row.get("score"), -_MAX_VALUE, _MAX_VALUE) else None


# Parser of one row, and the fields that it needs.
_PARSERS = {
    SINGLE_LABEL: (_parse_label, "label (one of {names}) and score, in [0, 1]"),
    MULTI_LABEL: (_parse_labels, "labels, a list of label (one of {names}) and score, in [0, 1]"),
    REGRESSION: (_parse_value, "score, a finite number, and no label"),
}


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_among(value: Any, known: Mapping[Any, int], kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value in known
