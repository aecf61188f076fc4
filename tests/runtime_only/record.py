"""Writes artifacts and the answers that a full installation gives: `python -m tests.runtime_only.record FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from itrex_sweet import SweetModelForSequenceClassification
from tests.artifact_kinds import KINDS as WRITERS
from tests.runtime_only.cases import ANSWERS_FILE, KINDS, answers


def record(folder: Path, kinds: Sequence[str] = KINDS) -> None:
    """Writes an artifact of each kind, and `answers.json`: kind -> call -> predictions, with exact numbers."""
    found = {}
    for kind in kinds:
        WRITERS[kind](folder / kind)
        found[kind] = answers(
            SweetModelForSequenceClassification.from_pretrained(folder / kind, backend="native"), kind
        )
    (folder / ANSWERS_FILE).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    record(Path(sys.argv[1]))
