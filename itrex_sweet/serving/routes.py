"""All routes of a server."""

from __future__ import annotations

from itrex_sweet.serving import text_embeddings
from itrex_sweet.serving.protocol import Route

ROUTES: tuple[Route, ...] = (*text_embeddings.ROUTES,)
