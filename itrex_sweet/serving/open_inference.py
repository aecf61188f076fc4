"""The Open Inference Protocol v2 over REST, with Triton's binary tensors and repository of models.

Inputs are `text` and, for pairs, `text_pair`: BYTES of shape [texts] or [texts, 1]. A lone input may have any name.
Outputs are `label`, `score`, `exit_layer`, `stopped_by` and `confidence` of shape [texts]; on request also `scores` and
`logits`, of shape [texts, labels]. A multi-label model has `decisions`, 1 where a label is on, in place of `label`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.body import json_object
from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.failures import (
    EMPTY,
    NOT_FOUND,
    OVERLONG,
    TOKENIZER,
    TOO_MANY_TEXTS,
    UNHEALTHY,
    VALIDATION,
)
from itrex_sweet.serving.inference import Outcome, Texts
from itrex_sweet.serving.models import Model
from itrex_sweet.serving.options import Options, flag, options_of
from itrex_sweet.serving.protocol import CLASSIFYING_FAILURES, Protocol, Route
from itrex_sweet.serving.tensors import BYTES, FP32, INT64, output, parameters_of, split_body, strings_of
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION
from itrex_sweet.version import __version__

HEADER_LENGTH = b"inference-header-content-length"
_DEFAULT_PRIORITY = 2  # Triton's levels count from 1, the first to be served; 0 is the default

PROTOCOL = Protocol(
    "Open Inference Protocol",
    lambda failure, _: {"error": str(failure) or "unauthorized"},
    status={VALIDATION: 400, EMPTY: 400, TOKENIZER: 400, OVERLONG: 400, TOO_MANY_TEXTS: 400},
    schema={"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
)


async def server(exchange: Exchange) -> Reply:
    """Answers `GET /v2`."""
    extensions = ["binary_tensor_data", *(["model_repository"] if exchange.settings.reload_route else [])]
    return Reply({"name": "itrex-sweet", "version": __version__, "extensions": extensions})


async def live(exchange: Exchange) -> Reply:
    """Answers `GET /v2/health/live`: status 200 while the server runs."""
    return Reply({"live": True})


async def ready(exchange: Exchange) -> Reply:
    """Answers `GET /v2/health/ready`."""
    if not exchange.models.is_ready:
        raise RequestError(UNHEALTHY, "the server loads its models, or stops.")
    return Reply({"ready": True})


async def model_ready(exchange: Exchange) -> Reply:
    """Answers `GET /v2/models/M/ready`."""
    model = _model(exchange)
    return Reply({"name": model.name, "ready": True})


async def metadata(exchange: Exchange) -> Reply:
    """Answers `GET /v2/models/M`."""
    model = _model(exchange)
    texts = {"datatype": BYTES, "shape": [-1]}
    return Reply(
        {
            "name": model.name,
            "versions": [str(model.version)],
            "platform": "itrex_sweet",
            "inputs": [{"name": "text", **texts}, {"name": "text_pair", **texts}],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": [-1, len(model.labels)] if is_wide else [-1]}
                for name, (datatype, is_wide, _) in _outputs(model).items()
            ],
        }
    )


async def infer(exchange: Exchange) -> Reply:
    """Answers `POST /v2/models/M/infer`."""
    header_length = exchange.headers.get(HEADER_LENGTH)
    if header_length is None:
        fields, binary = await exchange.json(), memoryview(b"")
    else:
        fields, binary = split_body(await exchange.body(), header_length)
        if not isinstance(fields, dict):
            raise RequestError(VALIDATION, "the body must begin with a JSON object.")
    model = _model(exchange)  # after the body, which may take time, in which the model may be replaced
    identifier = fields.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise RequestError(VALIDATION, f"id: a string, not {identifier!r:.80}.")
    wanted = _wanted(fields, model)
    texts = _texts(fields.get("inputs"), binary)
    outcome = await exchange.answer(model, texts, _options(fields, exchange))
    tensors, data = [], []
    for name, (is_binary, classes) in wanted.items():
        datatype, _, values = _outputs(model)[name]
        if classes:
            datatype, found = BYTES, _classes(outcome, values(outcome), classes)
        else:
            found = values(outcome)
        tensor, part = output(name, datatype, found, is_binary)
        if classes:
            tensor["shape"] = [len(texts), len(found) // len(texts)]
        tensors.append(tensor)
        data.append(part)
    reply = Reply({"model_name": model.name, "model_version": str(model.version), "outputs": tensors})
    if identifier:
        reply.content["id"] = identifier
    if any(is_binary for is_binary, _ in wanted.values()):
        head = reply.body
        reply.headers.append((HEADER_LENGTH, b"%d" % len(head)))
        reply.content, reply.content_type = b"".join([head, *data]), b"application/octet-stream"
    return reply


def _model(exchange: Exchange) -> Model:
    return exchange.models.get(exchange.path["model"], exchange.path.get("version"))


def _texts(inputs: Any, binary: memoryview) -> Texts:
    """Returns the texts or pairs of the input tensors."""
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= 2 or not all(isinstance(each, dict) for each in inputs):
        raise RequestError(VALIDATION, "inputs: a list of the tensor text, and for pairs text_pair.")
    named: dict[Any, list[str]] = {}
    read = []
    for tensor in inputs:
        values, shape, binary = strings_of(tensor, binary)
        read.append((tensor.get("name"), values, shape))
    if binary:
        raise RequestError(VALIDATION, f"inputs: {len(binary)} bytes follow the binary data of the last tensor.")
    for name, values, shape in read:
        if not isinstance(name, str) or name in named:
            raise RequestError(VALIDATION, f"inputs: each needs a name of its own, not {name!r:.80}.")
        if len(shape) == 2 and shape[1] == 2 and len(inputs) == 1:
            return list(zip(values[::2], values[1::2], strict=True))
        if len(shape) == 2 and shape[1] != 1:
            raise RequestError(VALIDATION, f"input {name!r:.80}: its shape must be [texts], [texts, 1] or [texts, 2].")
        named[name] = values
    if len(named) == 1:
        if "text_pair" in named:
            raise RequestError(VALIDATION, "inputs: text_pair without text.")
        return list(next(iter(named.values())))
    if set(named) != {"text", "text_pair"}:
        raise RequestError(VALIDATION, "inputs: two tensors are named text and text_pair.")
    if len(named["text"]) != len(named["text_pair"]):
        raise RequestError(VALIDATION, "inputs: text and text_pair have different lengths.")
    return list(zip(named["text"], named["text_pair"], strict=True))


def _options(fields: dict[str, Any], exchange: Exchange) -> Options:
    """Reads the parameters of a request; `timeout` in microseconds and `priority` as Triton has them."""
    parameters = dict(parameters_of(fields, "the request"))
    timeout, priority = parameters.pop("timeout", None), parameters.pop("priority", None)
    for name, value in (("timeout", timeout), ("priority", priority)):
        is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**15
        if value is not None and not is_number:
            raise RequestError(VALIDATION, f"{name}: a whole number from 0, not {value!r:.80}.")
    if timeout:
        parameters["deadline_ms"] = timeout / 1000.0
    if priority:
        parameters["priority"] = min(priority, 100) - _DEFAULT_PRIORITY
    return options_of(parameters, exchange.headers)


def _wanted(fields: dict[str, Any], model: Model) -> dict[str, tuple[bool, int]]:
    """Returns the names of the outputs, whether each is binary, and the number of classes to return as strings."""
    known = _outputs(model)
    by_default = flag(parameters_of(fields, "the request"), "binary_data_output")
    outputs = fields.get("outputs")
    if outputs is None or outputs == []:
        return {name: (by_default, 0) for name, (_, is_wide, _) in known.items() if not is_wide or name == "decisions"}
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise RequestError(VALIDATION, "outputs: a list of objects with a name.")
    wanted = {}
    for each in outputs:
        name = each.get("name")
        if not isinstance(name, str) or name not in known:
            raise RequestError(VALIDATION, f"there is no output {name!r:.80}; there are {', '.join(known)}.")
        parameters = parameters_of(each, f"output {name}")
        classes = parameters.get("classification", 0)
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0 or (classes and not known[name][1]):
            raise RequestError(
                VALIDATION, f"output {name}: classification is a number of classes, of scores or logits."
            )
        wanted[name] = (flag(parameters, "binary_data", by_default), min(classes, len(model.labels)))
    return wanted


Reads = Callable[[Outcome], Any]


def _outputs(model: Model) -> dict[str, tuple[str, bool, Reads]]:
    """Returns datatype, whether there is a value per label, and the reader of each output of a model."""

    def column(name: str) -> Reads:
        return lambda outcome: [prediction[name] for prediction in outcome.rows]

    def numbers(name: str, kind: Any) -> Reads:
        return lambda outcome: np.array(column(name)(outcome), dtype=kind)

    task = model.artifact.task
    first: dict[str, tuple[str, bool, Reads]]
    if task.name == REGRESSION:
        first = {"score": (FP32, False, numbers("score", np.float32))}
    elif task.name == MULTI_LABEL:
        first = {"decisions": (INT64, True, _decisions)}
    else:
        first = {"label": (BYTES, False, column("label")), "score": (FP32, False, numbers("score", np.float32))}
    return {
        **first,
        "exit_layer": (INT64, False, numbers("exit_layer", np.int64)),
        "stopped_by": (BYTES, False, column("stopped_by")),
        "confidence": (FP32, False, lambda outcome: outcome.answers.confidence),
        "scores": (FP32, True, lambda outcome: task.scores(outcome.logits)),
        "logits": (FP32, True, lambda outcome: outcome.logits),
    }


def _decisions(outcome: Outcome) -> np.ndarray:
    thresholds = outcome.request.policy.label_thresholds
    return outcome.model.artifact.task.decisions(outcome.logits, label_thresholds=thresholds)


def _classes(outcome: Outcome, scores: np.ndarray, classes: int) -> list[str]:
    """Returns the greatest values of each text as `value:index:label`, as Triton does."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :classes]
    names = outcome.model.labels
    return [
        f"{row[place]:f}:{place}:{names[place]}"
        for row, places in zip(scores, order.tolist(), strict=True)
        for place in places
    ]


# ------------------------------------------------------------------ repository of models


async def index(exchange: Exchange) -> Reply:
    """Answers `POST /v2/repository/index`."""
    body = await exchange.body()
    only_ready = bool(body) and flag(json_object(body), "ready")
    models = {model.name: model for model in exchange.models}
    return Reply(
        [
            {"name": name, "version": str(models[name].version), "state": "READY", "reason": ""}
            if name in models
            else {"name": name, "state": "LOADING", "reason": ""}
            for name in exchange.models.sources
            if name in models or not only_ready
        ]
    )


async def load(exchange: Exchange) -> Reply:
    """Answers `POST /v2/repository/models/M/load`: serves what the model's folder holds now."""
    if not exchange.settings.reload_route:
        raise RequestError(NOT_FOUND, "models are not loaded on request; itrex-sweet serve --reload-route allows it.")
    if (body := await exchange.body()) and json_object(body).get("parameters"):
        raise RequestError(VALIDATION, "parameters: a model is loaded as its folder holds it, without other settings.")
    model = await exchange.models.replace(exchange.path["model"])
    return Reply({"name": model.name, "version": str(model.version)})


_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
        "datatype": {"type": "string", "enum": [BYTES]},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {"type": "string"}},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 2},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
            },
        },
    },
}
_OBJECT = {"type": "object"}
_RESPONSE = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {"model_name": {"type": "string"}, "outputs": {"type": "array", "items": {"type": "object"}}},
}


def _of_models(method: str, below: str, handle: Any, summary: str, **more: Any) -> tuple[Route, Route]:
    """Returns a route of a model and that of its version."""
    return (
        Route(method, f"/v2/models/{{model}}{below}", handle, PROTOCOL, summary, **more),
        Route(method, f"/v2/models/{{model}}/versions/{{version}}{below}", handle, PROTOCOL, summary, **more),
    )


ROUTES = (
    *_of_models(
        *("POST", "/infer", infer, "Labels and scores of texts"),
        **dict(classifies=True, request=_REQUEST, response=_RESPONSE, failures=CLASSIFYING_FAILURES),
    ),
    *_of_models("GET", "", metadata, "Inputs and outputs of a model", response=_OBJECT, failures=(404, 503)),
    *_of_models("GET", "/ready", model_ready, "Whether a model is ready", response=_OBJECT, failures=(404, 503)),
    Route("GET", "/v2", server, PROTOCOL, "The server", response=_OBJECT),
    Route("GET", "/v2/health/live", live, PROTOCOL, "Whether the server runs", is_public=True, response=_OBJECT),
    Route(
        *("GET", "/v2/health/ready", ready, PROTOCOL, "Whether the server is ready"),
        **dict(is_public=True, response=_OBJECT, failures=(503,)),
    ),
    Route(
        *("POST", "/v2/repository/index", index, PROTOCOL, "The models"),
        **dict(request=_OBJECT, response={"type": "array"}, failures=(400, 408, 413, 415)),
    ),
    Route(
        *("POST", "/v2/repository/models/{model}/load", load, PROTOCOL, "Load the folder of a model again"),
        **dict(request=_OBJECT, response=_OBJECT, failures=(400, 404, 408, 413, 415, 424, 503)),
    ),
)
