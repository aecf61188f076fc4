"""The rows of a task by purpose: training, quantization, choice of the policy, and reporting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paper.run import TRAINED, training_rows
from record import read_task

TASKS = {"sst2": "SST-2", "ag_news": "AG News", "cola": "CoLA", "rte": "RTE", "qnli": "QNLI", "mnli": "MNLI"}
QUANTIZED, COMPARED, CHOSEN = 200, 500, 6000  # rows at most
SMALL = 2000  # a smaller pool has no rows to compare INT8 recipes with; they are compared with those of the ranges

Texts = list[Any]


@dataclass(frozen=True)
class TaskRows:
    """Rows of a task; no row has two purposes, except that RTE has few and chooses on all that are left.

    Args:
        training: of the plain model and of every other model that is trained here.
        quantization: ranges of INT8 inputs, for all engines.
        compared: to choose the INT8 recipe.
        choice: of the policy.
        reported: validation rows.
    """

    training: tuple[Texts, list[int]]
    quantization: tuple[Texts, list[int]]
    compared: tuple[Texts, list[int]]
    choice: tuple[Texts, list[int]]
    reported: tuple[Texts, list[int]]


def rows_of(task: str) -> TaskRows:
    """Reads the rows of a task.

    Raises:
        SystemExit: the research data is missing.
    """
    training, pool = training_rows(task, TRAINED)
    try:
        texts, labels = read_task(task, "train_20k")
        pool = texts[TRAINED:], labels[TRAINED:]
    except SystemExit:  # a small task: the pool is what training left
        pass
    reported = read_task(task, "validation")
    first = QUANTIZED + (COMPARED if len(pool[0]) >= SMALL else 0)  # of the choice
    # texts that occur in several splits are left out of the choice
    known = {repr(text) for text in (*training[0], *reported[0], *pool[0][:first])}
    free = [place for place in range(first, len(pool[0])) if repr(pool[0][place]) not in known][:CHOSEN]
    return TaskRows(
        training,
        (pool[0][:QUANTIZED], pool[1][:QUANTIZED]),
        (pool[0][QUANTIZED:first], pool[1][QUANTIZED:first]),
        ([pool[0][place] for place in free], [pool[1][place] for place in free]),
        reported,
    )
