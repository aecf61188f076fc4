"""The OpenAPI document of a server, made from its routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.options import HEADERS
from itrex_sweet.serving.protocol import Route
from itrex_sweet.serving.schemas import OPTIONS
from itrex_sweet.serving.text_embeddings import PROTOCOL
from itrex_sweet.version import __version__


def document_of(routes: Iterable[Route], models: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the OpenAPI 3.0 document of routes.

    Args:
        models: names of the models that are served.
    """
    names = list(models)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, names)
    return {
        "openapi": "3.0.3",
        "info": {"title": "itrex-sweet", "version": __version__, "license": {"name": "Apache 2.0"}},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: Route, models: list[str]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _of_path(name, models)}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if route.classifies:
        parameters += [
            {"name": header.decode(), "in": "header", "required": False, "schema": _of_header(OPTIONS[name])}
            for header, name in HEADERS.items()
        ]
    answered: dict[str, Any] = {"description": "The answer"}
    if route.response is not None:
        answered["content"] = {"application/json": {"schema": route.response}}
    failed = {"description": "An error", "content": {"application/json": {"schema": route.protocol.schema}}}
    responses = {"200": answered, **{str(status): failed for status in route.failures}}
    if not route.is_public:
        responses["401"] = {"description": "No or another API key"}
    operation = {
        "summary": route.summary,
        "tags": [route.protocol.name],
        "operationId": _identifier(route),
        "parameters": parameters,
        "responses": responses,
        "security": [] if route.is_public else [{}, {"key": []}],
    }
    if route.request is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": route.request}}}
    return operation


def _of_path(name: str, models: list[str]) -> dict[str, Any]:
    """Returns the schema of a parameter in the path."""
    if name == "model" and models:
        return {"type": "string", "enum": models}
    return {"type": "string", "pattern": "^[0-9]+$"} if name == "version" else {"type": "string"}


def _of_header(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of an option in a header, where a threshold is one number."""
    return schema["oneOf"][0] if "oneOf" in schema else schema


def _identifier(route: Route) -> str:
    return re.sub(r"\W+", "_", f"{route.method.lower()}_{route.path}").strip("_")


def document_route(routes: Iterable[Route]) -> Route:
    """Returns the route of the document of routes."""
    described = tuple(routes)

    async def openapi(exchange: Exchange) -> Reply:
        """Answers `GET /openapi.json`."""
        return Reply(document_of(described, exchange.models.sources))

    return Route("GET", "/openapi.json", openapi, PROTOCOL, "This document", response={"type": "object"})
