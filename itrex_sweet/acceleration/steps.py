"""Resumable steps: a step that is complete for the same inputs is skipped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.artifact import open_artifact
from itrex_sweet.errors import ArtifactError

logger = logging.getLogger(__name__)


class Steps:
    """Runs steps that write an artifact each, with a record of their inputs.

    Args:
        folder: holds the folders and records of the steps.
        count: number of steps, for the log.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count
        self._number = 0
        self._previous = ""

    def run(
        self,
        name: str,
        description: str,
        inputs: Mapping[str, Any],
        work: Callable[[Path], Mapping[str, Any]],
        directory: Path | None = None,
    ) -> dict[str, Any]:
        """Runs a step, or skips it if its artifact and record match the inputs.

        Args:
            name: name of its folder and record.
            description: description of the step, for the log.
            inputs: inputs of the step besides the previous steps, in JSON types.
            work: writes an artifact to the folder, and returns facts in JSON types.
            directory: folder of the artifact; by default one named after the step.

        Returns:
            The facts that `work` returned in this run or an earlier one.

        Raises:
            ArtifactError: the record cannot be written.
        """
        self._number += 1
        directory = directory or self.folder / name
        record = self.folder / f"{name}.json"
        current = json.loads(json.dumps({**inputs, "steps before": self._previous}))
        done = _read(record)
        label = f"[{self._number}/{self.count}]"
        if done is not None and done["inputs"] == current and _identity(directory) == done["artifact"]:
            logger.info("%s %s: already done.", label, description)
        else:
            logger.info("%s %s%s", label, description, _reason_to_repeat(done, current))
            record.unlink(missing_ok=True)
            facts = work(directory)
            done = {"inputs": current, "artifact": _identity(directory), "facts": json.loads(json.dumps(facts))}
            _write(record, done)
        self._previous = hashlib.sha256(json.dumps([self._previous, current, done["artifact"]]).encode()).hexdigest()
        return done["facts"]


def _identity(directory: Path) -> str | None:
    """Returns a hash of an artifact's settings, which hold the hashes of its files; `None` without a valid artifact."""
    try:
        artifact = open_artifact(directory)
    except ArtifactError:
        return None
    return hashlib.sha256(artifact.read_file("sweet_config.json")).hexdigest()


def _reason_to_repeat(done: Mapping[str, Any] | None, current: Mapping[str, Any]) -> str:
    """Describes why a step runs again; empty if it never ran."""
    if done is None:
        return ""
    changed = [name for name in current if done["inputs"].get(name) != current[name]]
    if not changed:
        return ", again: its artifact is missing or damaged"
    return f", again: {', '.join(changed)} changed"


def _read(path: Path) -> dict[str, Any] | None:
    """Returns a record, or `None` if it cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_complete = isinstance(record, dict) and all(isinstance(record.get(name), dict) for name in ("inputs", "facts"))
    return record if is_complete and "artifact" in record else None


def _write(path: Path, record: Mapping[str, Any]) -> None:
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path} ({error}).") from error
