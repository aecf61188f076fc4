"""A deployment of Ray Serve. Replicas embed the scheduler of the runtime: `@serve.batch` is not needed.

serve.run(deployment("DIR", deployment_options={"num_replicas": 4}))
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from itrex_sweet.arguments import non_negative_number, whole_number
from itrex_sweet.classifier.predictions import checked_top_k, predictions_of
from itrex_sweet.cluster.loading import load_for_worker
from itrex_sweet.defaults import DEFAULT_MAX_WAITING_ROWS
from itrex_sweet.errors import InputError, Overloaded, SchedulerClosed, SweetError
from itrex_sweet.extras import require
from itrex_sweet.runtime.runner import Runner
from itrex_sweet.runtime.scheduler import Scheduler

_STATUS_OVERLOADED, _STATUS_CLOSED, _STATUS_INVALID = 429, 503, 422


class SweetDeployment:
    """A replica: classifies the texts of concurrent requests, whose rows run through segments together.

    Args:
        artifact: a folder that exists on each machine, or a repository on the Hub.
        threads: maximum number of threads; by default the CPUs of the replica (`num_cpus` in `ray_actor_options`).
        identity: as of `SweetPredictor`.
        workers: number of threads that run segments.
        max_waiting_rows: rows without an answer, above which requests are refused with `Overloaded`.
        drain_seconds: maximum time to answer accepted requests when the replica is stopped.
        loading: other options of `Classifier.load`.
    """

    def __init__(
        self,
        artifact: str | os.PathLike,
        *,
        threads: int | None = None,
        identity: str | None = None,
        workers: int = 1,
        max_waiting_rows: int = DEFAULT_MAX_WAITING_ROWS,
        drain_seconds: float = 10.0,
        loading: Mapping[str, Any] | None = None,
    ):
        # Ray calls `__del__`, where an error would be lost.
        self._drain_seconds = non_negative_number("drain_seconds", drain_seconds)
        self._classifier = load_for_worker(artifact, threads=threads, identity=identity, **(loading or {}))
        backend, policy = self._classifier.backend, self._classifier.policy
        size = self._classifier.executor.batch_size
        self._scheduler = Scheduler(backend, policy, size, max_waiting_rows=max_waiting_rows)
        self._runner = Runner(self._scheduler, whole_number("workers", workers, minimum=1)).start()
        self._tokenizer_threads = ThreadPoolExecutor(1, thread_name_prefix="itrex-sweet-tokenizer")

    async def classify(
        self,
        texts: list[Any],
        *,
        threshold: Any = None,
        quality: float | None = None,
        max_exit: int | None = None,
        deadline_ms: float | None = None,
        max_length: int | None = None,
        top_k: int | str | None = None,
    ) -> list[dict[str, Any]]:
        """Classifies texts. Cancelling the call drops its rows.

        Args:
            texts, threshold, quality, max_exit, deadline_ms, max_length, top_k: as of `Classifier.predict`.

        Returns:
            one dictionary per text, as `Classifier.predict`; an `error` in it if the logits are not finite.

        Raises:
            InputError, ConfigError: a text or an option is wrong; no text is classified then.
            Overloaded: too many rows are waiting.
        """
        classifier, top_k = self._classifier, checked_top_k(top_k)
        request = classifier._request(threshold, None, quality, max_exit, deadline_ms)
        loop = asyncio.get_running_loop()
        batch = await loop.run_in_executor(self._tokenizer_threads, classifier.read, texts, max_length)
        answers = await asyncio.wrap_future(self._scheduler.submit(batch, request))
        return predictions_of(classifier.backend, answers.request or request, answers, classifier.labels, top_k)[0]

    async def __call__(self, http_request: Any) -> Any:
        """Answers `{"inputs": text or list of texts, "parameters": options of classify}` with a list of dictionaries.

        A wrong request has status 422, one that is refused because of load 429, and one to a replica that stops 503;
        their body is `{"error": reason}`.
        """
        from starlette.responses import JSONResponse

        try:
            texts, options = _parsed(await http_request.body())
            return JSONResponse(await self.classify(texts, **options))
        except Overloaded as error:
            headers = {"Retry-After": str(max(1, round(error.retry_after or 1)))}
            return JSONResponse({"error": str(error)}, _STATUS_OVERLOADED, headers)
        except SchedulerClosed as error:
            return JSONResponse({"error": str(error)}, _STATUS_CLOSED)
        except (SweetError, TypeError) as error:
            return JSONResponse({"error": str(error)}, _STATUS_INVALID)

    def check_health(self) -> None:
        """Raises SchedulerClosed if the replica does not answer any more; called by Ray Serve."""
        if self._scheduler.is_closed:
            raise SchedulerClosed("the scheduler of the replica is closed.")

    def __del__(self) -> None:
        """Answers the accepted requests, and ends the threads; called by Ray Serve when it stops the replica."""
        runner = getattr(self, "_runner", None)
        if runner is not None:
            runner.drain(self._drain_seconds)
            runner.close()
            self._tokenizer_threads.shutdown(wait=False)


def deployment(
    artifact: str | os.PathLike, *, deployment_options: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """Returns an application for `serve.run`.

    Args:
        artifact, options: as of `SweetDeployment`.
        deployment_options: of `ray.serve.deployment`, such as `num_replicas`, `autoscaling_config` and
            `ray_actor_options={"num_cpus": 2}`.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    require("ray", "Ray Serve")
    from ray import serve

    # The scheduler limits the rows that wait, so that Serve has to keep no queue of its own.
    defaults = {"name": "itrex-sweet", "max_ongoing_requests": 1024}
    deployed = serve.deployment(**{**defaults, **(deployment_options or {})})(SweetDeployment)
    return deployed.bind(os.fspath(artifact), **options)


def _parsed(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Returns texts and options of a request.

    Raises:
        InputError: it has another form.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON ({error}).") from error
    inputs = content.get("inputs") if isinstance(content, dict) else None
    options = content.get("parameters") or {} if isinstance(content, dict) else {}
    if isinstance(inputs, str):
        inputs = [inputs]
    if not isinstance(inputs, list) or not isinstance(options, dict):
        raise InputError('the body is not {"inputs": text or list of texts, "parameters": {...}}.')
    return inputs, options
