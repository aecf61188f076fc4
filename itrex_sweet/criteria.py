"""Early-exit criteria: computes the confidence of an exit, and which rows leave there.

Pure functions on NumPy arrays, the same for every backend. Confidence lies in [0, 1]; a greater value means more
confident. Some criteria have a state per row that depends on earlier exits; the caller stores it with the row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from itrex_sweet.confidence_formulas import (
    entropy,
    label_confidence,
    label_entropy,
    label_margin,
    margin,
    max_probability,
    one_against_rest,
)
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.probabilities import logistic
from itrex_sweet.tasks import MULTI_LABEL, TASKS

# State of a criterion, (rows, numbers) float32; `None` before the first exit, and for criteria without state.
State = np.ndarray | None

# (rows,) float32, logit of the probability that the exit's prediction is correct; `None` if exits do not predict it.
CorrectnessLogit = np.ndarray | None

# `confidence` below, or a backend's own implementation of it.
ConfidenceFunction = Callable[..., tuple[np.ndarray, State]]


_SINGLE_LABEL = {"max_probability": max_probability, "entropy": entropy, "margin": margin}
_MULTI_LABEL = {"max_probability": label_confidence, "entropy": label_entropy, "margin": label_margin}


def _from_logits(criterion: str, policy: Policy, exit_index: int, logits: np.ndarray) -> np.ndarray:
    """Computes a criterion that reads the logits of one exit."""
    temperature = policy.temperatures[exit_index]
    if policy.task == MULTI_LABEL:
        return _MULTI_LABEL[criterion](logits, temperature, policy.label_thresholds)
    if policy.target_label is not None:
        return one_against_rest(logits, temperature, policy.target_label)
    return _SINGLE_LABEL[criterion](logits, temperature)  # of regression: 1 for finite values


def learned(
    policy: Policy,
    exit_index: int,
    logits: np.ndarray,
    correctness_logit: CorrectnessLogit,
    logistic: Callable[[np.ndarray], np.ndarray] = logistic,
) -> np.ndarray:
    """Returns the exit's estimate of the probability that its prediction is correct (BERxiT, Xin et al., EACL 2021),
    or for regression `1 / (1 + error)` of its estimate of its absolute error.

    The last exit has no such estimate; its confidence is that of the criterion `"max_probability"`, and 1 for
    regression.

    Args:
        logits: (rows, labels) float32.
        correctness_logit: (rows,) float32.
        logistic: maps it to a probability.

    Returns:
        (rows,) float32 in [0, 1]; NaN where the logits are not finite.

    Raises:
        ConfigError: the exits do not predict correctness.
    """
    if exit_index == len(policy.thresholds):
        return _from_logits("max_probability", policy, exit_index, logits)
    if correctness_logit is None:
        raise ConfigError("criterion='learned' needs exits that predict their correctness.")
    return np.where(np.isfinite(logits).all(axis=-1), logistic(correctness_logit), np.float32("nan"))


def split_outputs(outputs: np.ndarray, num_labels: int) -> tuple[np.ndarray, CorrectnessLogit]:
    """Splits the outputs of exits, (..., labels) or (..., labels + 1), into logits (..., labels) and correctness logits
    (...)."""
    if outputs.shape[-1] == num_labels:
        return outputs, None
    return outputs[..., :num_labels], outputs[..., num_labels]


def _consecutive_agreement(
    policy: Policy, exit_index: int, logits: np.ndarray, state: State
) -> tuple[np.ndarray, State]:
    """Returns the number of consecutive exits, this one included, with the same label or labels, divided by the number
    of exits (PABEE, arXiv 2006.04152).

    Logits that are not finite give NaN and reset the count.
    """
    finite = np.isfinite(logits).all(axis=-1)
    temperature = policy.temperatures[exit_index]
    decisions = TASKS[policy.task].decisions(logits, temperature, policy.label_thresholds).astype(np.float32)
    decisions = decisions.reshape(len(logits), 1) if decisions.ndim == 1 else decisions
    counts = np.ones(len(logits), dtype=np.float32)
    if state is not None:
        counts += np.where((decisions == state[:, :-1]).all(axis=1), state[:, -1], 0).astype(np.float32)
    shares = np.where(finite, counts / np.float32(len(policy.temperatures)), np.float32("nan"))
    return shares, np.column_stack([decisions, np.where(finite, counts, 0)]).astype(np.float32)


def _consecutive_confidence(
    policy: Policy, exit_index: int, logits: np.ndarray, state: State
) -> tuple[np.ndarray, State]:
    """Returns the minimum of the largest probability over the last `policy.patience` exits, and 0 before that many: a
    row leaves after `patience` consecutive confident exits (PCEE-BERT, Findings of NAACL 2022)."""
    here = _from_logits("max_probability", policy, exit_index, logits)[:, None]
    seen = here if state is None else np.concatenate([state, here], axis=1)[:, -policy.patience :]
    minimum = seen.min(axis=1) if seen.shape[1] == policy.patience else np.where(np.isfinite(here[:, 0]), 0, here[:, 0])
    return minimum.astype(np.float32), seen


_STATEFUL = {"patience": _consecutive_agreement, "patience_and_confidence": _consecutive_confidence}


def is_stateful(policy: Policy) -> bool:
    """Returns whether the confidence of a row depends on the outputs of earlier exits."""
    return policy.criterion in _STATEFUL


def confidence(
    policy: Policy, exit_index: int, logits: np.ndarray, state: State = None, correctness_logit: CorrectnessLogit = None
) -> tuple[np.ndarray, State]:
    """Computes the confidence of each row at an exit under a policy.

    Args:
        exit_index: index of the exit, from 0.
        logits: (rows, labels) float32.
        state: state returned for the same rows at the previous exit.
        correctness_logit: (rows,) float32, needed by the criterion `"learned"`.

    Returns:
        (rows,) float32, NaN where the logits are not finite; and the new state.
    """
    if policy.criterion == "learned":
        return learned(policy, exit_index, logits, correctness_logit), None
    if is_stateful(policy):
        return _STATEFUL[policy.criterion](policy, exit_index, logits, state)
    return _from_logits(policy.criterion, policy, exit_index, logits), None


def confidence_at_every_exit(
    policy: Policy,
    logits: np.ndarray,
    correctness_logits: np.ndarray | None = None,
    confidence_of: ConfidenceFunction = confidence,
) -> np.ndarray:
    """Computes the confidence of every row at every exit.

    Args:
        logits: (rows, exits, labels) float32.
        correctness_logits: (rows, exits) float32, needed by the criterion `"learned"`.
        confidence_of: computes the confidence at one exit; `Backend.confidence` of the backend that runs the policy
            gives the numbers that it compares with thresholds, to the bit.

    Returns:
        (rows, exits) float32.
    """
    columns, state = [], None
    for place in range(logits.shape[1]):
        correctness_logit = None if correctness_logits is None else correctness_logits[:, place]
        column, state = confidence_of(policy, place, logits[:, place], state, correctness_logit)
        columns.append(column)
    return np.stack(columns, axis=1)


def is_switched_off(policy: Policy, exit_index: int) -> bool:
    """Returns whether the probe of an exit can be skipped: no row leaves there, because no confidence exceeds a
    threshold of 1, and no state of the criterion depends on its outputs."""
    return exit_index < policy.last_exit_index and policy.thresholds[exit_index] >= 1.0 and not is_stateful(policy)


def may_leave(policy: Policy, exit_index: int, confidences: np.ndarray) -> np.ndarray:
    """Returns which rows leave at an exit; all do at the policy's last exit.

    A row with NaN confidence does not leave early.

    Returns:
        (rows,) bool.
    """
    if exit_index >= policy.last_exit_index:
        return np.ones(len(confidences), dtype=bool)
    return confidences > policy.thresholds[exit_index]


def leaving_exit(policy: Policy, confidences: np.ndarray) -> np.ndarray:
    """Returns the index of the exit where each row leaves, (rows,) int64, for confidences (rows, exits)."""
    may = [may_leave(policy, place, confidences[:, place]) for place in range(confidences.shape[1])]
    return np.argmax(np.stack(may, axis=1), axis=1)
