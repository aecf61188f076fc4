"""One HTTP request and its reply, as the protocols see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from itrex_sweet.serving.body import Headers, UnfinishedBodies, json_object, read_body, refuse_other_types
from itrex_sweet.serving.completion import Receive
from itrex_sweet.serving.inference import Inference, Outcome, Texts
from itrex_sweet.serving.models import Model, Models
from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.options import Options
from itrex_sweet.serving.settings import Settings

JSON_TYPE = b"application/json"


@dataclass
class Reply:
    """Reply to a request.

    Args:
        content: bytes, or an object to write as JSON.
        headers: further headers.
    """

    content: Any = b""
    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_type: bytes = JSON_TYPE

    @property
    def body(self) -> bytes:
        """The content as bytes."""
        content = self.content
        return content if isinstance(content, bytes) else orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


@dataclass
class Exchange:
    """One request, and what answers it.

    Args:
        headers: of the request, names in lower case.
        path: values of the parameters in the path.
        receive: of ASGI.
        unfinished: bodies of all requests that have not arrived whole.
        arrived: time of `time.perf_counter`.
        seen: notes what happens to a request for classification.
    """

    settings: Settings
    models: Models
    inference: Inference
    headers: Headers
    path: dict[str, str]
    receive: Receive
    unfinished: UnfinishedBodies
    arrived: float
    seen: Observation | None = None
    _body: bytes | None = None

    async def body(self) -> bytes:
        """Reads the body at the first call, within the server's limits."""
        if self._body is None:
            limit, seconds = self.settings.payload_limit, self.settings.read_seconds
            self._body = await read_body(self.receive, self.headers, limit, seconds, self.unfinished)
        return self._body

    async def json(self) -> dict[str, Any]:
        """Reads the body as a JSON object.

        Raises:
            RequestError: it is something else, or too long.
        """
        refuse_other_types(self.headers)
        return json_object(await self.body())

    async def answer(self, model: Model, texts: Texts, options: Options) -> Outcome:
        """Answers texts; see `Inference.answer`. Cancels them if the client leaves."""
        return await self.inference.answer(model, texts, options, self.arrived, self.receive, self.seen)
