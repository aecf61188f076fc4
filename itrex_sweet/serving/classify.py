"""`/classify` as vLLM or Infinity has it, and `/v1/classify` as vLLM has it.

`/classify` answers in the form that the server's `--classify-shape` says; a request with the field `raw_scores`, which
only Infinity has, is answered as Infinity does.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.failures import EMPTY, INTERNAL, NOT_FOUND, OVERLOADED, OVERLONG, TOKENIZER, VALIDATION
from itrex_sweet.serving.inference import Outcome, Texts
from itrex_sweet.serving.options import Options, flag, options_of
from itrex_sweet.serving.protocol import CLASSIFYING_FAILURES, Protocol, Route
from itrex_sweet.serving.rankings import ranked
from itrex_sweet.serving.schemas import OPTIONS
from itrex_sweet.tasks import MULTI_LABEL, SINGLE_LABEL

_TYPES = {
    NOT_FOUND: "NotFoundError",
    OVERLOADED: "rate_limit_exceeded",
    INTERNAL: "InternalServerError",
}


def _error(failure: RequestError, status: int) -> dict[str, Any]:
    kind = _TYPES.get(failure.kind, "BadRequestError" if status < 500 else "InternalServerError")
    return {"error": {"message": str(failure), "type": kind, "param": None, "code": status}}


PROTOCOL = Protocol(
    "classify",
    _error,
    status={EMPTY: 400, TOKENIZER: 400, OVERLONG: 400, VALIDATION: 422},
    schema={
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code"],
                "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "integer"}},
            }
        },
    },
)


async def classify(exchange: Exchange) -> Reply:
    """Answers `POST /classify`."""
    fields = await exchange.json()
    if "raw_scores" in fields or exchange.settings.classify_shape == "infinity":
        return await _infinity(exchange, fields)
    return await _vllm(exchange, fields)


async def classify_v1(exchange: Exchange) -> Reply:
    """Answers `POST /v1/classify`."""
    return await _vllm(exchange, await exchange.json())


async def _vllm(exchange: Exchange, fields: dict[str, Any]) -> Reply:
    more: dict[str, Any] = {}
    if (length := fields.get("truncate_prompt_tokens")) is not None:
        if isinstance(length, bool) or not isinstance(length, int) or not (length == -1 or 1 <= length < 2**31):
            raise RequestError(VALIDATION, "truncate_prompt_tokens: a positive whole number, or -1.")
        more = {"truncate": True} if length == -1 else {"truncate": True, "max_length": length}
    with_activation = flag(fields, "use_activation", flag(fields, "activation", True))
    outcome = await _outcome(exchange, fields, more)
    scores = outcome.model.artifact.task.scores(outcome.logits) if with_activation else outcome.logits
    data = [
        {
            "index": place,
            "label": _label(outcome, prediction, row),
            "probs": row.tolist(),
            "num_classes": len(outcome.model.labels),
            **{name: prediction[name] for name in ("exit_layer", "stopped_by", "confidence")},
        }
        for place, (prediction, row) in enumerate(zip(outcome.predictions(), scores, strict=True))
    ]
    return Reply({**_frame(outcome, "classify-", "list"), "data": data})


async def _infinity(exchange: Exchange, fields: dict[str, Any]) -> Reply:
    raw = flag(fields, "raw_scores")
    outcome = await _outcome(exchange, fields, {})
    return Reply({**_frame(outcome, "infinity-", "classify"), "data": ranked(outcome, raw)})


async def _outcome(exchange: Exchange, fields: dict[str, Any], more: dict[str, Any]) -> Outcome:
    name = fields.get("model")
    if name is not None and not isinstance(name, str):
        raise RequestError(VALIDATION, "model: the name of a model, a string.")
    options: Options = options_of(fields, exchange.headers, **more)
    return await exchange.answer(exchange.models.get(name), _texts(fields.get("input")), options)


def _texts(given: Any) -> Texts:
    """Returns the texts of `input`: a string, or a list of strings and of pairs of strings."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list):
        rows = [tuple(row) if isinstance(row, list) else row for row in given]
        if all(isinstance(row, str) or _is_pair(row) for row in rows):
            return rows
    raise RequestError(VALIDATION, "input: a string, or a list of strings; [string, string] in the list is a pair.")


def _is_pair(row: Any) -> bool:
    return isinstance(row, tuple) and len(row) == 2 and all(isinstance(part, str) for part in row)


def _label(outcome: Outcome, prediction: dict[str, Any], scores: np.ndarray) -> str | None:
    """Returns the label of the answer; of a multi-label model the most probable one."""
    if outcome.model.artifact.task.name == SINGLE_LABEL:
        return prediction["label"]
    is_multi = outcome.model.artifact.task.name == MULTI_LABEL
    return outcome.model.labels[int(scores.argmax()) if is_multi else 0]


def _frame(outcome: Outcome, prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": prefix + os.urandom(16).hex(),
        "object": kind,
        "created": int(time.time()),
        "model": outcome.model.name,
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens, "completion_tokens": 0},
    }


_REQUEST = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": "string"},
        "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
        "raw_scores": {"type": "boolean", "description": "Answer as Infinity; true returns logits."},
        "use_activation": {"type": "boolean"},
        "truncate_prompt_tokens": {"type": "integer", "minimum": -1},
        **OPTIONS,
    },
}
_RESPONSE = {
    "type": "object",
    "required": ["id", "object", "created", "model", "data", "usage"],
    "properties": {"object": {"type": "string"}, "data": {"type": "array"}, "usage": {"type": "object"}},
}
_SHARED = dict(classifies=True, request=_REQUEST, response=_RESPONSE, failures=CLASSIFYING_FAILURES)

ROUTES = (
    Route("POST", "/classify", classify, PROTOCOL, "Labels of texts, as vLLM or Infinity", **_SHARED),
    Route("POST", "/v1/classify", classify_v1, PROTOCOL, "Labels of texts, as vLLM", **_SHARED),
)
