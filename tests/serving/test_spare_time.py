"""Tests of the rows that the event loop computes between requests."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

import itrex_sweet
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.serving import spare_time
from itrex_sweet.serving.settings import Settings
from itrex_sweet.serving.spare_time import SpareTime
from tests.serving.test_server_limits import until

LONG = 1e9  # seconds


class Steps:
    """A scheduler with a number of short steps to do."""

    def __init__(self, steps: int, done: list):
        self.left, self.done = steps, done
        self.yields = []
        self.backend = SimpleNamespace(set_yields=self.yields.append)

    def short_step(self, backend, seconds, backlog):
        if self.left == 0:
            return False
        self.left -= 1
        self.done.append(backend)
        return True


def test_other_callbacks_run_between_steps(monkeypatch):
    monkeypatch.setattr(spare_time, "_QUIET_SECONDS", LONG)
    done: list[str] = []

    async def offer():
        loop = asyncio.get_running_loop()
        spare = SpareTime(loop)
        first, second = Steps(3, done), Steps(2, done)
        spare.offer(first, "a")
        spare.offer(second, "b")
        spare.offer(first, "a")
        for _ in range(4):
            await asyncio.sleep(0)
            done.append("other")
        count = len(done)
        spare.offer(first, "a")
        first.left = 1
        await asyncio.sleep(0)
        assert done[count:] == ["a"]

    asyncio.run(offer())
    assert done[:9] == ["a", "b", "other", "a", "b", "other", "a", "other", "other"]


def test_nothing_is_computed_in_turns_with_other_work():
    done: list[str] = []

    async def work():
        loop = asyncio.get_running_loop()
        SpareTime(loop).offer(Steps(3, done), "a")
        for _ in range(20):
            time.sleep(10 * spare_time._QUIET_SECONDS)
            await asyncio.sleep(0)
        assert not done
        while len(done) < 3:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(work(), 60))


def test_an_error_does_not_end_later_steps(monkeypatch):
    monkeypatch.setattr(spare_time, "_QUIET_SECONDS", LONG)
    done: list[str] = []

    async def work():
        loop = asyncio.get_running_loop()
        errors: list[str] = []
        loop.set_exception_handler(lambda loop, context: errors.append(str(context["exception"])))
        spare, broken = SpareTime(loop), Steps(1, None)  # its step raises an AttributeError
        spare.offer(broken, "a")
        await asyncio.sleep(0)
        spare.offer(Steps(1, done), "b")
        await asyncio.sleep(0)
        assert len(errors) == 1 and done == ["b"]

    asyncio.run(work())


def test_the_engine_leaves_a_core_to_an_event_loop_that_has_much_other_work(monkeypatch):
    clock = SimpleNamespace(now=0.0, used=0.0)
    monkeypatch.setattr(
        spare_time, "time", SimpleNamespace(perf_counter=lambda: clock.now, thread_time=lambda: clock.used)
    )

    def use(seconds):
        clock.now += seconds
        clock.used += seconds

    class Computing(Steps):
        def short_step(self, backend, seconds, backlog):
            use(0.1)
            return False

    async def work():
        spare, scheduler = SpareTime(asyncio.get_running_loop()), Computing(0, [])
        for seconds in (0.01, 0.2, 0.2, 0.01):
            spare.offer(scheduler, "a")
            await asyncio.sleep(0)  # computes
            use(seconds)
            clock.now += 0.1  # waits
        spare.offer(scheduler, "a")
        return scheduler.yields

    assert asyncio.run(work()) == [False, False, True, True, False]  # computing does not count


@pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
def test_the_event_loop_computes_rows_that_wait(start, folders, monkeypatch):
    monkeypatch.setattr(spare_time, "_SECONDS", LONG)
    monkeypatch.setattr(spare_time, "_QUIET_SECONDS", LONG)
    monkeypatch.setattr(spare_time, "_BACKLOG_SECONDS", 0.0)
    gate, begun = threading.Event(), threading.Event()
    gate.set()

    def load(folder):
        classifier = itrex_sweet.load(folder)
        for name in ("answer", "embed"):
            function = getattr(classifier.backend, name)

            def waiting(*arguments, function=function):
                if threading.current_thread().name.startswith("itrex-sweet-"):
                    begun.set()
                    gate.wait(60)
                return function(*arguments)

            setattr(classifier.backend, name, waiting)
        return classifier

    running = start({"single": folders["single"]}, Settings(), load)
    expected = [running.post("/predict", {"inputs": text}) for text in ("good room", "cold soup", "slow staff")]
    model = running.server.application.models.get()
    for _ in range(8):  # until the time of a run is known
        assert running.post("/predict", {"inputs": [["good room"], ["cold soup"], ["slow staff"]]})[0] == 200
    begun.clear()
    gate.clear()
    held = threading.Thread(target=running.post, args=("/predict", {"inputs": [["the first"], ["is held"]] * 8}))
    held.start()
    assert begun.wait(60)
    answers = [None] * 3

    def ask(place, text):
        answers[place] = running.post("/predict", {"inputs": text})

    asking = [threading.Thread(target=ask, args=each) for each in enumerate(("good room", "cold soup", "slow staff"))]
    for thread in asking:
        thread.start()
    until(lambda: all(answers))
    assert held.is_alive() and model.scheduler.snapshot().unanswered == 16
    gate.set()
    for thread in (held, *asking):
        thread.join(60)
    assert [answer[0] for answer in answers] == [200] * 3
    assert [answer[1] for answer in answers] == [answer[1] for answer in expected]
