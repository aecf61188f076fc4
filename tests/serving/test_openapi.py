"""Tests of the OpenAPI document."""

import re

from itrex_sweet.serving.routes import ROUTES


def test_the_document_has_every_route(served):
    status, document = served.get("/openapi.json")
    assert status == 200 and document["openapi"].startswith("3.")
    described = {(path, method.upper()) for path, of_path in document["paths"].items() for method in of_path}
    assert described == {(route.path, route.method) for route in ROUTES if route.path != "/openapi.json"}


def test_every_described_get_route_answers(served):
    _, document = served.get("/openapi.json")
    values = {"model": "single", "version": served.get("/v2/models/single")[1]["versions"][0]}
    for path, of_path in document["paths"].items():
        if "get" in of_path:
            filled = re.sub(r"\{(\w+)\}", lambda match: values[match[1]], path)
            assert served.get(filled)[0] == 200, filled
