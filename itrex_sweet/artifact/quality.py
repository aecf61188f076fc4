"""The curve that a calibration left in an artifact, walked by one number."""

from __future__ import annotations

import dataclasses

from itrex_sweet.artifact.reading import Artifact
from itrex_sweet.config import Policy
from itrex_sweet.errors import ConfigError


def policy_of_quality(artifact: Artifact, quality: float) -> Policy:
    """The policy that many steps up the calibrated curve, from the boldest candidate, 0, to the full model, 1.

    Quality is a share of the way in cost, milliseconds or layers as calibrated: the policy is the most careful
    candidate that costs no more. Only the stored policy carries the promise.

    Raises:
        ConfigError: the artifact was not calibrated, or a quality outside [0, 1].
    """
    if not 0.0 <= quality <= 1.0:
        raise ConfigError(f"quality={quality}: it lies in [0, 1]; 1 is the full model, 0 the fastest policy found.")
    candidates = artifact.calibration.get("candidates")
    if not candidates:
        raise ConfigError(
            f"quality={quality}: {artifact.directory} holds no calibrated curve; itrex-sweet calibrate makes one."
        )
    costs = [each["mean_layers"] if each.get("milliseconds") is None else each["milliseconds"] for each in candidates]
    limit = min(costs) + quality * (costs[0] - min(costs))  # the full model comes first
    within = [place for place, cost in enumerate(costs) if cost <= limit * (1 + 1e-9)]
    best = max(within, key=costs.__getitem__) if quality < 1.0 else 0
    return dataclasses.replace(artifact.policy, thresholds=tuple(candidates[best]["thresholds"]), deepest=None)
