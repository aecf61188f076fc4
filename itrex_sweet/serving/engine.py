"""Runs packed rows of one model, in a thread of its own."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from itrex_sweet.classifier import Classifier
from itrex_sweet.errors import RequestError
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.call import Call
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.serving.failures import EXPIRED


class Engine:
    """Answers one request after the other.

    Args:
        classifier: runs the rows.
    """

    def __init__(self, classifier: Classifier):
        self._executor = classifier.executor
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="itrex-sweet-engine")

    def submit(self, batch: TokenBatch, request: Call) -> Future[Answers]:
        """Queues rows; cancelling the future drops them."""
        return self._thread.submit(self._run, batch, request)

    def _run(self, batch: TokenBatch, request: Call) -> Answers:
        if request.deadline is not None and time.perf_counter() >= request.deadline:
            raise RequestError(EXPIRED, "the deadline passed before the request was computed.")
        return self._executor.run(batch, request.policy, None, request.deadline)

    def close(self) -> None:
        """Ends the thread, after what is queued."""
        self._thread.shutdown()
