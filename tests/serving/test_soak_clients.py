"""Tests of the clients of the soak test."""

import asyncio
import json

import pytest

from tests.soak import serving


@pytest.mark.parametrize(("kind", "kept"), [("plain", 1), ("slow", 0), ("leaving", 0)])
def test_only_connections_that_are_used_again_are_kept(monkeypatch, kind, kept):
    """A client at a high rate would run out of files."""
    monkeypatch.setattr(serving, "SLOW_SECONDS", 0.01)
    answer = {"label": "a", "score": 0.5}

    async def serve(reader, writer):
        while not reader.at_eof():
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            content = json.dumps([[answer] for _ in json.loads(body)["inputs"]]).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content)

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # of clients that leave
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        soak = serving.Soak(server.sockets[0].getsockname()[1], ["good"], [answer])
        for _ in range(3):
            await soak.one(kind)
        server.close()
        return soak

    soak = asyncio.run(run())
    assert len(soak._idle) == kept
    assert soak.counts["answered"] == (0 if kind == "leaving" else 3)
    assert soak.counts["lost"] == soak.counts["different"] == soak.counts["doubled"] == 0
