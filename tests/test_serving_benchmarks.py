"""Tests of the load generator and of the simulation of the serving benchmarks."""

import asyncio
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import build_kernels

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
STALL = 0.4  # seconds


@pytest.fixture
def serving(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from serving import generator, simulation

    monkeypatch.setattr(generator, "RUNS", tmp_path)
    yield generator, simulation
    for name in [name for name in sys.modules if name == "record" or name.split(".")[0] == "serving"]:
        sys.modules.pop(name)


@pytest.fixture
def stalling_port():
    """Returns the port of a server that blocks its loop for `STALL` seconds at the first request."""
    ports, loop = [], asyncio.new_event_loop()
    is_first = [True]

    async def answer(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            if is_first[0]:
                is_first[0] = False
                threading.Event().wait(STALL)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()

    ready = threading.Event()
    loop.set_exception_handler(lambda *_: None)
    loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    ready.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.skipif(build_kernels.compiler() is None, reason="the load generator needs a C++ compiler")
def test_latencies_count_from_the_scheduled_arrival_and_answers_belong_to_their_requests(serving, stalling_port):
    generator, _ = serving
    requests = [generator.http_request("/", b"[%d]" % number) for number in range(7)]
    load = generator.open_loop(stalling_port, requests, rate=100, seconds=1.0, connections=1)

    assert (load.status == 200).all()
    assert load.bodies == [b"[%d]" % number for number in load.requests]
    first = load.scheduled[0]
    during = load.within(first, first + STALL / 2)
    assert during.sum() > 5
    assert load.latencies(during).min() > 1000 * STALL / 2 - 50  # they waited for the only connection


def test_percentiles_are_values_of_the_sample(serving):
    generator, _ = serving
    values = np.sort(np.random.default_rng(0).exponential(size=101))
    for percent in (1, 50, 99, 99.9, 100):
        found = generator.exact_percentile(values, percent)
        assert found in values
        assert (values <= found).mean() >= percent / 100
        assert (values < found).mean() < percent / 100


def costs_of(simulation, per_row=0.001, request=1e-9):
    exits, tokens = np.zeros(10, dtype=int), np.full(10, 20)
    return simulation.Costs(((0.0, per_row, 0.0),), {1: 1.0, 2: 2.0}, request, exits, tokens)


def test_simulated_waits_agree_with_the_formula_of_a_queue_with_constant_service(serving):
    """Pollaczek and Khinchine: at a load of 1/2, the mean wait is half of the service time."""
    _, simulation = serving
    costs = costs_of(simulation, request=0.001, per_row=1e-9)
    found = simulation.simulate(costs, simulation.Machine(1, 1), rate=500, count=40_000)
    assert found["loop_share"] == pytest.approx(0.5, abs=0.02)
    assert found["mean"] == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("is_continuous", [True, False])
def test_engines_are_as_busy_as_the_work_and_more_of_them_never_lengthen_the_tail(serving, is_continuous):
    _, simulation = serving
    costs = costs_of(simulation)
    tails = []
    for engines in (1, 2, 4):
        found = simulation.simulate(costs, simulation.Machine(1, engines, 1, is_continuous), rate=600, count=5000)
        assert found["engine_share"] == pytest.approx(0.6 / engines, rel=0.1)
        tails.append(found["p99"])
    assert tails == sorted(tails, reverse=True)


def test_threads_that_share_cores_slow_down_alike(serving):
    _, simulation = serving
    costs = costs_of(simulation, request=0.001)

    def figures(rate, shared):
        return simulation.simulate(costs, simulation.Machine(1, 1, shared=shared), rate=rate, count=5000)

    assert figures(400, 2) == figures(400, None)  # no more threads than cores
    own, shared = figures(400, None)["mean"], figures(400, 1)["mean"]
    assert 1.5 * own < shared < 20 * own  # one core, at a load of 0.8
    assert figures(600, 2)["mean"] < 10 and figures(600, 1)["mean"] > 100  # at a load of 1.2


def test_batches_run_to_the_end_unless_regrouping_pays(serving):
    _, simulation = serving
    exits, tokens = np.arange(100) % 2, np.full(100, 20)

    def runs(fixed):
        costs = simulation.Costs(((fixed, 1e-4, 0.0),) * 2, {1: 1.0, 2: 2.0}, 1e-9, exits, tokens)
        scheduler = simulation.Scheduler(costs, simulation.Machine(1, 1), exits, tokens)
        scheduler.queues[0].extend(range(simulation.BATCH_ROWS + 8))
        return scheduler.take(0.0)

    assert runs(1e-4).to_the_end and not runs(1e-2).to_the_end  # of a run, beside the time of its rows
    assert not runs(0.05).to_the_end  # it takes too long
