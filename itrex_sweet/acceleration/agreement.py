"""Agreement of a model's exits with its predictions at full depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.evaluation.progress import progress
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Agreements:
    """The agreement of every exit with full depth on a number of rows.

    Args:
        exits: counts of layers, the last the full depth.
        shares: per exit, share of the rows with the label, or the set of labels, of full depth; in regression, with a
            value that differs by at most `VALUE_TOLERANCE` standard deviations.
        majority: share of the most frequent label or set at full depth; in regression, share of the rows whose value is
            that near to the median.
        num_labels: number of different labels, sets or values at full depth.
        rows: number of rows.
    """

    exits: tuple[int, ...]
    shares: tuple[float, ...]
    majority: float
    num_labels: int
    rows: int

    def useful_exits(self) -> tuple[int, ...]:
        """Returns the last exit and those that agree better than the most frequent label does, by more than two
        standard errors of a proportion, sqrt(p (1 - p) / rows).
        """
        margin = 2.0 * math.sqrt(self.majority * (1.0 - self.majority) / max(self.rows, 1))
        early = zip(self.exits[:-1], self.shares, strict=False)
        return (*(exit_ for exit_, share in early if share > self.majority + margin), self.exits[-1])

    def describe(self, exits: Sequence[int]) -> str:
        """Returns a sentence with the agreement of some exits."""
        by_exit = dict(zip(self.exits, self.shares, strict=True))
        shares = ", ".join(f"{100 * by_exit[exit_]:.1f}" for exit_ in exits)
        return (
            f"{shares} % of {self.rows} texts get the label of full depth, and always predicting its most frequent "
            f"label has {100 * self.majority:.1f} %"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types."""
        shares = {str(exit_): round(share, 4) for exit_, share in zip(self.exits, self.shares, strict=True)}
        return {"rows": self.rows, "most_frequent_answer": round(self.majority, 4), **shares}


def agreements_with_full_depth(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[dict[str, Any]], batch_size: int
) -> Agreements:
    """Computes the agreement of a model with attached exits on tokenized examples."""
    import torch

    from itrex_sweet.training import attachment_of

    attachment = attachment_of(model)
    device = next(model.parameters()).device
    model.eval()
    order = sorted(range(len(examples)), key=lambda row: len(examples[row]["input_ids"]))
    predictions = []
    with torch.no_grad():
        for start in progress(range(0, len(order), batch_size), "evaluating exits", unit="batch"):
            rows = [examples[row] for row in order[start : start + batch_size]]
            model(**tokenizer.pad(rows, return_tensors="pt").to(device))
            logits = [attachment.exit_logits[exit_] for exit_ in attachment.exits]
            predictions.append(torch.stack(logits, dim=1).float().cpu().numpy())
    decisions = attachment.task.decisions(np.concatenate(predictions))
    if attachment.task.name == REGRESSION:
        return _agreements_of_values(attachment.exits, decisions)
    if attachment.task.name == MULTI_LABEL:  # numbers the sets of labels
        flat = decisions.reshape(-1, decisions.shape[-1])
        decisions = np.unique(flat, axis=0, return_inverse=True)[1].reshape(decisions.shape[:2])
    labels, full = decisions, decisions[:, -1:]
    counts = np.unique(full, return_counts=True)[1]
    shares = tuple((labels == full).mean(axis=0).tolist())
    return Agreements(attachment.exits, shares, float(counts.max() / len(full)), len(counts), len(full))


def _agreements_of_values(exits: tuple[int, ...], values: np.ndarray) -> Agreements:
    """Returns the agreement of values (rows, exits) within a tolerance relative to their spread."""
    from itrex_sweet.training.default_threshold import VALUE_TOLERANCE

    full = values[:, -1:]
    tolerance = VALUE_TOLERANCE * float(full.std())
    shares = tuple((np.abs(values - full) <= tolerance).mean(axis=0).tolist())
    majority = float((np.abs(full - np.median(full)) <= tolerance).mean())
    return Agreements(exits, shares, majority, len(np.unique(full)), len(full))
