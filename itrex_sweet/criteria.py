"""How sure an exit is, and who may leave: pure functions on NumPy arrays, the same for every backend.

Confidence lies in [0, 1], and greater is surer. A criterion that looks back at earlier exits remembers something of
each row; the caller keeps it beside the row and drops it with the row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from itrex_sweet.config import Policy
from itrex_sweet.errors import ConfigError

# What a row's earlier exits said, (rows, something) float32; `None` before the first exit, and for criteria that look
# at one exit alone.
Memory = np.ndarray | None

# (rows,) float32, what exits learned of themselves: the logit of being right; `None` where they did not.
Certainty = np.ndarray | None

# `confidence` below, or a backend's own implementation of it.
ConfidenceFunction = Callable[..., tuple[np.ndarray, Memory]]


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of `logits / temperature`.

    Args:
        logits: (..., labels) float32.
        temperature: divides the logits; above 1 softens (Guo et al. 2017, arXiv 1706.04599, equation 9).

    Returns:
        (..., labels) float32, summing to 1; NaN where the logits are not finite.
    """
    scaled = np.asarray(logits, dtype=np.float32) / temperature
    with np.errstate(invalid="ignore"):
        powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


def max_probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Confidence as the largest softmax probability (SWEET, arXiv 2306.02307, section 3.1).

    Args:
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32 in (0, 1]; NaN where the logits are not finite.
    """
    scaled = np.asarray(logits, dtype=np.float32) / temperature
    with np.errstate(invalid="ignore"):
        return 1 / np.exp(scaled - scaled.max(axis=-1, keepdims=True)).sum(axis=-1)  # the largest of the powers is 1


def entropy(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Confidence as 1 minus the entropy of the softmax over its greatest, `log(labels)` (DeeBERT, arXiv 2004.12993).

    Args:
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32 in [0, 1]; NaN where the logits are not finite.
    """
    shares = probabilities(logits, temperature)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    with np.errstate(invalid="ignore"):
        return (1 + (shares * logarithms).sum(axis=-1) / np.log(np.float32(shares.shape[-1]))).clip(0, 1)


def margin(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Confidence as the largest softmax probability minus the second largest.

    Args:
        logits: (rows, labels) float32.

    Returns:
        (rows,) float32 in [0, 1]; NaN where the logits are not finite.
    """
    two = np.partition(probabilities(logits, temperature), -2, axis=-1)[..., -2:]
    return two[..., 1] - two[..., 0]


_OF_ONE_EXIT: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "max_probability": max_probability,
    "entropy": entropy,
    "margin": margin,
}


def logistic(values: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-value))`, float32."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-np.asarray(values, dtype=np.float32)))


def learned(
    policy: Policy,
    exit_index: int,
    logits: np.ndarray,
    certainty: Certainty,
    logistic: Callable[[np.ndarray], np.ndarray] = logistic,
) -> np.ndarray:
    """Confidence as an exit's own estimate that it is right (BERxiT, Xin et al., EACL 2021).

    The last exit answers whoever comes and has learned none: the largest probability stands there.

    Args:
        logits: (rows, labels) float32.
        certainty: (rows,) float32, the logit of being right.
        logistic: that makes a share of it.

    Returns:
        (rows,) float32 in [0, 1]; NaN where the logits are not finite.

    Raises:
        ConfigError: the exits did not learn it.
    """
    if exit_index == len(policy.thresholds):
        return max_probability(logits, policy.temperatures[exit_index])
    if certainty is None:
        raise ConfigError("criterion='learned' needs exits that learned how likely they are right.")
    return np.where(np.isfinite(logits).all(axis=-1), logistic(certainty), np.float32("nan"))


def apart(outputs: np.ndarray, num_labels: int) -> tuple[np.ndarray, Certainty]:
    """Logits (..., labels) and certainty (...) of what exits say, (..., labels) or (..., labels + 1)."""
    if outputs.shape[-1] == num_labels:
        return outputs, None
    return outputs[..., :num_labels], outputs[..., num_labels]


def _agreeing_exits(policy: Policy, exit_index: int, logits: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory]:
    """Exits in a row, this one included, that gave this label, as a share of all exits (PABEE, arXiv 2006.04152).

    A row whose logits are not finite starts anew, with NaN.
    """
    finite = np.isfinite(logits).all(axis=-1)
    labels = np.where(finite, np.where(finite[:, None], logits, 0).argmax(axis=-1), -1).astype(np.float32)
    counts = np.ones(len(logits), dtype=np.float32)
    if memory is not None:
        counts += np.where(labels == memory[:, 0], memory[:, 1], 0).astype(np.float32)
    shares = np.where(finite, counts / np.float32(len(policy.temperatures)), np.float32("nan"))
    return shares, np.stack([labels, np.where(finite, counts, 0)], axis=1).astype(np.float32)


def _sure_exits(policy: Policy, exit_index: int, logits: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory]:
    """The least of the largest probabilities at the last `policy.patience` exits, 0 before there were so many: a row
    leaves when so many exits in a row were sure of what they said (PCEE-BERT, Findings of NAACL 2022)."""
    here = max_probability(logits, policy.temperatures[exit_index])[:, None]
    seen = here if memory is None else np.concatenate([memory, here], axis=1)[:, -policy.patience :]
    least = seen.min(axis=1) if seen.shape[1] == policy.patience else np.where(np.isfinite(here[:, 0]), 0, here[:, 0])
    return least.astype(np.float32), seen


_OF_SEVERAL_EXITS = {"patience": _agreeing_exits, "patience_and_confidence": _sure_exits}


def looks_back(policy: Policy) -> bool:
    """Whether a row's confidence depends on what its earlier exits said."""
    return policy.criterion in _OF_SEVERAL_EXITS


def confidence(
    policy: Policy, exit_index: int, logits: np.ndarray, memory: Memory = None, certainty: Certainty = None
) -> tuple[np.ndarray, Memory]:
    """Confidence of each row at an exit under a policy.

    Args:
        exit_index: place of the exit among the exits, from 0.
        logits: (rows, labels) float32.
        memory: what this returned for the same rows at the exit before.
        certainty: (rows,) float32, for the criterion that reads it.

    Returns:
        (rows,) float32, NaN where the logits are not finite; and what to remember of the rows.
    """
    if policy.criterion == "learned":
        return learned(policy, exit_index, logits, certainty), None
    if looks_back(policy):
        return _OF_SEVERAL_EXITS[policy.criterion](policy, exit_index, logits, memory)
    return _OF_ONE_EXIT[policy.criterion](logits, policy.temperatures[exit_index]), None


def confidence_at_every_exit(
    policy: Policy,
    logits: np.ndarray,
    certainties: np.ndarray | None = None,
    confidence_of: ConfidenceFunction = confidence,
) -> np.ndarray:
    """Confidences of rows that go through all exits.

    Args:
        logits: (rows, exits, labels) float32.
        certainties: (rows, exits) float32, for the criterion that reads them.
        confidence_of: computes the confidence at one exit; `Backend.confidence` of the backend that runs the policy
            gives the numbers that it compares with thresholds, to the bit.

    Returns:
        (rows, exits) float32.
    """
    columns, memory = [], None
    for place in range(logits.shape[1]):
        certainty = None if certainties is None else certainties[:, place]
        column, memory = confidence_of(policy, place, logits[:, place], memory, certainty)
        columns.append(column)
    return np.stack(columns, axis=1)


def is_switched_off(policy: Policy, exit_index: int) -> bool:
    """Whether an exit answers no row, whatever it says, and says nothing that a later one looks back at: its probe need
    not be computed. A threshold of 1 is met by no confidence."""
    return exit_index < policy.answers_all and policy.thresholds[exit_index] >= 1.0 and not looks_back(policy)


def may_leave(policy: Policy, exit_index: int, confidences: np.ndarray) -> np.ndarray:
    """Which rows are answered at an exit; at the policy's deepest one, all.

    NaN confidence never leaves early, so that a row whose logits broke is not answered before the end.

    Returns:
        (rows,) bool.
    """
    if exit_index >= policy.answers_all:
        return np.ones(len(confidences), dtype=bool)
    return confidences > policy.thresholds[exit_index]


def leaving_exit(policy: Policy, confidences: np.ndarray) -> np.ndarray:
    """Where rows leave: (rows,) int64, places of exits from 0, of confidences (rows, exits)."""
    may = [may_leave(policy, place, confidences[:, place]) for place in range(confidences.shape[1])]
    return np.argmax(np.stack(may, axis=1), axis=1)
