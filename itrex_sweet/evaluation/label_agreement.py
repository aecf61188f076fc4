"""Agreement of answers with those of another model, label by label.

An agreement of 99 % in all says nothing of a label of 1 % of the rows: each of its rows may have got another label.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.evaluation.tables import percent
from itrex_sweet.probabilities import binomial_cdf
from itrex_sweet.tasks import REGRESSION, SINGLE_LABEL, Task
from itrex_sweet.warning_once import is_first

logger = logging.getLogger(__name__)

_LEAST_LOSS = 0.05  # share of a label's rows that may be lost without a warning, whatever the other labels lose
_TIMES_OTHERS = 3.0  # as often as other rows a label's rows may be lost without a warning
_DELTA = 0.05
_MAX_DESCRIBED = 10
MAX_SHOWN = 20


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement on the rows to which the compared model gives one label.

    Args:
        label: its name.
        rows: number of these rows.
        agreeing: number of these that get the label here too.
    """

    label: str
    rows: int
    agreeing: int

    @property
    def share(self) -> float | None:
        """Share of the rows that get the label here too; `None` without rows."""
        return self.agreeing / self.rows if self.rows else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {"label": self.label, "rows": self.rows, "agreeing": self.agreeing, "agreement": self.share}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelAgreement:
        """Creates it from the output of `to_dict`."""
        return cls(values["label"], values["rows"], values["agreeing"])


def label_agreements(
    task: Task, answers: np.ndarray, compared: np.ndarray, label_names: Sequence[str]
) -> tuple[LabelAgreement, ...]:
    """Returns the agreement on each label, in the order of ids; nothing for a regression.

    Args:
        answers: as `Task.decisions`, (rows,) or (rows, labels).
        compared: those of the other model.
    """
    if task.name == REGRESSION:
        return ()
    if task.name == SINGLE_LABEL:
        ids = np.arange(len(label_names))
        answers, compared = answers[:, None] == ids, compared[:, None] == ids
    rows, agreeing = (compared == 1).sum(axis=0), ((compared == 1) & (answers == 1)).sum(axis=0)
    counts = zip(label_names, rows.tolist(), agreeing.tolist(), strict=True)
    return tuple(LabelAgreement(*each) for each in counts)


def lost_labels(agreements: Sequence[LabelAgreement]) -> tuple[LabelAgreement, ...]:
    """Returns the labels whose rows are lost far more often than those of the other labels.

    A label is returned if an exact binomial test rejects that it loses at most 5 % of its rows, or three times the
    share that the other labels lose, whichever is greater. The level is 5 % for all labels together (Bonferroni), so
    that few rows are enough only where most of them are lost.
    """
    tested = [each for each in agreements if each.rows]
    rows, agreeing = sum(each.rows for each in tested), sum(each.agreeing for each in tested)
    found = []
    for each in tested:
        others = rows - each.rows
        lost = (others - (agreeing - each.agreeing)) / others if others else 0.0
        limit = max(_LEAST_LOSS, _TIMES_OTHERS * lost)
        if limit < 1.0 and binomial_cdf(each.agreeing, each.rows, 1.0 - limit) <= _DELTA / len(tested):
            found.append(each)
    return tuple(found)


def warn_of_lost_labels(name: str, agreements: Sequence[LabelAgreement], compared: str = "full depth") -> None:
    """Warns of the labels that `lost_labels` returns.

    Args:
        name: of the model.
        agreements: of its policy.
        compared: the model that gives the labels.
    """
    lost = [each for each in lost_labels(agreements) if is_first(f"lost label {each.label}")]
    if lost:
        logger.warning(
            "%s: early exit changes far more answers of some labels of %s than of others: %s. Calibrate with a smaller "
            "drop (such as --max-agreement-drop), with more texts of these labels, or with labels and a metric that "
            "counts rare labels.",
            name,
            compared,
            describe_lost(lost),
        )


def describe_lost(lost: Sequence[LabelAgreement]) -> str:
    """Returns the labels and their counts as text, such as `urgent on 38 of 40 texts`."""
    parts = [f"{each.label} on {each.rows - each.agreeing} of {each.rows} texts" for each in lost[:_MAX_DESCRIBED]]
    more = f", and {len(lost) - _MAX_DESCRIBED} more labels" if len(lost) > _MAX_DESCRIBED else ""
    return f"{', '.join(parts)}{more}"


def label_cells(agreements: Sequence[LabelAgreement]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and rows of a table: the labels with the lowest agreement first, at most `MAX_SHOWN`."""
    shown = sorted((each for each in agreements if each.rows), key=lambda each: (each.share, -each.rows))[:MAX_SHOWN]
    return ["label", "rows", "agreement"], [[each.label, str(each.rows), percent(each.share)] for each in shown]
