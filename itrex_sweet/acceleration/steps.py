"""Steps of a long run that are not repeated once they are done with the same inputs."""

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
    """Steps that leave an artifact each, in a folder of their own, and a record of what it was made from.

    Args:
        folder: of the steps' folders and records.
        count: of the steps, for what is shown.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count
        self._number = 0
        self._before = ""

    def run(
        self,
        name: str,
        does: str,
        inputs: Mapping[str, Any],
        work: Callable[[Path], Mapping[str, Any]],
        directory: Path | None = None,
    ) -> dict[str, Any]:
        """Does a step, or finds that it was done.

        Args:
            name: of its folder and record.
            does: what it does, for the person who waits.
            inputs: what the result depends on besides the steps before, in plain JSON types.
            work: writes an artifact to the folder given, and returns facts in plain JSON types.
            directory: of the artifact; one of the step's own if absent.

        Returns:
            the facts, of now or of the run that did it.

        Raises:
            ArtifactError: the record cannot be written.
            and what `work` raises.
        """
        self._number += 1
        directory = directory or self.folder / name
        record = self.folder / f"{name}.json"
        now = json.loads(json.dumps({**inputs, "steps before": self._before}))
        done = _read(record)
        label = f"[{self._number}/{self.count}]"
        if done is not None and done["inputs"] == now and _identity(directory) == done["artifact"]:
            logger.info("%s %s: done before.", label, does)
        else:
            logger.info("%s %s%s", label, does, _why_again(done, now))
            record.unlink(missing_ok=True)
            facts = work(directory)
            done = {"inputs": now, "artifact": _identity(directory), "facts": json.loads(json.dumps(facts))}
            _write(record, done)
        self._before = hashlib.sha256(json.dumps([self._before, now, done["artifact"]]).encode()).hexdigest()
        return done["facts"]


def _identity(directory: Path) -> str | None:
    """Hash of an artifact's settings, which list the hashes of its files; `None` where there is no whole artifact."""
    try:
        artifact = open_artifact(directory)
    except ArtifactError:
        return None
    return hashlib.sha256(artifact.read_file("sweet_config.json")).hexdigest()


def _why_again(done: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    if done is None:
        return ""
    changed = [name for name in now if done["inputs"].get(name) != now[name]]
    if not changed:
        return ", again: its result is not there any more"
    return f", again: {', '.join(changed)} changed since"


def _read(path: Path) -> dict[str, Any] | None:
    """A record; one that cannot be read counts as none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_whole = isinstance(record, dict) and all(isinstance(record.get(name), dict) for name in ("inputs", "facts"))
    return record if is_whole and "artifact" in record else None


def _write(path: Path, record: Mapping[str, Any]) -> None:
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path} ({error}).") from error
