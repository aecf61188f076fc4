"""The stored results, in parts."""

from __future__ import annotations

import json
from typing import Any

from record import RESULTS, provenance, write_result

RESULT = "token_dropping"
PARTS = ("times", "bounds", "equality", "accuracy", "combined", "grid", "prototype")


def read() -> dict[str, Any]:
    """Returns the stored results; empty if there are none."""
    path = RESULTS / f"{RESULT}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def store(part: str, name: str, result: dict[str, Any]) -> None:
    """Adds the result of a task to a part."""
    parts = {key: each for key, each in read().items() if key in PARTS}
    parts.setdefault(part, {})[name] = result
    write_result(RESULT, {**provenance(), **parts})
    print(part, name, json.dumps(result), flush=True)
