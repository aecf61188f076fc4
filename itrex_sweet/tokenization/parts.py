"""Parts of a tokenizer of the `tokenizers` library, as it writes them."""

from __future__ import annotations

import json
from typing import Any


def state_of(part: Any) -> dict[str, Any]:
    """Returns a part of a tokenizer as the library writes it; empty if there is none."""
    return {} if part is None else json.loads(part.__getstate__())


def parts_of(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Returns the parts of a sequence that a part of a tokenizer may be, in order; `name`: of its list."""
    if state.get("type") != "Sequence":
        return [state] if state else []
    return [part for each in state[name] for part in parts_of(each, name)]
