"""The output of a call with token ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import SequenceClassifierOutput


@dataclass
class SweetClassifierOutput(SequenceClassifierOutput):
    """`SequenceClassifierOutput` with the exit of each row.

    Args:
        logits: (rows, labels) float32 of the exit that answered, divided by its temperature unless asked for raw, so
            that their softmax, or logistic function, is the `score` of `predict`.
        loss: mean loss of these logits, if labels are given: cross-entropy, binary cross-entropy or squared error.
        exit_layer: (rows,) int64, the exit that answered, as a number of layers.
        confidence: (rows,) float32, by the policy's criterion.
        out_of_time: (rows,) bool, true if the deadline passed before the row could leave; `None` without a deadline.
        stopped_by: (rows,) of str, as in `predict`.
    """

    exit_layer: torch.LongTensor | None = None
    confidence: torch.FloatTensor | None = None
    out_of_time: torch.BoolTensor | None = None
    stopped_by: list[str] | None = None
