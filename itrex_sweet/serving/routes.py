"""All routes of a server."""

from __future__ import annotations

from itrex_sweet.serving import classify, hub, open_inference, text_embeddings
from itrex_sweet.serving.openapi import document_route
from itrex_sweet.serving.protocol import Route

_DESCRIBED = (*text_embeddings.ROUTES, *open_inference.ROUTES, *classify.ROUTES, *hub.ROUTES)

ROUTES: tuple[Route, ...] = (*_DESCRIBED, document_route(_DESCRIBED))
