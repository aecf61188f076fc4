"""Runs rows through a model under schedules, from stored states of the undropped layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from token_dropping.forward import Forward, batches_of
from token_dropping.schedules import ATTENTION, COMING, GRADIENT, LEARNED, MEAN, PROBE, RANDOM, RECEIVED, Schedule
from token_dropping.scores import Scorer, removal_effects

FIRST_STEP = 2  # no schedule drops before this layer


@dataclass(frozen=True)
class Batch:
    """Rows of one length with the states of the undropped model.

    Args:
        rows: their indices.
        before: layer → states before it.
        scores: (layer, name of the score) → (rows, tokens), of attention already computed.
        logits: exit → (rows, labels).
    """

    rows: np.ndarray
    before: dict[int, Tensor]
    scores: dict[tuple[int, str], Tensor]
    logits: dict[int, Tensor]


@torch.inference_mode()
def undropped(model: Forward, tokenizer: Any, texts: list, max_length: int) -> list[Batch]:
    """Runs rows to full depth, and keeps the states before each layer at which a schedule may begin."""
    found = []
    for rows, ids, types in batches_of(tokenizer, texts, max_length):
        states, before, scores, logits = model.embed(ids, types), {}, {}, {}
        for number in range(1, model.depth + 1):
            if number in model.exits:
                logits[number], scores[number, PROBE] = model.probe(number, states)
            if number < model.depth:
                if number >= FIRST_STEP:
                    before[number] = states
                states, scores[number + 1, ATTENTION], scores[number + 1, RECEIVED] = model.layer(number, states)
        found.append(Batch(rows, before, scores, logits))
    return found


def logits_of(batches: list[Batch], exits: tuple[int, ...]) -> np.ndarray:
    """Returns the undropped logits, (rows, exits, labels)."""
    return _in_order(batches, [torch.stack([batch.logits[exit_] for exit_ in exits], dim=1) for batch in batches])


def run(
    model: Forward, batches: list[Batch], schedule: Schedule, scorers: dict[int, Scorer] | None = None
) -> np.ndarray:
    """Returns the logits (rows, exits, labels) under a schedule.

    Args:
        scorers: layer → learned score, for schedules that use it.
    """
    return _in_order(batches, [_run_batch(model, batch, schedule, scorers or {}) for batch in batches])


def lengths_of(batches: list[Batch]) -> np.ndarray:
    """Returns the number of tokens of each row."""
    return _in_order(batches, [torch.full((len(each.rows),), each.before[FIRST_STEP].shape[1]) for each in batches])


def _run_batch(model: Forward, batch: Batch, schedule: Schedule, scorers: dict[int, Scorer]) -> Tensor:
    start = schedule.steps[0][0]
    logits = {exit_: batch.logits[exit_] for exit_ in model.exits if exit_ <= start}
    states, tokens = batch.before[start], batch.before[start].shape[1]
    scores, weights = {key: each for key, each in batch.scores.items() if key[0] <= start}, None
    effects = removal_effects(model, start, states) if schedule.score == GRADIENT else None
    with torch.inference_mode():
        for number in range(start, model.depth + 1):
            if number in model.exits and number > start:
                logits[number], scores[number, PROBE] = model.probe(number, states, weights)
            if number == model.depth:
                break
            count = schedule.kept(number, tokens)
            if count < states.shape[1]:
                score = (
                    effects if effects is not None else _score(model, schedule.score, number, states, scores, scorers)
                )
                states, weights = reduce_tokens(states, weights, score, count, schedule.merge)
            states, scores[number + 1, ATTENTION], scores[number + 1, RECEIVED] = model.layer(number, states, weights)
    return torch.stack([logits[exit_] for exit_ in model.exits], dim=1)


def _score(
    model: Forward, name: str, number: int, states: Tensor, scores: dict[tuple[int, str], Tensor], scorers: dict
) -> Tensor:
    if name == RANDOM:
        return torch.rand(states.shape[:2], generator=torch.Generator().manual_seed(states.shape[1]))
    if name == COMING:
        return model.coming_attention(number, states)
    if name == LEARNED:
        return scorers[number](states, scores[number, ATTENTION])
    return scores[number, name]


def reduce_tokens(
    states: Tensor, weights: Tensor | None, score: Tensor, count: int, merge: str | None
) -> tuple[Tensor, Tensor | None]:
    """Returns the states (rows, count, hidden) of the tokens with the highest scores, the first token first, and their
    weights (rows, count), `None` if all are 1.
    """
    score = score.clone()
    score[:, 0] = torch.inf
    order = score.argsort(dim=1, descending=True, stable=True)
    kept, dropped = (
        (order[:, :count], order[:, count:]) if merge != MEAN else (order[:, : count - 1], order[:, count - 1 :])
    )
    ones = torch.ones(states.shape[:2]) if weights is None else weights
    stay, leave = _gather(states, kept), _gather(states, dropped)
    stay_weights, leave_weights = ones.gather(1, kept), ones.gather(1, dropped)
    if merge is None:
        return stay, None if weights is None else stay_weights
    if merge == MEAN:
        total = leave_weights.sum(1, keepdim=True)
        mean = (leave * leave_weights[..., None]).sum(1, keepdim=True) / total[..., None]
        return torch.cat([stay, mean], dim=1), torch.cat([stay_weights, total], dim=1)
    similarity = functional.normalize(leave, dim=-1) @ functional.normalize(stay[:, 1:], dim=-1).transpose(1, 2)
    nearest = similarity.argmax(-1) + 1  # the first token takes none
    summed = (stay * stay_weights[..., None]).scatter_add(
        1, nearest[..., None].expand_as(leave), leave * leave_weights[..., None]
    )
    merged = stay_weights.scatter_add(1, nearest, leave_weights)
    return summed / merged[..., None], merged


def _gather(states: Tensor, tokens: Tensor) -> Tensor:
    return states.gather(1, tokens[..., None].expand(-1, -1, states.shape[-1]))


def _in_order(batches: list[Batch], parts: list[Tensor]) -> np.ndarray:
    rows = np.concatenate([batch.rows for batch in batches])
    return torch.cat(parts).numpy()[np.argsort(rows)]
