"""Policies between full depth and the fastest calibrated one, chosen with one number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from itrex_sweet.arguments import fraction
from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy


def costs_of(candidates: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns the cost of each calibrated candidate, in milliseconds or layers as calibrated."""
    return [each["mean_layers"] if each.get("milliseconds") is None else each["milliseconds"] for each in candidates]


def policy_for_quality(artifact: Artifact, quality: float) -> Policy:
    """Returns the calibrated candidate for a quality between 0, the most aggressive candidate, and 1, the full model.

    Quality is a fraction of the range of costs, in milliseconds or layers as calibrated. The result is the most
    conservative candidate that costs no more. The calibration's guarantee covers only the stored policy.

    Raises:
        ConfigError: the artifact was not calibrated, or a quality outside [0, 1].
    """
    quality = fraction("quality", quality, "a number between 0, the fastest calibrated policy, and 1, the full model")
    candidates = artifact.calibration.get("candidates")
    if not candidates:
        raise ConfigError(  # the clients of a server see it, who are not told its folders
            f"quality={quality}: the artifact is not calibrated; run `itrex-sweet calibrate` first."
        )
    costs = costs_of(candidates)
    limit = min(costs) + quality * (costs[0] - min(costs))  # the full model is the first candidate
    within = [index for index, cost in enumerate(costs) if cost <= limit * (1 + 1e-9)]
    best = max(within, key=costs.__getitem__) if quality < 1.0 else 0
    return dataclasses.replace(artifact.policy, thresholds=tuple(candidates[best]["thresholds"]), max_exit_index=None)
