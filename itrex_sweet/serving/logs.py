"""Logs of a server: one line per request, as text or as JSON. Texts are left out unless they are asked for."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.settings import ALL, ERRORS

LOGGER = "itrex_sweet.serving"
_FIELDS = "fields"  # of a record: what the line says beside its message


class RequestLog:
    """Writes one line for each request that has ended.

    Args:
        requests: `"all"`, or `"errors"` for those with a status of 500 and above.
        texts: whether lines contain the texts.
    """

    def __init__(self, requests: str = ALL, texts: bool = False):
        self._only_errors = requests == ERRORS
        self._texts = texts
        self._logger = logging.getLogger(LOGGER)

    def write(self, seen: Observation) -> None:
        """Logs a request."""
        level = logging.ERROR if seen.status >= 500 else logging.INFO
        if (self._only_errors and level == logging.INFO) or not self._logger.isEnabledFor(level):
            return
        fields = request_fields(seen)
        if self._texts and seen.texts is not None:
            fields["texts"] = seen.texts
        self._logger.log(level, seen.error or "answered", extra={_FIELDS: fields})


def request_fields(seen: Observation) -> dict[str, Any]:
    """Returns what a log says of a request, in plain JSON types: times are in milliseconds, exits in layers."""
    fields: dict[str, Any] = {
        "request_id": seen.request_id,
        "route": seen.route,
        "model": None if seen.model is None else seen.model.name,
        "status": seen.status,
        "rows": seen.rows,
        "tokens": seen.tokens,
        **{f"{name}_ms": round(seconds * 1e3, 3) for name, seconds in seen.seconds.items()},
    }
    if seen.answers is not None and seen.model is not None:
        layers = seen.model.exits
        counts = Counter(layers[place] for place in seen.answers.exit_index.tolist())
        fields["exits"] = {str(exit_): counts[exit_] for exit_ in sorted(counts)}
        if seen.is_degraded:
            fields["degraded"] = True
    if seen.error:
        fields["error_type"] = seen.error
    if seen.span is not None:
        fields["trace_id"] = f"{seen.span.get_span_context().trace_id:032x}"
    return fields


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line: time, level, logger, message, and the fields of a request."""
        line = {
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as one line of text."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line: time, level, message, and the fields of a request as `name=value`."""
        line = super().format(record)
        fields = getattr(record, _FIELDS, {})
        return " ".join([line, *(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())])


@contextmanager
def write_logs(json_output: bool = False) -> Iterator[None]:
    """Writes the logs of this package and of uvicorn to stderr in the block, as text or as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_output else TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("itrex_sweet", "uvicorn")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(logging.INFO if logger is loggers[0] else logging.WARNING)
    try:
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
