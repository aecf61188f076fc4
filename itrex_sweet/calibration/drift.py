"""Detects drift of live traffic from the calibration rows: exits, labels and probabilities of the answers."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ArtifactError, ConfigError, InputError
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.policy import Policy
from itrex_sweet.probabilities import softmax
from itrex_sweet.tasks import SINGLE_LABEL

MIN_ROWS = 200
WATCH, RECALIBRATE = 0.1, 0.25  # population stability index, the usual thresholds (Siddiqi 2006)
_NUM_BINS = 10
_NORMAL_QUANTILE = 3.09  # of 99.9 %


@dataclass(frozen=True)
class Drift:
    """Differences between the answers to live traffic and to the calibration rows.

    Args:
        rows: number of answers compared.
        exits, labels, scores: population stability index of the exits at which rows leave, of the labels and of their
            probabilities: 0 if the distributions are equal.
        ks: Kolmogorov–Smirnov statistic of the probabilities, at the stored bins.
        ks_p_value: probability of a statistic at least as large without drift.
        verdict: `"stable"`, `"watch"` or `"recalibrate"`.
        why: the distributions that changed; empty if none did.
    """

    rows: int
    exits: float
    labels: float
    scores: float
    ks: float
    ks_p_value: float
    verdict: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return asdict(self)


def traffic_summary(outcomes: ExitOutcomes, policy: Policy) -> dict[str, Any]:
    """Returns the distribution of a policy's answers in plain JSON types: counts by label, exit and probability bin.

    Bins are quantiles of the probabilities.
    """
    leaving, labels = outcomes.leaving(policy), outcomes.answers(policy)
    logits = outcomes.logits[np.arange(len(outcomes)), leaving]
    temperatures = np.asarray(policy.temperatures, dtype=np.float32)[leaving]
    scores = softmax(logits, temperatures[:, None]).max(axis=1)
    edges = np.unique(np.quantile(scores.astype(np.float64), np.linspace(0, 1, _NUM_BINS + 1)[1:-1])).round(6)
    shape = (outcomes.logits.shape[2], len(outcomes.exits), len(edges) + 1)
    return {
        "exits": list(outcomes.exits),
        "score_edges": edges.tolist(),
        "rows": _count(labels, leaving, scores, edges, shape).tolist(),
    }


def drift(artifact: Artifact, predictions: Iterable[Mapping[str, Any]]) -> Drift:
    """Compares answers to live traffic with those to the calibration rows.

    An index is reported as changed if it exceeds the usual threshold and the 99.9 % quantile of its distribution
    without drift (Yurdakul 2018).

    Args:
        artifact: calibrated.
        predictions: of `model.predict` under the stored policy, with `label`, `score` and `exit_layer`; rows with an
            `error` are skipped.

    Raises:
        ArtifactError: the artifact holds no calibration.
        ConfigError: a multi-label or regression model.
        InputError: too few rows, or rows that are not predictions of this model.
    """
    if isinstance(predictions, (str, bytes, Mapping)) or not isinstance(predictions, Iterable):
        raise InputError(
            f"predictions of type {type(predictions).__name__}, expected the list that model.predict returns."
        )
    if artifact.task.name != SINGLE_LABEL:
        raise ConfigError(f"drift is measured for single-label classifiers, and this model is {artifact.task.name}.")
    reference = artifact.calibration.get("traffic")
    if not reference:
        raise ArtifactError(
            f"{artifact.directory} holds no calibration to compare traffic with; run `itrex-sweet calibrate` first."
        )
    rows = {number: row for number, row in enumerate(predictions) if not _has_error(row)}
    if len(rows) < MIN_ROWS:
        raise InputError(f"{len(rows)} answers are too few to detect drift; at least {MIN_ROWS} are needed.")
    reference_counts = np.asarray(reference["rows"], dtype=np.float64)
    edges = np.asarray(reference["score_edges"], dtype=np.float64)
    labels, leaving, scores = _parse_predictions(rows, artifact.label_names, reference["exits"])
    counts = _count(labels, leaving, scores, edges, reference_counts.shape)
    indices, changes, verdict = {}, [], "stable"
    for name, axis in (("exits", 1), ("labels", 0), ("scores", 2)):
        index, noise = _population_stability(reference_counts, counts, axis)
        indices[name] = round(index, 4)
        if index > max(WATCH, noise):
            changes.append(f"{name} changed (index {index:.2f})")
            verdict = "recalibrate" if index > RECALIBRATE or verdict == "recalibrate" else "watch"
    ks, p_value = _kolmogorov_smirnov(reference_counts.sum(axis=(0, 1)), counts.sum(axis=(0, 1)))
    return Drift(len(rows), **indices, ks=round(ks, 4), ks_p_value=p_value, verdict=verdict, why="; ".join(changes))


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
    rows: Mapping[int, Any], label_names: Sequence[str], exits: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns label ids, indices of exits and probabilities of predictions.

    Args:
        rows: predictions by row number.
    """
    label_ids, exit_indices = ({value: index for index, value in enumerate(values)} for values in (label_names, exits))
    for number, row in rows.items():
        if not (
            isinstance(row, Mapping)
            and _is_among(row.get("label"), label_ids, str)
            and _is_among(row.get("exit_layer"), exit_indices, int)
            and isinstance(row.get("score"), (int, float))
            and not isinstance(row["score"], bool)
            and 0.0 <= row["score"] <= 1.0
        ):
            raise InputError(
                f"row {number} is not a prediction of this model: {reprlib.repr(row)}. It needs label (one of "
                f"{', '.join(label_names)}), exit_layer (one of {', '.join(map(str, exits))}) and score, in [0, 1].",
                (number,),
            )
    return (
        np.array([label_ids[row["label"]] for row in rows.values()]),
        np.array([exit_indices[row["exit_layer"]] for row in rows.values()]),
        np.array([row["score"] for row in rows.values()], dtype=np.float64),
    )


def _is_among(value: Any, known: Mapping[Any, int], kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value in known


def _population_stability(reference: np.ndarray, counts: np.ndarray, axis: int) -> tuple[float, float]:
    """Returns the population stability index along an axis and its 99.9 % quantile without drift.

    Half a row is added to each cell.
    """
    others = tuple(other for other in range(reference.ndim) if other != axis)
    old, new = reference.sum(axis=others) + 0.5, counts.sum(axis=others) + 0.5
    sizes = old.sum(), new.sum()
    old, new = old / sizes[0], new / sizes[1]
    freedom = max(len(old) - 1, 1)
    # Chi-squared quantile by Wilson and Hilferty 1931.
    quantile = freedom * (1 - 2 / (9 * freedom) + _NORMAL_QUANTILE * math.sqrt(2 / (9 * freedom))) ** 3
    return float(((new - old) * np.log(new / old)).sum()), quantile * (1 / sizes[0] + 1 / sizes[1])


def _kolmogorov_smirnov(reference: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Returns the statistic of two binned distributions and its asymptotic p-value, an upper bound because of bins."""
    distance = float(np.abs(np.cumsum(reference) / reference.sum() - np.cumsum(counts) / counts.sum()).max())
    size = reference.sum() * counts.sum() / (reference.sum() + counts.sum())
    scaled = (math.sqrt(size) + 0.12 + 0.11 / math.sqrt(size)) * distance
    if scaled < 0.2:
        return distance, 1.0
    series = sum((-1) ** (term - 1) * math.exp(-2 * term**2 * scaled**2) for term in range(1, 101))
    return distance, float(min(max(2 * series, 0.0), 1.0))
