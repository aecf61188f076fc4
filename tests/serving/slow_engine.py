"""A classifier whose engine waits for a gate, so that tests decide when rows are computed."""

import threading

import itrex_sweet


class Gate:
    """Loads classifiers whose engine computes only while the gate is open."""

    def __init__(self):
        self.opened = threading.Event()
        self.opened.set()
        self.reached = threading.Semaphore(0)

    def load(self, folder):
        classifier = itrex_sweet.load(folder)
        backend = classifier.backend
        for name in ("embed", "answer"):
            setattr(backend, name, self._gated(getattr(backend, name)))
        backend.context = lambda threads=1: backend  # the event loop, which has a context, never waits for the gate
        return classifier

    def _gated(self, method):
        def call(*args, **options):
            self.reached.release()
            assert self.opened.wait(60)
            return method(*args, **options)

        return call

    def close(self):
        self.opened.clear()
        while self.reached.acquire(blocking=False):
            pass

    def wait_until_reached(self):
        assert self.reached.acquire(timeout=60)

    def open(self):
        self.opened.set()
