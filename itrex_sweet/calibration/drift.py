"""Whether live traffic still looks like the rows that a policy was calibrated on: where rows leave, what they are
answered, and with what probability."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.config import Policy
from itrex_sweet.criteria import probabilities
from itrex_sweet.errors import ArtifactError, InputError
from itrex_sweet.evaluation.outcomes import ExitOutcomes

MIN_ROWS = 200
WATCH, RECALIBRATE = 0.1, 0.25  # population stability index, the thresholds of credit scoring (Siddiqi 2006)
_BINS = 10
_NOISE = 3.09  # standard normal quantile of 99.9 %: what chance alone may reach


@dataclass(frozen=True)
class Drift:
    """Live traffic beside the calibration rows.

    Args:
        rows: compared.
        exits, labels, scores: population stability index of where rows leave, of the labels they get, and of the
            probabilities of those: 0 where both are spread alike.
        ks: greatest distance between the distributions of the probabilities (Kolmogorov–Smirnov), at the stored bins.
        ks_p_value: chance of as great a distance between rows that are spread alike.
        verdict: `"stable"`, `"watch"` or `"recalibrate"`.
        why: what moved, in words; empty where nothing did.
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
        """Plain JSON types."""
        return asdict(self)


def traffic_summary(outcomes: ExitOutcomes, policy: Policy) -> dict[str, Any]:
    """How a policy's answers are spread, in plain JSON types: rows by label, exit, and bin of the probability.

    Bins hold as many of these rows each, as far as probabilities differ.
    """
    leaving, labels = outcomes.leaving(policy), outcomes.answers(policy)
    logits = outcomes.logits[np.arange(len(outcomes)), leaving]
    temperatures = np.asarray(policy.temperatures, dtype=np.float32)[leaving]
    scores = probabilities(logits, temperatures[:, None]).max(axis=1)
    edges = np.unique(np.quantile(scores.astype(np.float64), np.linspace(0, 1, _BINS + 1)[1:-1])).round(6)
    shape = (outcomes.logits.shape[2], len(outcomes.exits), len(edges) + 1)
    return {
        "exits": list(outcomes.exits),
        "score_edges": edges.tolist(),
        "rows": _counted(labels, leaving, scores, edges, shape).tolist(),
    }


def drift(artifact: Artifact, predictions: Iterable[Mapping[str, Any]]) -> Drift:
    """Compares answers to live traffic with those to the rows that the artifact was calibrated on.

    An index is said to have moved where it is beyond the usual threshold and beyond what chance reaches once in a
    thousand (its distribution under no change: Yurdakul 2018).

    Args:
        artifact: calibrated.
        predictions: what `model.predict` gave under the stored policy, with `label`, `score` and `exit_layer`; rows
            with an `error` are left out.

    Raises:
        ArtifactError: the artifact holds no calibration to compare with.
        InputError: too few rows, or ones that are no answers of this model.
    """
    if isinstance(predictions, (str, bytes, Mapping)) or not isinstance(predictions, Iterable):
        raise InputError(f"predictions of type {type(predictions).__name__}: a list of what model.predict gave.")
    reference = artifact.calibration.get("traffic")
    if not reference:
        raise ArtifactError(
            f"{artifact.directory} holds no calibration to compare traffic with: itrex-sweet calibrate writes one."
        )
    rows = {number: row for number, row in enumerate(predictions) if not _has_error(row)}
    if len(rows) < MIN_ROWS:
        raise InputError(f"{len(rows)} answers say little about traffic: gather at least {MIN_ROWS}.")
    before = np.asarray(reference["rows"], dtype=np.float64)
    edges = np.asarray(reference["score_edges"], dtype=np.float64)
    labels, leaving, scores = _read(rows, artifact.label_names, reference["exits"])
    now = _counted(labels, leaving, scores, edges, before.shape)
    indices, moved, verdict = {}, [], "stable"
    for name, axis in (("exits", 1), ("labels", 0), ("scores", 2)):
        index, noise = _stability(before, now, axis)
        indices[name] = round(index, 4)
        if index > max(WATCH, noise):
            moved.append(f"{name} moved (index {index:.2f})")
            verdict = "recalibrate" if index > RECALIBRATE or verdict == "recalibrate" else "watch"
    ks, p_value = _kolmogorov_smirnov(before.sum(axis=(0, 1)), now.sum(axis=(0, 1)))
    return Drift(len(rows), **indices, ks=round(ks, 4), ks_p_value=p_value, verdict=verdict, why="; ".join(moved))


def _counted(
    labels: np.ndarray, leaving: np.ndarray, scores: np.ndarray, edges: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """(labels, exits, bins) int64."""
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (labels, leaving, np.searchsorted(edges, scores)), 1)
    return counts


def _has_error(row: Any) -> bool:
    return isinstance(row, Mapping) and bool(row.get("error"))


def _read(
    rows: Mapping[int, Any], label_names: Sequence[str], exits: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label ids, places of exits and probabilities of answers.

    Args:
        rows: answers by their number among all that were given.
    """
    label_ids, places = ({value: place for place, value in enumerate(known)} for known in (label_names, exits))
    for number, row in rows.items():
        if not (
            isinstance(row, Mapping)
            and _is_among(row.get("label"), label_ids, str)
            and _is_among(row.get("exit_layer"), places, int)
            and isinstance(row.get("score"), (int, float))
            and not isinstance(row["score"], bool)
            and 0.0 <= row["score"] <= 1.0
        ):
            raise InputError(
                f"row {number} is no answer of this model: {reprlib.repr(row)}. Needed are label (of "
                f"{', '.join(label_names)}), exit_layer (of {', '.join(map(str, exits))}) and score, in [0, 1].",
                (number,),
            )
    return (
        np.array([label_ids[row["label"]] for row in rows.values()]),
        np.array([places[row["exit_layer"]] for row in rows.values()]),
        np.array([row["score"] for row in rows.values()], dtype=np.float64),
    )


def _is_among(value: Any, known: Mapping[Any, int], kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value in known


def _stability(before: np.ndarray, now: np.ndarray, axis: int) -> tuple[float, float]:
    """The population stability index along an axis, half a row added to each cell, and what chance may reach."""
    others = tuple(other for other in range(before.ndim) if other != axis)
    old, new = before.sum(axis=others) + 0.5, now.sum(axis=others) + 0.5
    sizes = old.sum(), new.sum()
    old, new = old / sizes[0], new / sizes[1]
    free = max(len(old) - 1, 1)
    # Chi-squared quantile by Wilson and Hilferty 1931.
    quantile = free * (1 - 2 / (9 * free) + _NOISE * math.sqrt(2 / (9 * free))) ** 3
    return float(((new - old) * np.log(new / old)).sum()), quantile * (1 / sizes[0] + 1 / sizes[1])


def _kolmogorov_smirnov(before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Distance of two binned distributions and its p-value, asymptotic; of bins it is an upper bound."""
    distance = float(np.abs(np.cumsum(before) / before.sum() - np.cumsum(now) / now.sum()).max())
    size = before.sum() * now.sum() / (before.sum() + now.sum())
    scaled = (math.sqrt(size) + 0.12 + 0.11 / math.sqrt(size)) * distance
    if scaled < 0.2:
        return distance, 1.0
    series = sum((-1) ** (place - 1) * math.exp(-2 * place**2 * scaled**2) for place in range(1, 101))
    return distance, float(min(max(2 * series, 0.0), 1.0))
