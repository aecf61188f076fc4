"""The stopping options of one call, and the reason why each row stopped."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.arguments import real_number, whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.quality import policy_for_quality

Threshold = float | Sequence[float]

CONFIDENCE, DEADLINE, MAX_EXIT, FULL_DEPTH = "confidence", "deadline", "max_exit", "full_depth"


def checked_policy(artifact: Artifact, policy: Policy) -> Policy:
    """Returns the policy after checking that the artifact can run under it.

    Raises:
        ConfigError: not a policy, or one that does not fit the artifact.
    """
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy is a {type(policy).__name__}; itrex_sweet.Policy(...) makes one.")
    return artifact.checked(policy)


@dataclass(frozen=True)
class Call:
    """Stopping options of one call.

    Args:
        policy: decides where rows leave.
        deadline: time of `time.perf_counter`, in seconds; `None` for none.
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
        """Combines the options of a call; `Classifier.predict` documents them.

        Args:
            stored: policy that the options change.

        Raises:
            ConfigError: more than one of `threshold`, `policy` and `quality`, a policy that does not fit the artifact,
                an unknown exit, or a deadline that is not positive.
        """
        named = {"threshold": threshold, "policy": policy, "quality": quality}
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude one another; give one of them.")
        if threshold is not None:
            stored = stored.with_threshold(threshold)
        elif policy is not None:
            stored = checked_policy(artifact, policy)
        elif quality is not None:
            stored = policy_for_quality(artifact, real_number("quality", quality))
        if max_exit is not None:
            max_exit = whole_number("max_exit", max_exit, minimum=1)
            if max_exit not in artifact.exits:
                raise ConfigError(f"max_exit={max_exit}: choose one of the exits {artifact.exits}, which count layers.")
            max_exit_index = min(artifact.exits.index(max_exit), stored.last_exit_index)
            stored = dataclasses.replace(stored, max_exit_index=max_exit_index)
        if deadline_ms is None:
            return cls(stored)
        deadline_ms = real_number("deadline_ms", deadline_ms)
        if not 0.0 < deadline_ms < math.inf:
            raise ConfigError(
                f"deadline_ms={deadline_ms}: a positive number of milliseconds; leave it out for no deadline."
            )
        return cls(stored, time.perf_counter() + deadline_ms / 1000.0)

    def stopped_by(self, answers: Answers) -> np.ndarray:
        """Returns why each row stopped, (rows,) of str.

        `"confidence"`: the confidence exceeded the threshold; `"deadline"`: the deadline passed; `"max_exit"`: the call
        or policy allows no deeper exit; `"full_depth"`: the last exit of the model.
        """
        last = FULL_DEPTH if self.policy.last_exit_index == len(self.policy.thresholds) else MAX_EXIT
        why = np.where(answers.exit_index >= self.policy.last_exit_index, last, CONFIDENCE)
        return why if answers.out_of_time is None else np.where(answers.out_of_time, DEADLINE, why)
