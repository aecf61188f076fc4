"""What one call may say about when to stop, and what its answers then say of why they did."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.arguments import real_number, whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.config import Policy
from itrex_sweet.errors import ConfigError
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.quality import policy_for_quality

Threshold = float | Sequence[float]

CONFIDENCE, DEADLINE, MAX_EXIT, FULL_DEPTH = "confidence", "deadline", "max_exit", "full_depth"


def checked_policy(artifact: Artifact, policy: Policy) -> Policy:
    """The policy, if it is one and the artifact can run under it.

    Raises:
        ConfigError: it is none, or does not fit.
    """
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy is a {type(policy).__name__}; itrex_sweet.Policy(...) makes one.")
    return artifact.checked(policy)


@dataclass(frozen=True)
class Call:
    """When to stop, for one call.

    Args:
        policy: that decides.
        deadline: as `time.perf_counter` counts, in seconds; `None` for none.
    """

    policy: Policy
    deadline: float | None = None

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        stored: Policy,
        threshold: Threshold | None = None,
        policy: Policy | None = None,
        quality: float | None = None,
        max_exit: int | None = None,
        deadline_ms: float | None = None,
    ) -> Call:
        """Takes what a caller named; `model.predict` documents it.

        Args:
            stored: the policy if nothing is named.

        Raises:
            ConfigError: two policies for one call, one that does not fit the artifact, an exit that is none, or a
                deadline that is not positive.
        """
        named = {"threshold": threshold, "policy": policy, "quality": quality}
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} each say when to stop; name one of them.")
        if threshold is not None:
            stored = stored.with_threshold(threshold)
        elif policy is not None:
            stored = checked_policy(artifact, policy)
        elif quality is not None:
            stored = policy_for_quality(artifact, real_number("quality", quality))
        if max_exit is not None:
            max_exit = whole_number("max_exit", max_exit, least=1)
            if max_exit not in artifact.exits:
                raise ConfigError(f"max_exit={max_exit}: choose one of the exits {artifact.exits}, counts of layers.")
            deepest = min(artifact.exits.index(max_exit), stored.answers_all)
            stored = dataclasses.replace(stored, deepest=deepest)
        if deadline_ms is None:
            return cls(stored)
        deadline_ms = real_number("deadline_ms", deadline_ms)
        if not 0.0 < deadline_ms < math.inf:
            raise ConfigError(
                f"deadline_ms={deadline_ms}: a positive number of milliseconds; leave it out for no deadline."
            )
        return cls(stored, time.perf_counter() + deadline_ms / 1000.0)

    def stopped_by(self, answers: Answers) -> np.ndarray:
        """(rows,) of str: why each row went no further.

        `"confidence"`: it was sure enough; `"deadline"`: time was up; `"max_exit"`: no further exit was allowed;
        `"full_depth"`: there is none.
        """
        last = FULL_DEPTH if self.policy.answers_all == len(self.policy.thresholds) else MAX_EXIT
        why = np.where(answers.exit_index >= self.policy.answers_all, last, CONFIDENCE)
        return why if answers.out_of_time is None else np.where(answers.out_of_time, DEADLINE, why)
