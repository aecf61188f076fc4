"""Conversion of policies to the `sweet_policy` structure of the engine."""

from __future__ import annotations

from ctypes import addressof

import numpy as np

from itrex_sweet.confidence_formulas import label_offsets
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.native.interface import CPolicy
from itrex_sweet.runtime.native.packing import data_pointer
from itrex_sweet.tasks import MULTI_LABEL, SINGLE_LABEL

# Criteria that the engine computes → `sweet_policy.learned`.
CRITERIA = {"max_probability": 0, "learned": 1}

_MAX_POLICIES = 64  # in a cache


class EnginePolicy:
    """A policy as the engine reads it.

    Args:
        policy: of the task of the model, with a criterion in `CRITERIA`.
        num_labels: of the model.

    Attributes:
        address: of the `sweet_policy`; valid as long as this object exists.
        with_labels: whether the engine computes the most probable label of each row.
    """

    __slots__ = ("_kept", "address", "policy", "with_labels")

    def __init__(self, policy: Policy, num_labels: int):
        temperatures, thresholds = (
            np.array(part, dtype=np.float32) for part in (policy.temperatures, policy.thresholds)
        )
        offsets = offsets_of(policy, num_labels)
        structure = CPolicy(
            data_pointer(temperatures),
            data_pointer(thresholds),
            min(len(temperatures), len(thresholds) + 1),
            num_labels,
            policy.last_exit_index,
            CRITERIA[policy.criterion],
            None if offsets is None else data_pointer(offsets),
            target_of(policy),
            0,
        )
        self.policy = policy
        self.address = addressof(structure)
        self.with_labels = policy.task == SINGLE_LABEL
        self._kept = (structure, temperatures, thresholds, offsets)


class EnginePolicies:
    """Caches policies by identity: they are immutable, and comparing two takes longer than a lookup. Thread-safe."""

    def __init__(self, num_labels: int, num_outputs: int):
        self._num_labels = num_labels
        self._learned_to_exit = num_outputs > num_labels
        self._cached: dict[int, EnginePolicy] = {}

    def of(self, policy: Policy) -> EnginePolicy | None:
        """Returns the engine's form of a policy, or `None` if the engine does not compute its criterion."""
        found = self._cached.get(id(policy))
        if found is not None and found.policy is policy:
            return found
        if policy.criterion not in CRITERIA or (policy.criterion == "learned" and not self._learned_to_exit):
            return None
        if len(self._cached) >= _MAX_POLICIES:
            self._cached = {}  # calls on other threads keep theirs
        self._cached[id(policy)] = found = EnginePolicy(policy, self._num_labels)
        return found


def offsets_of(policy: Policy, num_labels: int) -> np.ndarray | None:
    """Returns the logits at the thresholds of labels, (labels,) float32; `None` unless the task is multi-label."""
    if policy.task != MULTI_LABEL:
        return None
    if policy.label_thresholds is None:
        return np.zeros(num_labels, dtype=np.float32)
    return label_offsets(policy.label_thresholds)


def target_of(policy: Policy) -> int:
    """Returns the id of the target label, -1 without one."""
    return -1 if policy.target_label is None else policy.target_label
