"""Scores of tokens: the effect of a token's removal by its gradient, and a small network distilled from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from token_dropping.forward import Forward
from token_dropping.schedules import ATTENTION

if TYPE_CHECKING:
    from token_dropping.dropping import Batch

_EPOCHS = 8
_HIDDEN = 64


def removal_effects(model: Forward, layer: int, states: Tensor) -> Tensor:
    """Returns the size of the first-order effect of each token's removal before a layer on the margin of the last
    exit's answer over the other labels, (rows, tokens).
    """
    with torch.inference_mode(False), torch.enable_grad():
        states = states.clone()
        weights = torch.ones(states.shape[:2], requires_grad=True)
        for number in range(layer, model.depth):
            states = model.layer(number, states, weights)[0]
        logits, _ = model.probe(model.depth, states, weights)
        best = logits.argmax(-1, keepdim=True)
        others = logits.scatter(1, best, -torch.inf).logsumexp(-1)
        (effects,) = torch.autograd.grad((logits.gather(1, best)[:, 0] - others).sum(), weights)
    return effects.abs()


class Scorer(nn.Module):
    """Scores tokens by their states and by the first token's attention in the layer before."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.layers = nn.Sequential(nn.Linear(hidden + 1, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, 1))

    def forward(self, states: Tensor, attention: Tensor) -> Tensor:
        """Returns the scores (rows, tokens), logarithms of a share of the effects."""
        return self.layers(torch.cat([self.norm(states), _relative(attention)[..., None]], dim=-1))[..., 0]


def distilled(model: Forward, layer: int, batches: list[Batch]) -> Scorer:
    """Trains a scorer to predict each token's share of the effects of its row (cross-entropy); the model is frozen."""
    torch.manual_seed(0)
    with torch.inference_mode(False):
        rows = [
            (
                batch.before[layer].clone(),
                batch.scores[layer, ATTENTION].clone(),
                removal_effects(model, layer, batch.before[layer]),
            )
            for batch in batches
        ]
        scorer = Scorer(rows[0][0].shape[-1])
        optimizer = torch.optim.AdamW(scorer.parameters(), lr=2e-3)
        for _ in range(_EPOCHS):
            for place in torch.randperm(len(rows)).tolist():
                states, attention, effects = rows[place]
                target = effects[:, 1:] / effects[:, 1:].sum(1, keepdim=True).clamp_min(1e-12)
                predicted = scorer(states, attention)[:, 1:]
                loss = functional.cross_entropy(predicted, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return scorer.eval()


def _relative(attention: Tensor) -> Tensor:
    return (attention * attention.shape[1]).clamp_min(1e-6).log()
