"""Tests of the replica of Ray Serve without Ray: requests in one event loop."""

import asyncio
import json

import pytest

import itrex_sweet
from itrex_sweet.cluster import SweetDeployment
from itrex_sweet.errors import ConfigError, InputError, Overloaded
from tests.cluster.conftest import texts


def run(artifact, body, **options):
    """Runs a coroutine function on a replica, and stops the replica."""

    async def main():
        replica = SweetDeployment(artifact, **options)
        try:
            return await body(replica)
        finally:
            replica.__del__()

    return asyncio.run(main())


def test_concurrent_requests_get_their_own_answers(artifact):
    given = [texts(1 + place % 5, place) for place in range(60)]
    options = [{"max_exit": 1}, {"threshold": 0.4}, {"top_k": 2}, {}]

    async def body(replica):
        calls = [replica.classify(group, **options[place % 4]) for place, group in enumerate(given)]
        return await asyncio.gather(*calls)

    classifier = itrex_sweet.load(artifact)
    found = run(artifact, body)
    assert found == [classifier.predict(group, **options[place % 4]) for place, group in enumerate(given)]


def test_cancelled_and_wrong_requests_do_not_disturb_others(artifact):
    given = texts(40)

    async def body(replica):
        calls = [asyncio.ensure_future(replica.classify([text])) for text in given]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(InputError, match="cannot be read"):
            await replica.classify(["a", ""])
        with pytest.raises(ConfigError, match="max_exit=3"):
            await replica.classify(["a"], max_exit=3)
        return found

    found = run(artifact, body)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in found[::2])
    assert [answer[0] for answer in found[1::2]] == itrex_sweet.load(artifact).predict(given[1::2])


def test_more_rows_than_may_wait_are_refused(artifact):
    async def body(replica):
        calls = [replica.classify(texts(8)) for _ in range(50)]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = run(artifact, body, max_waiting_rows=8)
    expected = itrex_sweet.load(artifact).predict(texts(8))
    refused = [answer for answer in found if isinstance(answer, Overloaded)]
    assert refused and [answer for answer in found if answer not in refused] == [expected] * (50 - len(refused))


def test_http(artifact):
    pytest.importorskip("starlette", reason="starlette, which Ray Serve brings, is not installed")

    class Request:
        def __init__(self, content):
            self.content = content

        async def body(self):
            return self.content

    async def body(replica):
        async def answer(content):
            answered = await replica(Request(content))
            return answered.status_code, json.loads(answered.body)

        return [
            await answer(content)
            for content in (
                b'{"inputs": "never again"}',
                b'{"inputs": ["never again", "a room"], "parameters": {"max_exit": 1}}',
                b"{",
                b'{"inputs": 3}',
                b'{"inputs": "a", "parameters": {"nothing": 1}}',
            )
        ]

    found = run(artifact, body)
    classifier = itrex_sweet.load(artifact)
    assert found[0] == (200, classifier.predict(["never again"]))
    assert found[1] == (200, classifier.predict(["never again", "a room"], max_exit=1))
    assert [status for status, _ in found[2:]] == [422] * 3 and all(answer["error"] for _, answer in found[2:])
