"""Tests of the fork gate: a fork waits for calls of other threads, not for one of its own thread."""

import os
import threading
import time

import numpy as np
import pytest

from itrex_sweet.runtime import fork_gate
from itrex_sweet.runtime.backends.torch import PackedHidden
from itrex_sweet.runtime.fork_gate import no_fork_meanwhile

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forked(job):
    """Forks, and returns the exit status of the child: 0 if `job()` is true."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(not job())
        finally:
            os._exit(status)
    return status_of(child)


def test_fork_waits_for_another_threads_call():
    inside, left = threading.Event(), threading.Event()

    def compute():
        with no_fork_meanwhile():
            inside.set()
            time.sleep(0.3)
            left.set()

    thread = threading.Thread(target=compute)
    thread.start()
    assert inside.wait(10)
    assert forked(left.is_set) == 0
    thread.join()


def test_fork_inside_a_call_does_not_wait():
    def call_again():
        with no_fork_meanwhile():
            return fork_gate._gate._running == 3

    with no_fork_meanwhile(), no_fork_meanwhile():
        assert forked(call_again) == 0
    assert fork_gate._gate._running == 0 and forked(lambda: fork_gate._gate._running == 0) == 0


def test_wait_for_a_call_has_a_limit(monkeypatch):
    monkeypatch.setattr(fork_gate, "_LONGEST_CALL", 0.1)
    inside, leave = threading.Event(), threading.Event()

    def compute():
        with no_fork_meanwhile():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=compute)
    thread.start()
    assert inside.wait(10)
    assert forked(lambda: True) == 0
    leave.set()
    thread.join()


@pytest.fixture
def ended_thread():
    """Returns the native id of a thread that ran a call and has ended for Python."""
    ids = []

    def compute():
        with no_fork_meanwhile():
            ids.append(threading.get_native_id())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    return ids[0]


def test_fork_waits_for_an_ended_thread_to_leave_the_process(monkeypatch, ended_thread):
    asked = []

    def exists(thread):  # Python forgets a thread before its C++ destructors run
        if thread == ended_thread:
            asked.append(thread)
        return thread == ended_thread and len(asked) < 5

    monkeypatch.setattr(fork_gate, "_exists", exists)
    assert forked(lambda: len(asked) == 5) == 0
    assert forked(lambda: len(asked) == 5) == 0  # it is not waited for again


def test_wait_for_an_ended_thread_has_a_limit(monkeypatch, ended_thread):
    monkeypatch.setattr(fork_gate, "_exists", lambda thread: True)
    monkeypatch.setattr(fork_gate, "_LONGEST_END", 0.1)
    start = time.monotonic()
    assert forked(lambda: True) == 0 and time.monotonic() - start < 10


def test_threads_that_left_the_process_are_removed(monkeypatch, ended_thread):
    monkeypatch.setattr(fork_gate, "_MAX_CALLERS", 1)
    monkeypatch.setattr(fork_gate, "_exists", lambda thread: thread != ended_thread)  # it may take a moment to leave
    fork_gate._gate._callers = {ended_thread: threading.Thread()}
    with no_fork_meanwhile():
        assert list(fork_gate._gate._callers) == [threading.get_native_id()]


def test_selecting_hidden_states_blocks_forks():
    class States:
        def __getitem__(self, places):
            return fork_gate._gate._running

    hidden = PackedHidden(States(), np.array([0, 2, 3]), np.arange(3))
    assert hidden.select(np.array([1])).states == 1 and fork_gate._gate._running == 0
