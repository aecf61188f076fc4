"""Agreement of exits in training with their model at full depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.evaluation.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Agreements:
    """Answers of every exit beside those at full depth, on some rows.

    Args:
        exits: counts of layers, the last the full depth.
        shares: per exit, share of the rows that it gives the label of full depth.
        majority: share of the rows that get the most frequent label at full depth.
        answers: different labels that full depth gives.
        rows: compared.
    """

    exits: tuple[int, ...]
    shares: tuple[float, ...]
    majority: float
    answers: int
    rows: int

    def learned(self) -> tuple[int, ...]:
        """The exits that agree better than always giving the most frequent label, by more than two standard errors of a
        share, sqrt(p (1 - p) / rows); the last among them."""
        margin = 2.0 * math.sqrt(self.majority * (1.0 - self.majority) / max(self.rows, 1))
        early = zip(self.exits[:-1], self.shares, strict=False)
        return (*(exit_ for exit_, share in early if share > self.majority + margin), self.exits[-1])

    def figures(self, exits: Sequence[int]) -> str:
        """The shares of some exits, in words."""
        by_exit = dict(zip(self.exits, self.shares, strict=True))
        shares = ", ".join(f"{100 * by_exit[exit_]:.1f}" for exit_ in exits)
        return (
            f"{shares} % of {self.rows} texts get the label that full depth gives, and always giving its most frequent "
            f"one has {100 * self.majority:.1f} %"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        shares = {str(exit_): round(share, 4) for exit_, share in zip(self.exits, self.shares, strict=True)}
        return {"rows": self.rows, "most_frequent_answer": round(self.majority, 4), **shares}


def agreements_with_full_depth(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[dict[str, Any]], batch_size: int
) -> Agreements:
    """Runs a model with exits attached on tokenized examples."""
    import torch

    from itrex_sweet.training import attachment_of

    attachment = attachment_of(model)
    device = next(model.parameters()).device
    model.eval()
    order = sorted(range(len(examples)), key=lambda row: len(examples[row]["input_ids"]))
    said = []
    with torch.no_grad():
        for start in progress(range(0, len(order), batch_size), "judging exits", unit="batch"):
            rows = [examples[row] for row in order[start : start + batch_size]]
            model(**tokenizer.pad(rows, return_tensors="pt").to(device))
            logits = [attachment.exit_logits[exit_] for exit_ in attachment.exits]
            said.append(torch.stack([each.argmax(dim=1) for each in logits], dim=1).cpu().numpy())
    answers = np.concatenate(said)
    full = answers[:, -1:]
    counts = np.unique(full, return_counts=True)[1]
    shares = tuple((answers == full).mean(axis=0).tolist())
    return Agreements(attachment.exits, shares, float(counts.max() / len(full)), len(counts), len(full))
