"""The protocol of text-embeddings-inference: `/predict`, `/info`, `/health`.

`["a", "b"]` is one pair of texts there; a batch is `[["a"], ["b", "c"]]`.
"""

from __future__ import annotations

import time
from typing import Any

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.failures import (
    BACKEND,
    EMPTY,
    INTERNAL,
    OVERLOADED,
    TOKENIZER,
    UNHEALTHY,
    VALIDATION,
)
from itrex_sweet.serving.inference import Outcome, Texts
from itrex_sweet.serving.options import Options, flag, options_of
from itrex_sweet.serving.protocol import CLASSIFYING_FAILURES, Protocol, Route
from itrex_sweet.serving.rankings import ranked
from itrex_sweet.serving.schemas import OPTIONS, RANKING, TEXT_OR_PAIR
from itrex_sweet.version import __version__

_TYPES = {
    **{BACKEND: "Backend", INTERNAL: "Backend", OVERLOADED: "Overloaded", UNHEALTHY: "Unhealthy"},
    **{TOKENIZER: "Tokenizer", EMPTY: "Empty"},
}


def error_type(kind: str) -> str:
    """Returns the name of a kind of failure as text-embeddings-inference has it."""
    return _TYPES.get(kind, "Validation")


PROTOCOL = Protocol(
    "text-embeddings-inference",
    lambda failure, _: {"error": str(failure), "error_type": error_type(failure.kind)},
    schema={
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
    },
)


async def predict(exchange: Exchange) -> Reply:
    """Answers `POST /predict`."""
    fields = await exchange.json()
    texts, is_batch = texts_of(fields.get("inputs"))
    raw = flag(fields, "raw_scores")
    model = exchange.models.get(_name(fields))
    outcome = await exchange.answer(model, texts, _options(fields, exchange))
    rankings = ranked(outcome, raw)
    return Reply(rankings if is_batch else rankings[0], headers=compute_headers(exchange, outcome))


def texts_of(inputs: Any) -> tuple[Texts, bool]:
    """Returns the texts of `inputs`, and whether they are a batch.

    Raises:
        RequestError: another shape.
    """
    if isinstance(inputs, str):
        return [inputs], False
    if isinstance(inputs, list) and inputs:
        if all(isinstance(part, str) for part in inputs) and len(inputs) <= 2:
            return [inputs[0] if len(inputs) == 1 else (inputs[0], inputs[1])], False
        if all(isinstance(row, list) and _is_row(row) for row in inputs):
            return [row[0] if len(row) == 1 else (row[0], row[1]) for row in inputs], True
    raise RequestError(
        EMPTY if inputs == [] else VALIDATION,
        "inputs: a string, a pair [string, string], or a batch [[string], [string, string], ...]. A list of strings is "
        "one pair, so that a batch of single texts is [[string], [string], ...].",
    )


def _is_row(row: list[Any]) -> bool:
    return len(row) in (1, 2) and all(isinstance(part, str) for part in row)


def _name(fields: dict[str, Any]) -> str | None:
    name = fields.get("model")
    if name is not None and not isinstance(name, str):
        raise RequestError(VALIDATION, "model: the name of a model, a string.")
    return name


def _options(fields: dict[str, Any], exchange: Exchange) -> Options:
    direction = fields.get("truncation_direction")
    if direction is not None and direction not in ("right", "Right"):
        raise RequestError(VALIDATION, f"truncation_direction: texts are cut on the right, not {direction!r:.80}.")
    more = {}
    if (truncate := flag(fields, "truncate", None)) is not None:
        more["truncate"] = truncate
    return options_of(fields, exchange.headers, **more)


def compute_headers(exchange: Exchange, outcome: Outcome) -> list[tuple[bytes, bytes]]:
    """Returns the headers that tell times, in milliseconds, and amounts."""
    total = b"%d" % ((time.perf_counter() - exchange.arrived) * 1000.0)
    tokenization, queue, inference = (b"%d" % (seconds * 1000.0) for seconds in outcome.seconds)
    return [
        (b"x-compute-type", b"cpu+optimized"),
        (b"x-compute-time", total),
        (b"x-compute-characters", b"%d" % outcome.characters),
        (b"x-compute-tokens", b"%d" % outcome.tokens),
        (b"x-total-time", total),
        (b"x-tokenization-time", tokenization),
        (b"x-queue-time", queue),
        (b"x-inference-time", inference),
    ]


async def info(exchange: Exchange) -> Reply:
    """Answers `GET /info`: the default model and the limits."""
    model, settings = exchange.models.get(), exchange.settings
    labels = {str(place): name for place, name in enumerate(model.labels)}
    classifier = {"id2label": labels, "label2id": {name: place for place, name in enumerate(model.labels)}}
    return Reply(
        {
            "model_id": model.name,
            "model_sha": model.identity,
            "model_dtype": model.dtype,
            "model_type": {"classifier": classifier},
            "max_concurrent_requests": settings.max_concurrent_requests,
            "max_input_length": model.max_tokens,
            "max_batch_tokens": settings.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": settings.max_client_batch_size,
            "auto_truncate": settings.auto_truncate,
            "tokenization_workers": 2,
            "version": __version__,
            "exits": model.artifact.exits,
            "task": model.artifact.task.name,
            "models": list(exchange.models.sources),
        }
    )


async def health(exchange: Exchange) -> Reply:
    """Answers `GET /health`: status 200 once every model is loaded, and until the server stops."""
    if not exchange.models.is_ready:
        raise RequestError(UNHEALTHY, "unhealthy")
    return Reply()


_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": {
            "oneOf": [
                *TEXT_OR_PAIR["oneOf"],
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
                },
            ]
        },
        "truncate": {"type": "boolean", "nullable": True},
        "truncation_direction": {"type": "string", "enum": ["right"]},
        "raw_scores": {"type": "boolean"},
        "model": {"type": "string"},
        **OPTIONS,
    },
}
_RESPONSE = {"oneOf": [RANKING, {"type": "array", "items": RANKING}]}

ROUTES = (
    Route(
        *("POST", "/predict", predict, PROTOCOL, "Scores of texts or pairs of texts"),
        **dict(classifies=True, request=_REQUEST, response=_RESPONSE, failures=CLASSIFYING_FAILURES),
    ),
    Route("GET", "/info", info, PROTOCOL, "The model and the limits", response={"type": "object"}, failures=(503,)),
    Route("GET", "/health", health, PROTOCOL, "Whether the server is ready", is_public=True, failures=(503,)),
    Route("GET", "/ping", health, PROTOCOL, "Whether the server is ready", is_public=True, failures=(503,)),
)
