"""Warnings about a model that runs in other conditions than it was trained or calibrated in."""

from __future__ import annotations

import logging

from itrex_sweet.artifact import Artifact
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.warning_once import is_first

logger = logging.getLogger(__name__)


def warn_of_another_calibration(artifact: Artifact, backend: str) -> None:
    """Warns where the stored policy was calibrated on another backend or precision than the one that runs."""
    calibration = artifact.calibration
    running = {"backend": backend, "precision": artifact.precision}
    other = {name: calibration[name] for name in running if name in calibration and calibration[name] != running[name]}
    if other:
        was = " and ".join(f"{name} {value}" for name, value in other.items())
        logger.warning(
            "%s was calibrated on %s, and runs on %s: the guarantee of its policy was tested on the former. Calibrate "
            "again: itrex-sweet calibrate.",
            artifact.directory,
            was,
            " and ".join(running[name] for name in other),
        )


def warn_of_untrained_lengths(artifact: Artifact, batch: TokenBatch) -> bool:
    """Warns where rows are longer than those that the model was trained on; returns whether there are such rows.

    Steps of one call that run such rows warn once for all of them, see `warning_once`.
    """
    trained = (artifact.config.get("sweet") or {}).get("longest_row")
    if not isinstance(trained, int) or len(batch.input_ids) <= trained:  # no row is longer than all of them
        return False
    if (longest := int(batch.lengths.max())) <= trained:
        return False
    if not is_first("rows longer than in training"):
        return True
    logger.warning(
        "%s was trained on rows of up to %d tokens and answers one of %d: what it learned may not hold there. "
        "max_length=%d cuts longer texts. Further rows are not warned of.",
        artifact.directory,
        trained,
        longest,
        trained,
    )
    return True
