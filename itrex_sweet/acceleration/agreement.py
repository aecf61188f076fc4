"""Agreement of a model's exits with its predictions at full depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.association import MIN_ASSOCIATION, association, has_learned
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
        associations: per exit, how strongly its outputs depend on the scores of full depth, see
            `itrex_sweet.association`.
    """

    exits: tuple[int, ...]
    shares: tuple[float, ...]
    majority: float
    num_labels: int
    rows: int
    associations: tuple[float, ...]

    @property
    def others(self) -> int:
        """Number of rows with another answer at full depth than the most frequent one."""
        return self.rows - round(self.majority * self.rows)

    def useful_exits(self) -> tuple[int, ...]:
        """Returns the last exit and those that have learned something, or cannot be judged by these rows.

        An exit may be useful although it agrees no more often than the most frequent label does: where that label is
        very frequent, the exit is useful if it is certain of a part of the texts.
        """
        return (*(exit_ for exit_, learned in self._early() if learned is not False), self.exits[-1])

    def unjudged_exits(self) -> tuple[int, ...]:
        """Returns the exits that too few rows judge; see `association.has_learned`."""
        return tuple(exit_ for exit_, learned in self._early() if learned is None)

    def _early(self) -> list[tuple[int, bool | None]]:
        early = zip(self.exits[:-1], self.associations, strict=False)
        return [(exit_, has_learned(value, self.others)) for exit_, value in early]

    def describe(self, exits: Sequence[int]) -> str:
        """Returns a description of some exits that are not useful."""
        places = [self.exits.index(exit_) for exit_ in exits]
        shares = ", ".join(f"{100 * self.shares[place]:.1f}" for place in places)
        values = ", ".join(f"{self.associations[place]:.1f}" for place in places)
        return (
            f"on {self.rows} texts, the outputs depend on the text no more than chance explains (association {values}; "
            f"above {MIN_ASSOCIATION:g} is needed); {shares} % of the labels agree with full depth, and its most "
            f"frequent label does with {100 * self.majority:.1f} %"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types."""
        shares = {str(exit_): round(share, 4) for exit_, share in zip(self.exits, self.shares, strict=True)}
        values = {str(exit_): round(one, 2) for exit_, one in zip(self.exits, self.associations, strict=True)}
        facts = {"rows": self.rows, "most_frequent_answer": round(self.majority, 4)}
        return {**facts, **shares, "association": values}


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
            of_exits = [attachment.exit_logits[exit_] for exit_ in attachment.exits]
            predictions.append(torch.stack(of_exits, dim=1).float().cpu().numpy())
    logits = np.concatenate(predictions)  # (rows, exits, labels)
    decisions, targets = attachment.task.decisions(logits), attachment.task.scores(logits[:, -1])
    associations = tuple(association(logits[:, place], targets) for place in range(len(attachment.exits)))
    if attachment.task.name == REGRESSION:
        return _agreements_of_values(attachment.exits, decisions, associations)
    if attachment.task.name == MULTI_LABEL:  # numbers the sets of labels
        flat = decisions.reshape(-1, decisions.shape[-1])
        decisions = np.unique(flat, axis=0, return_inverse=True)[1].reshape(decisions.shape[:2])
    full = decisions[:, -1:]
    counts = np.unique(full, return_counts=True)[1]
    shares = tuple((decisions == full).mean(axis=0).tolist())
    return Agreements(attachment.exits, shares, float(counts.max() / len(full)), len(counts), len(full), associations)


def _agreements_of_values(exits: tuple[int, ...], values: np.ndarray, associations: tuple[float, ...]) -> Agreements:
    """Returns the agreement of values (rows, exits) within a tolerance relative to their spread."""
    from itrex_sweet.training.default_threshold import VALUE_TOLERANCE

    full = values[:, -1:]
    tolerance = VALUE_TOLERANCE * float(full.std())
    shares = tuple((np.abs(values - full) <= tolerance).mean(axis=0).tolist())
    majority = float((np.abs(full - np.median(full)) <= tolerance).mean())
    return Agreements(exits, shares, majority, len(np.unique(full)), len(full), associations)
