"""The Hub's text classification: `POST /` and `POST /models/NAME`, also `/invocations` for SageMaker.

A list of strings is a batch here. The answer is a list per text, as `InferenceClient.text_classification` reads it.
"""

from __future__ import annotations

from typing import Any

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.failures import VALIDATION
from itrex_sweet.serving.inference import Texts
from itrex_sweet.serving.options import Options, flag, options_of
from itrex_sweet.serving.protocol import CLASSIFYING_FAILURES, Protocol, Route
from itrex_sweet.serving.rankings import ranked, ranked_by
from itrex_sweet.serving.schemas import OPTIONS, RANKING

_FUNCTIONS = ("sigmoid", "softmax", "none")

PROTOCOL = Protocol(
    "Hugging Face Inference API",
    lambda failure, _: {"error": str(failure)},
    schema={"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
)


async def classify(exchange: Exchange) -> Reply:
    """Answers texts by labels with descending scores."""
    fields = await exchange.json()
    parameters = fields.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise RequestError(VALIDATION, "parameters: an object.")
    top_k, function = parameters.get("top_k"), parameters.get("function_to_apply")
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise RequestError(VALIDATION, f"top_k: a whole number from 1, not {top_k!r:.80}.")
    if function is not None and function not in _FUNCTIONS:
        raise RequestError(VALIDATION, f"function_to_apply: one of {', '.join(_FUNCTIONS)}, not {function!r:.80}.")
    model = exchange.models.get(exchange.path.get("model"))
    outcome = await exchange.answer(model, _texts(fields.get("inputs")), _options(parameters, exchange))
    if function is None:
        return Reply(ranked(outcome, top_k=top_k))
    return Reply(ranked_by(outcome, function, top_k))


def _options(parameters: dict[str, Any], exchange: Exchange) -> Options:
    truncation = flag(parameters, "truncation", None)
    return options_of(parameters, exchange.headers, **({} if truncation is None else {"truncate": truncation}))


def _texts(inputs: Any) -> Texts:
    """Returns the texts of `inputs`: a string, `{"text", "text_pair"}`, or a list of them."""
    rows = inputs if isinstance(inputs, list) else [inputs]
    texts: Texts = []
    for row in rows:
        if isinstance(row, str):
            texts.append(row)
        elif isinstance(row, dict) and isinstance(row.get("text"), str) and _is_text(row.get("text_pair")):
            pair = row.get("text_pair")
            texts.append(row["text"] if pair is None else (row["text"], pair))
        else:
            raise RequestError(VALIDATION, "inputs: a string, an object of text and text_pair, or a list of them.")
    return texts


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


_TEXT = {
    "oneOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["text"],
            "properties": {"text": {"type": "string"}, "text_pair": {"type": "string", "nullable": True}},
        },
    ]
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": {"oneOf": [*_TEXT["oneOf"], {"type": "array", "minItems": 1, "items": _TEXT}]},
        "parameters": {
            "type": "object",
            "properties": {
                "top_k": {"type": "integer", "minimum": 1},
                "function_to_apply": {"type": "string", "enum": list(_FUNCTIONS)},
                **OPTIONS,
            },
        },
    },
}
_SHARED = dict(
    classifies=True,
    request=_REQUEST,
    response={"type": "array", "items": RANKING},
    failures=CLASSIFYING_FAILURES,
)

ROUTES = tuple(
    Route("POST", path, classify, PROTOCOL, "Labels of texts, as the Hub's inference API", **_SHARED)
    for path in ("/", "/models/{model}", "/invocations")
)
