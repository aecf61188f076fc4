"""Answers parts by actors of Ray.

A part is sent again if its actor or the node of the actor ends. Only this process writes files, so that an answer that
arrives late from an actor that was given up is dropped, and no part is written twice.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from itrex_sweet.cluster.parts import Part, PartAnswerer, PartAnswers, Question
from itrex_sweet.errors import SweetError
from itrex_sweet.extras import require

logger = logging.getLogger(__name__)

_IN_FLIGHT = 2  # parts per actor, so that the next one is there when an actor finishes one
_ATTEMPTS = 5  # of a part whose actors end
_WAIT_SECONDS = 1.0  # for an answer, before checking other things
_NOTICE_SECONDS = 30.0  # without an actor, before it is reported
_GIVE_UP_SECONDS = 600.0  # without an actor, if actors that were started ended
_RESTART_SECONDS = 1.0  # before an actor that ended is called again


class RayActor:
    """A worker: loads the artifact at its first call, so that an error is raised there and not by the actor's start."""

    def __init__(self, answerer: Mapping[str, Any]):
        self._arguments = answerer
        self._answerer: PartAnswerer | None = None

    def load(self) -> str:
        """Loads the artifact, and returns backend and instruction set."""
        if self._answerer is None:
            self._answerer = PartAnswerer(**self._arguments)
        return self._answerer.engine

    def answer(self, question: Question) -> PartAnswers:
        """Returns the answers of a part."""
        self.load()
        return self._answerer.answer(question)  # type: ignore[union-attr]


class RayWorkers:
    """Answers parts by a number of actors.

    Connects to a cluster, or starts one on this machine, unless the process is connected already.

    Args:
        answerer: arguments of `PartAnswerer`; its `threads` are the CPUs of an actor, 1 if `None`.
        echo: whether answers repeat texts.
        workers: number of actors. Those for which there are no CPUs wait until there are.
        address: of the cluster, such as `auto` or `ray://HOST:10001`; `None` starts one on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        SweetError: the cluster cannot be reached.
    """

    def __init__(self, answerer: Mapping[str, Any], echo: bool, workers: int, address: str | None = None):
        self._ray = ray = require("ray", "predict --ray")
        self._lost = (
            ray.exceptions.RayActorError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        )
        self._echo = echo
        self._is_own = not ray.is_initialized()
        if self._is_own:
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise SweetError(f"address={address!r}: no Ray cluster can be reached ({error}).") from error
        cpus = answerer["threads"] or 1
        actor = ray.remote(num_cpus=cpus, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD")(RayActor)
        self._cpus = cpus
        self._actors = [actor.remote({**answerer, "threads": cpus}) for _ in range(workers)]

    def answered(self, parts: Iterator[Part]) -> Iterator[tuple[Part, PartAnswers]]:
        """Yields each part with its answers, in the order in which they arrive.

        Raises:
            SweetError: an error of the artifact or its settings, or a part whose actor ends again and again.
        """
        ray, calls = self._ray, _Calls(self._actors)
        again: deque[Part] = deque()
        for actor in range(len(self._actors)):
            calls.load(actor)
        is_read = False
        while True:
            while (actor := calls.free_actor()) is not None and not (is_read and not again):
                part = again.popleft() if again else next(parts, None)
                if part is None:
                    is_read = True
                else:
                    calls.ask(actor, part, part.question(self._echo))
            if is_read and not again and not calls.parts:
                return
            calls.load_again()
            if not (waiting := calls.waiting()):
                time.sleep(_RESTART_SECONDS / 10)
                continue
            finished, _ = ray.wait(waiting, num_returns=1, timeout=_WAIT_SECONDS)
            if not finished:
                calls.report_waiting(self._cpus)
            for reference in finished:
                actor, part = calls.take(reference)
                try:
                    value = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(cause := error.cause, SweetError):
                        raise cause from None
                    raise
                except self._lost as error:
                    calls.lose(actor, error)
                    if part is not None:
                        calls.count_attempt(part, error)
                        again.append(part)
                    continue
                if part is None:
                    calls.note_loaded(actor, value)
                else:
                    yield part, value

    def close(self) -> None:
        """Ends the actors, and the cluster if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._is_own:
            self._ray.shutdown()


class _Calls:
    """The calls of actors that have not returned.

    Args:
        actors: handles.
    """

    def __init__(self, actors: list[Any]):
        self._actors = actors
        self.parts: dict[Any, tuple[int, Part]] = {}  # by reference of the call
        self._loading: dict[Any, int] = {}
        self._load = dict.fromkeys(range(len(actors)), 0)  # number of parts of each actor
        self._is_ready = [False] * len(actors)
        self._attempts: dict[str, int] = {}
        self._engines: set[str] = set()
        self._lost: dict[int, float] = {}  # actors to load again, and the time
        self._changed = self._was_ready = time.monotonic()

    def load(self, actor: int) -> None:
        """Asks an actor to load the artifact; it gets parts once it has."""
        self._is_ready[actor] = False
        self._loading[self._actors[actor].load.remote()] = actor

    def free_actor(self) -> int | None:
        """Returns the ready actor with the fewest parts, if it has room for another."""
        ready = [actor for actor, is_ready in enumerate(self._is_ready) if is_ready]
        actor = min(ready, key=self._load.__getitem__, default=None)
        return actor if actor is not None and self._load[actor] < _IN_FLIGHT else None

    def ask(self, actor: int, part: Part, question: Question) -> None:
        """Sends a part to an actor."""
        self._load[actor] += 1
        self.parts[self._actors[actor].answer.remote(question)] = actor, part

    def waiting(self) -> list[Any]:
        """Returns the references of all calls."""
        return [*self.parts, *self._loading]

    def take(self, reference: Any) -> tuple[int, Part | None]:
        """Returns actor and part of a call that has ended; `None` for a call of `load`."""
        self._changed = time.monotonic()
        if reference in self._loading:
            return self._loading.pop(reference), None
        actor, part = self.parts.pop(reference)
        self._load[actor] -= 1
        return actor, part

    def lose(self, actor: int, error: Exception) -> None:
        """Notes that the process of an actor has ended. Ray starts another, here or on another node.

        Raises:
            SweetError: no actor has been ready for a long time.
        """
        if self._is_ready[actor]:
            logger.warning("Worker %d was lost; its rows are sent to another.", actor)
            if sum(self._is_ready) == 1:
                self._was_ready = time.monotonic()
        self._is_ready[actor] = False
        if actor not in self._lost and actor not in self._loading.values():
            self._lost[actor] = time.monotonic() + _RESTART_SECONDS
        if not any(self._is_ready) and time.monotonic() - self._was_ready > _GIVE_UP_SECONDS:
            raise SweetError(
                f"no worker could be started for {_GIVE_UP_SECONDS:.0f} seconds; the last one ended with "
                f"{type(error).__name__}: {str(error).splitlines()[0]}"
            ) from error

    def load_again(self) -> None:
        """Asks actors that ended, and that Ray has started again by now, to load the artifact."""
        due = [actor for actor, when in self._lost.items() if time.monotonic() >= when]
        for actor in due:
            del self._lost[actor]
            self.load(actor)

    def count_attempt(self, part: Part, error: Exception) -> None:
        """Raises SweetError for a part that has been lost too often."""
        self._attempts[part.name] = attempts = self._attempts.get(part.name, 0) + 1
        if attempts >= _ATTEMPTS:
            raise SweetError(
                f"{part.name}: {attempts} workers ended while they answered these rows ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}). Is the memory of the machines enough? Try a smaller --rows-per-part."
            ) from error

    def note_loaded(self, actor: int, engine: str) -> None:
        """Notes that an actor is ready."""
        self._is_ready[actor] = True
        if engine not in self._engines and self._engines:
            logger.warning(
                "Workers run on %s and on %s: the last digits of scores may depend on which of them answers.",
                ", ".join(sorted(self._engines)),
                engine,
            )
        self._engines.add(engine)

    def report_waiting(self, cpus: int) -> None:
        """Logs that no actor can be started, from time to time."""
        if not any(self._is_ready) and time.monotonic() - self._changed > _NOTICE_SECONDS:
            self._changed = time.monotonic()
            logger.warning("No worker is ready: the cluster has no node with %d free CPUs, or nodes are slow.", cpus)
