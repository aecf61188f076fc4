"""Writes JSON lines."""

from __future__ import annotations

import json
from typing import Any

_to_json = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` makes an encoder for each value

# Characters that JSON does not escape and that many readers take for the end of a line.
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


def json_line(value: Any) -> str:
    """Returns JSON on one line without its end, with every Unicode line separator escaped."""
    text = _to_json(value)
    return text if text.isascii() else text.translate(_LINE_ENDS)
