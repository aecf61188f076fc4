"""Methods of the Open Inference Protocol over gRPC, each as a request of the protocol over HTTP.

A call becomes the HTTP request with the same meaning, and its reply the message, so that both forms share limits,
options, metrics and errors. Texts and numbers travel as Triton's binary tensors in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf import json_format

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.exchange import Reply
from itrex_sweet.serving.failures import NOT_FOUND, UNHEALTHY, VALIDATION
from itrex_sweet.serving.grpc_messages import MESSAGES
from itrex_sweet.serving.open_inference import HEADER_LENGTH, PROTOCOL
from itrex_sweet.serving.tensors import BYTES, FP32, INT64, packed, split_body

_CONTENTS = {BYTES: "bytes_contents", FP32: "fp32_contents", INT64: "int64_contents"}
_NOT_READY = PROTOCOL.reply(RequestError(UNHEALTHY, "")).status


@dataclass
class HttpRequest:
    """A request of the protocol over HTTP.

    Args:
        method, path: as in HTTP, the path without percent-encoding.
        body: its content.
        headers: names in lower case.
    """

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class Method:
    """A method of the service.

    Args:
        request, response: classes of the messages.
        to_http: makes the HTTP request; raises RequestError.
        from_http: makes the response, from the request and a reply of HTTP that reports no failure.
        status: codes of HTTP that are no failure.
    """

    request: Any
    response: Any
    to_http: Callable[[Any], HttpRequest]
    from_http: Callable[[Any, Reply], Any]
    status: tuple[int, ...] = (200,)


def _path(name: str, version: str = "", below: str = "", above: str = "/v2") -> str:
    """Returns the path of a model.

    Raises:
        RequestError: a name or version that is no part of a path.
    """
    if not name or "/" in name:
        raise RequestError(NOT_FOUND, f"there is no model {name[:128]!r}.")
    if "/" in version:
        raise RequestError(NOT_FOUND, f"{name[:128]!r} has no version {version[:32]!r}.")
    return f"{above}/models/{name}{f'/versions/{version}' if version else ''}{below}"


def _of_json(response: Any, field: str | None = None) -> Callable[[Any, Reply], Any]:
    """Returns a function that fills a response with the JSON of a reply, or a list field with its list."""

    def read(_: Any, reply: Reply) -> Any:
        content = {field: reply.content} if field else reply.content
        return json_format.ParseDict(content, response(), ignore_unknown_fields=True)

    return read


def _readiness(response: Any) -> dict[str, Any]:
    return {"from_http": lambda _, reply: response(ready=reply.status == 200), "status": (200, _NOT_READY)}


# ------------------------------------------------------------------ inference


def _infer(request: Any) -> HttpRequest:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(VALIDATION, f"raw_input_contents: {len(raw)} for {len(request.inputs)} inputs.")
    inputs, data = [], []
    for place, tensor in enumerate(request.inputs):
        if raw and tensor.HasField("contents"):
            raise RequestError(
                VALIDATION, f"input {tensor.name!r:.80}: contents and raw_input_contents exclude each other."
            )
        content = raw[place] if raw else packed(_texts(tensor))
        parameters = {**_parameters(tensor.parameters), "binary_data_size": len(content)}
        described = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        inputs.append({**described, "parameters": parameters})
        data.append(content)
    fields: dict[str, Any] = {
        "parameters": {**_parameters(request.parameters), "binary_data_output": _wants_raw(request)},
        "inputs": inputs,
    }
    if request.id:
        fields["id"] = request.id
    if request.outputs:
        fields["outputs"] = [
            {"name": each.name, "parameters": {**_parameters(each.parameters), "binary_data": _wants_raw(request)}}
            for each in request.outputs
        ]
    head = orjson.dumps(fields)
    path = _path(request.model_name, request.model_version, "/infer")
    return HttpRequest("POST", path, b"".join([head, *data]), ((HEADER_LENGTH, b"%d" % len(head)),))


def _texts(tensor: Any) -> Any:
    """Returns the typed contents of an input; raises RequestError for those of another type."""
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != _CONTENTS[BYTES]]
    if others:
        raise RequestError(VALIDATION, f"input {tensor.name!r:.80}: texts stand in bytes_contents, not {others[0]}.")
    return tensor.contents.bytes_contents


def _wants_raw(request: Any) -> bool:
    """Returns whether outputs are raw: where the inputs are."""
    return bool(request.raw_input_contents)


def _parameters(given: Any) -> dict[str, Any]:
    parameters = {}
    for name, value in given.items():
        if kind := value.WhichOneof("parameter_choice"):
            parameters[name] = getattr(value, kind)
            if isinstance(parameters[name], float) and not math.isfinite(parameters[name]):
                raise RequestError(VALIDATION, f"parameter {name!r:.80}: a finite number, not {parameters[name]}.")
    return parameters


def _inferred(_: Any, reply: Reply) -> Any:
    fields, data = split_body(reply.body, dict(reply.headers).get(HEADER_LENGTH))
    response = MESSAGES.ModelInferResponse(
        model_name=fields["model_name"], model_version=fields["model_version"], id=fields.get("id", "")
    )
    for tensor in fields["outputs"]:
        described = {name: tensor[name] for name in ("name", "datatype", "shape")}
        if "data" in tensor:
            values = tensor["data"]
            if tensor["datatype"] == BYTES:
                values = [value.encode() for value in values]
            contents = MESSAGES.InferTensorContents(**{_CONTENTS[tensor["datatype"]]: values})
            response.outputs.add(**described, contents=contents)
        else:
            size = tensor["parameters"]["binary_data_size"]
            response.outputs.add(**described)
            response.raw_output_contents.append(bytes(data[:size]))
            data = data[size:]
    return response


# ------------------------------------------------------------------ table


def _method(name: str, to_http: Callable[[Any], HttpRequest], **more: Any) -> tuple[str, Method]:
    request, response = getattr(MESSAGES, f"{name}Request"), getattr(MESSAGES, f"{name}Response")
    more.setdefault("from_http", _of_json(response))
    return name, Method(request, response, to_http, **more)


METHODS: dict[str, Method] = dict(
    [
        _method("ServerLive", lambda _: HttpRequest("GET", "/v2/health/live")),
        _method(
            "ServerReady",
            lambda _: HttpRequest("GET", "/v2/health/ready"),
            **_readiness(MESSAGES.ServerReadyResponse),
        ),
        _method(
            "ModelReady",
            lambda request: HttpRequest("GET", _path(request.name, request.version, "/ready")),
            **_readiness(MESSAGES.ModelReadyResponse),
        ),
        _method("ServerMetadata", lambda _: HttpRequest("GET", "/v2")),
        _method("ModelMetadata", lambda request: HttpRequest("GET", _path(request.name, request.version))),
        _method("ModelInfer", _infer, from_http=_inferred),
        _method(
            "RepositoryIndex",
            lambda request: HttpRequest("POST", "/v2/repository/index", orjson.dumps({"ready": request.ready})),
            from_http=_of_json(MESSAGES.RepositoryIndexResponse, "models"),
        ),
        _method(
            "RepositoryModelLoad",
            lambda request: HttpRequest(
                "POST",
                _path(request.model_name, "", "/load", "/v2/repository"),
                orjson.dumps({"parameters": list(request.parameters)}),
            ),
            from_http=lambda _, reply: MESSAGES.RepositoryModelLoadResponse(),
        ),
    ]
)
