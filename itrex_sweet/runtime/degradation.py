"""Load shedding by quality: under load, requests run with faster calibrated policies, down to a floor."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.arguments import fraction, positive_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.defaults import DEFAULT_TARGET_SECONDS
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.quality import costs_of, policy_for_quality

_MAX_LEVELS = 9
_RETURN_BELOW = 0.7  # share of the target below which quality rises again


@dataclass(frozen=True)
class Level:
    """One policy of the scale.

    Args:
        policy: calibrated.
        quality: as of `policy_for_quality`; `None` for the policy without load.
        cost: of a row, relative to the policy without load.

    Raises:
        ConfigError: a quality outside [0, 1], or a cost that is not positive.
    """

    policy: Policy
    quality: float | None
    cost: float

    def __post_init__(self) -> None:
        if self.quality is not None:
            object.__setattr__(self, "quality", fraction("quality", self.quality))
        object.__setattr__(self, "cost", positive_number("cost", self.cost))


class Degradation:
    """Chooses the highest quality at which the rows that wait are answered within a target time.

    Args:
        levels: from the policy without load to the floor, by decreasing cost.
        target_seconds: time within which a new request should be answered.

    Raises:
        ConfigError: no levels, costs that do not decrease, or a target that is not a positive number.
    """

    def __init__(self, levels: Sequence[Level], target_seconds: float = DEFAULT_TARGET_SECONDS):
        self.levels = tuple(levels)
        costs = [level.cost for level in self.levels]
        if not costs or any(later >= earlier for earlier, later in itertools.pairwise(costs)):
            raise ConfigError(f"levels of costs {costs}: at least one level is needed, by decreasing cost.")
        self.target_seconds = positive_number("target_seconds", target_seconds, "a positive number of seconds")
        self._index = 0

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        policy: Policy,
        floor: float | None = None,
        target_seconds: float = DEFAULT_TARGET_SECONDS,
    ) -> Degradation:
        """Returns the scale from a policy down to a floor on the artifact's calibrated curve.

        Args:
            policy: without load.
            floor: lowest quality, in [0, 1]; by default that of the fastest certified candidate.
            target_seconds: time within which a new request should be answered.

        Raises:
            ConfigError: the artifact is not calibrated, the policy is not on its curve, nothing was certified and no
                floor is given, or the floor is not faster than the policy.
        """
        candidates = artifact.calibration.get("candidates")
        if not candidates:
            raise ConfigError(f"{artifact.directory} is not calibrated; run `itrex-sweet calibrate` first.")
        costs = costs_of(candidates)
        cost = next((costs[place] for place, each in enumerate(candidates) if _has(each, policy)), None)
        if cost is None:
            raise ConfigError("The policy is not one of the calibrated candidates, so load cannot lower its quality.")
        fastest, slowest = min(costs), costs[0]
        if floor is None:
            certified = artifact.calibration.get("certified")
            if not certified:
                raise ConfigError(f"{artifact.directory}: no policy is certified; give the lowest quality, the floor.")
            lowest = min(costs[:certified])
        else:
            policy_for_quality(artifact, floor := fraction("floor", floor))  # checks it
            lowest = fastest + floor * (slowest - fastest)
        if not lowest < cost:
            raise ConfigError(
                "The policy is as fast as the floor, so load cannot lower its quality: give a lower floor, or a policy "
                "of higher quality without load."
            )
        levels = [Level(policy, None, 1.0)]
        for limit in np.linspace(cost, lowest, _MAX_LEVELS)[1:].tolist():
            quality = min(max((limit - fastest) / (slowest - fastest), 0.0), 1.0)
            thresholds = policy_for_quality(artifact, quality).thresholds
            faster = dataclasses.replace(policy, thresholds=thresholds)
            own = next(costs[place] for place, each in enumerate(candidates) if _has(each, faster))
            if own / cost < levels[-1].cost:
                levels.append(Level(faster, (own - fastest) / (slowest - fastest), own / cost))
        if len(levels) == 1:
            raise ConfigError("No calibrated candidate lies between the policy and the floor; give a lower floor.")
        return cls(levels, target_seconds)

    @property
    def is_at_floor(self) -> bool:
        """True if quality cannot fall further."""
        return self._index == len(self.levels) - 1

    def update(self, rows: int, seconds_per_row: float) -> Level:
        """Returns the level for the rows that wait.

        Quality falls while the estimated time exceeds the target, and rises only where it is clearly below, so that it
        does not alternate.

        Args:
            rows: that have no answer.
            seconds_per_row: at the first level.
        """
        self._index = self._place(rows * seconds_per_row)
        return self.levels[self._index]

    def preview(self, rows: int, seconds_per_row: float) -> Level:
        """Returns what `update` would return, and changes nothing."""
        return self.levels[self._place(rows * seconds_per_row)]

    def _place(self, seconds: float) -> int:
        """Returns the index of the level for rows that need so many seconds at the first level."""
        index, costs = self._index, [level.cost for level in self.levels]
        while index < len(costs) - 1 and seconds * costs[index] > self.target_seconds:
            index += 1
        while index > 0 and seconds * costs[index - 1] <= _RETURN_BELOW * self.target_seconds:
            index -= 1
        return index


def _has(candidate: dict, policy: Policy) -> bool:
    """Returns whether a candidate has the policy's thresholds."""
    return np.allclose(candidate["thresholds"], policy.thresholds, rtol=0.0, atol=1e-9)
