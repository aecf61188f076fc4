"""JSON schemas that several protocols share."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, Any] = {
    "threshold": {
        "oneOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
        ],
        "description": "Exit at the first exit with a confidence above it; one for all exits, or one for each but the "
        "last.",
    },
    "quality": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "description": "Point of the calibrated curve, from 0, the fastest, to 1, full depth.",
    },
    "max_exit": {"type": "integer", "minimum": 1, "description": "Deepest exit, a number of layers."},
    "deadline_ms": {
        "type": "number",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1e9,
        "description": "Milliseconds from the arrival of the request; then the deepest exit reached answers, or none "
        "with status 504.",
    },
    "priority": {"type": "integer", "minimum": -100, "maximum": 100, "description": "Lower numbers are served first."},
}

EXTRA: dict[str, Any] = {
    "exit_layer": {"type": "integer", "description": "Layers computed."},
    "stopped_by": {"type": "string", "enum": ["confidence", "deadline", "max_exit", "full_depth"]},
    "confidence": {"type": "number"},
}

TEXT_OR_PAIR: dict[str, Any] = {
    "oneOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
    ]
}

RANKING: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["score", "label"],
        "properties": {"score": {"type": "number"}, "label": {"type": "string"}, **EXTRA},
    },
}
