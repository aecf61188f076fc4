"""Messages of the Open Inference Protocol over gRPC, and of gRPC's health check.

The classes are built from descriptors at import, so that one table serves every release of protobuf, and in a pool of
their own, so that a process may also import the protocol's messages from a client library.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
HEALTH = "grpc.health.v1"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
}
_REPEATED, _MAP, _CHOICE = "repeated ", "map ", "choice "
_PARAMETERS = {"parameters": f"{_MAP}InferParameter"}

# Message → its fields in the order of their numbers, which count from 1. A field of the form `repeated T` is a list,
# `map T` a map from strings, and the fields `choice T` of a message exclude one another. A dot nests a message in
# another.
_INFERENCE: dict[str, dict[str, str]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": "bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": "bool"},
    "ModelReadyRequest": {"name": "string", "version": "string"},
    "ModelReadyResponse": {"ready": "bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {"name": "string", "version": "string", "extensions": "repeated string"},
    "ModelMetadataRequest": {"name": "string", "version": "string"},
    "ModelMetadataResponse": {
        **{"name": "string", "versions": "repeated string", "platform": "string"},
        **dict.fromkeys(("inputs", "outputs"), "repeated ModelMetadataResponse.TensorMetadata"),
    },
    "ModelMetadataResponse.TensorMetadata": {"name": "string", "datatype": "string", "shape": "repeated int64"},
    "InferParameter": {
        **{"bool_param": "choice bool", "int64_param": "choice int64", "string_param": "choice string"},
        **{"double_param": "choice double", "uint64_param": "choice uint64"},
    },
    "InferTensorContents": {
        **{"bool_contents": "repeated bool", "int_contents": "repeated int32", "int64_contents": "repeated int64"},
        **{"uint_contents": "repeated uint32", "uint64_contents": "repeated uint64"},
        **{"fp32_contents": "repeated float", "fp64_contents": "repeated double", "bytes_contents": "repeated bytes"},
    },
    "ModelInferRequest": {
        **{"model_name": "string", "model_version": "string", "id": "string", **_PARAMETERS},
        "inputs": "repeated ModelInferRequest.InferInputTensor",
        "outputs": "repeated ModelInferRequest.InferRequestedOutputTensor",
        "raw_input_contents": "repeated bytes",
    },
    "ModelInferRequest.InferInputTensor": {
        **{"name": "string", "datatype": "string", "shape": "repeated int64", **_PARAMETERS},
        "contents": "InferTensorContents",
    },
    "ModelInferRequest.InferRequestedOutputTensor": {"name": "string", **_PARAMETERS},
    "ModelInferResponse": {
        **{"model_name": "string", "model_version": "string", "id": "string", **_PARAMETERS},
        "outputs": "repeated ModelInferResponse.InferOutputTensor",
        "raw_output_contents": "repeated bytes",
    },
    "ModelInferResponse.InferOutputTensor": {
        **{"name": "string", "datatype": "string", "shape": "repeated int64", **_PARAMETERS},
        "contents": "InferTensorContents",
    },
    "ModelRepositoryParameter": {
        **{"bool_param": "choice bool", "int64_param": "choice int64", "string_param": "choice string"},
        "bytes_param": "choice bytes",
    },
    "RepositoryIndexRequest": {"repository_name": "string", "ready": "bool"},
    "RepositoryIndexResponse": {"models": "repeated RepositoryIndexResponse.ModelIndex"},
    "RepositoryIndexResponse.ModelIndex": dict.fromkeys(("name", "version", "state", "reason"), "string"),
    "RepositoryModelLoadRequest": {
        **{"repository_name": "string", "model_name": "string"},
        "parameters": f"{_MAP}ModelRepositoryParameter",
    },
    "RepositoryModelLoadResponse": {},
}
_HEALTH: dict[str, dict[str, str]] = {
    "HealthCheckRequest": {"service": "string"},
    "HealthCheckResponse": {"status": "int32"},  # encoded as the enumeration of the protocol
}


def _classes(package: str, messages: dict[str, dict[str, str]]) -> SimpleNamespace:
    """Returns the classes of messages by name, without the names of the messages that they are nested in."""
    file = descriptor_pb2.FileDescriptorProto(name=f"itrex_sweet/{package}.proto", package=package, syntax="proto3")
    described: dict[str, Any] = {}
    for name, fields in messages.items():
        outer, _, inner = name.rpartition(".")
        message = described[outer].nested_type.add() if outer else file.message_type.add()
        message.name = inner
        described[name] = message
        for number, (field, kind) in enumerate(fields.items(), start=1):
            _add_field(message, f".{package}.{name}", package, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = {
        name.rpartition(".")[2]: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }
    return SimpleNamespace(**found)


def _add_field(message: Any, path: str, package: str, name: str, number: int, kind: str) -> None:
    """Adds a field to a message descriptor.

    Args:
        path: full name of the message.
        kind: type of the field, as in the tables above.
    """
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.startswith(_CHOICE):
        kind = kind.removeprefix(_CHOICE)
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind.startswith(_REPEATED):
        kind, field.label = kind.removeprefix(_REPEATED), _Field.LABEL_REPEATED
    if kind.startswith(_MAP):  # encoded as a list of entries
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, "", package, "key", 1, "string")
        _add_field(entry, "", package, "value", 2, kind.removeprefix(_MAP))
        field.label, field.type, field.type_name = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE, f"{path}.{entry.name}"
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"


MESSAGES = _classes(PACKAGE, _INFERENCE)
HEALTH_MESSAGES = _classes(HEALTH, _HEALTH)
