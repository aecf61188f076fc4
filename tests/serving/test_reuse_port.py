"""Servers that share a port."""

import threading

import pytest

import itrex_sweet


def _rows_answered(*servers):
    """Returns the number of texts that each server has answered."""
    for each in servers:
        each.server.observer.count()
    return [int(sum(model.rows.sum() for model in each.server.observer.models.values())) for each in servers]


def test_servers_share_a_port(start, folders):
    first = start(folders, reuse_port=True)
    second = start(folders, reuse_port=True, port=first.port)
    for _ in range(40):
        assert first.post("/predict", {"inputs": "good soup"})[0] == 200
    counts = _rows_answered(first, second)
    assert sum(counts) == 40
    assert min(counts) > 0  # by chance, all connections reach one server once in 10^11 runs


@pytest.mark.parametrize(("first", "second"), [(False, False), (True, False), (False, True)])
def test_port_is_shared_only_if_both_servers_allow_it(start, folders, first, second):
    port = start(folders, reuse_port=first).port
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1 port {port}"):
        start(folders, reuse_port=second, port=port)


def test_server_gets_no_connections_before_it_is_ready(start, folders):
    is_loading, may_load = threading.Event(), threading.Event()

    def load(folder):
        is_loading.set()
        assert may_load.wait(60)
        return itrex_sweet.load(folder)

    first, others = start(folders, reuse_port=True), []
    starting = threading.Thread(
        target=lambda: others.append(start(folders, load=load, reuse_port=True, port=first.port))
    )
    starting.start()
    try:
        assert is_loading.wait(60)
        for _ in range(20):
            assert first.post("/predict", {"inputs": "good soup"})[0] == 200
    finally:
        may_load.set()
        starting.join()
    assert _rows_answered(first, *others) == [20, 0]
