"""Requests: the stopping options of one caller, and the reason why each row stopped."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.arguments import finite_number, fraction, integer, positive_number, truth, whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.quality import policy_for_quality

Threshold = float | Sequence[float]

# Reasons why rows stop; a code in `Request.stopped_by_codes` is the index of one.
STOPPED_BY = CONFIDENCE, DEADLINE, MAX_EXIT, FULL_DEPTH = "confidence", "deadline", "max_exit", "full_depth"

_MAX_REQUESTS = 64  # in a cache
_MAX_PRIORITY = 2**31 - 1


def checked_policy(artifact: Artifact, policy: Policy) -> Policy:
    """Returns the policy after checking that the artifact can run under it.

    Raises:
        ConfigError: not a policy, or one that does not fit the artifact.
    """
    return artifact.checked(instance_of_policy(policy))


def instance_of_policy(policy: Any) -> Policy:
    """Returns a policy.

    Raises:
        ConfigError: another type.
    """
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy is a {type(policy).__name__}; itrex_sweet.Policy(...) makes one.")
    return policy


@dataclass(frozen=True)
class Request:
    """Stopping options of one caller, and its place among others.

    Args:
        policy: decides where rows leave.
        deadline: time of `time.perf_counter`, in seconds; `None` for none.
        priority: an integer; requests of higher priority are served first, unless others have waited long, see
            `runtime.scheduler`.
        drop_expired: whether the request fails with `DeadlineExceeded` if the deadline passes before the first exit of
            every row was computed; otherwise that exit answers.
        quality: of the policy, if load lowered it.
        trace: list to which the scheduler appends each run of a segment that rows of the request took part in: index
            of the exit reached, start and end in seconds of the clock, rows of the request, and rows in all.

    Raises:
        ConfigError: not a policy, a deadline that is not a finite number, a priority that is not an integer of 32 bits,
            or another value of a wrong type or out of range.
    """

    policy: Policy
    deadline: float | None = None
    priority: int = 0
    drop_expired: bool = False
    quality: float | None = None
    trace: list[tuple[int, float, float, int, int]] | None = None

    def __post_init__(self) -> None:
        is_time = self.deadline is None or (type(self.deadline) is float and math.isfinite(self.deadline))
        is_plain = type(self.priority) is int and type(self.drop_expired) is bool and self.quality is self.trace is None
        if not (is_time and is_plain and isinstance(self.policy, Policy) and abs(self.priority) <= _MAX_PRIORITY):
            self._convert()  # a server makes a request per call, so the common types are told first

    def _convert(self) -> None:
        """Converts numbers of other types.

        Raises:
            ConfigError: see the class.
        """
        # A deadline of NaN would never pass, and would break the order of all deadlines.
        checked: dict[str, Any] = {"policy": instance_of_policy(self.policy)}
        checked["drop_expired"] = truth("drop_expired", self.drop_expired)
        priority = integer(self.priority)
        if priority is None or abs(priority) > _MAX_PRIORITY:
            raise ConfigError(f"priority={self.priority!r:.80}: an integer of 32 bits is needed.")
        checked["priority"] = priority
        if self.deadline is not None:
            meaning = "a finite time of time.perf_counter, or None for no deadline"
            checked["deadline"] = finite_number("deadline", self.deadline, meaning)
        if self.quality is not None:
            checked["quality"] = fraction("quality", self.quality)
        if self.trace is not None and not isinstance(self.trace, list):
            raise ConfigError(f"trace is a {type(self.trace).__name__}; give a list, to which runs are appended.")
        self.__dict__.update(checked)  # the fields of a frozen dataclass

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        stored: Policy,
        threshold: Threshold | None = None,
        policy: Policy | None = None,
        quality: float | None = None,
        max_exit: int | None = None,
        deadline_ms: float | None = None,
    ) -> Request:
        """Combines the options of a request; `Classifier.predict` documents them.

        Args:
            stored: policy that the options change.

        Raises:
            ConfigError: more than one of `threshold`, `policy` and `quality`, a policy that does not fit the artifact,
                an unknown exit, or a deadline that is not positive.
        """
        named = {"threshold": threshold, "policy": policy, "quality": quality}
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude one another; give one of them.")
        if threshold is not None:
            stored = stored.with_threshold(threshold)
        elif policy is not None:
            stored = checked_policy(artifact, policy)
        elif quality is not None:
            stored = policy_for_quality(artifact, quality)
        if max_exit is not None:
            max_exit = whole_number("max_exit", max_exit, minimum=1)
            if max_exit not in artifact.exits:
                raise ConfigError(f"max_exit={max_exit}: choose one of the exits {artifact.exits}, which count layers.")
            max_exit_index = min(artifact.exits.index(max_exit), stored.last_exit_index)
            stored = dataclasses.replace(stored, max_exit_index=max_exit_index)
        if deadline_ms is None:
            return cls(stored)
        meaning = "a positive number of milliseconds, or None for no deadline"
        deadline_ms = positive_number("deadline_ms", deadline_ms, meaning)
        return cls(stored, time.perf_counter() + deadline_ms / 1000.0)

    @functools.cached_property
    def temperatures(self) -> np.ndarray:
        """Temperatures of the policy, (exits,) float32."""
        return np.asarray(self.policy.temperatures, dtype=np.float32)

    @functools.cached_property
    def reasons(self) -> tuple[str, ...]:
        """The reason why rows stop at each exit, unless the deadline passes, see `stopped_by`."""
        last = self.policy.last_exit_index
        at_last = FULL_DEPTH if last == len(self.policy.thresholds) else MAX_EXIT
        return tuple(CONFIDENCE if index < last else at_last for index in range(len(self.policy.temperatures)))

    @functools.cached_property
    def _codes(self) -> np.ndarray:
        return np.array([STOPPED_BY.index(reason) for reason in self.reasons], dtype=np.int8)

    def stopped_by(self, answers: Answers) -> list[str]:
        """Returns why each row stopped.

        `"confidence"`: the confidence exceeded the threshold; `"deadline"`: the deadline passed; `"max_exit"`: the
        request or policy allows no deeper exit; `"full_depth"`: the last exit of the model.
        """
        reasons = self.reasons
        why = [reasons[index] for index in answers.exit_index.tolist()]
        if answers.out_of_time is None:
            return why
        return [DEADLINE if late else own for late, own in zip(answers.out_of_time.tolist(), why, strict=True)]

    def stopped_by_codes(self, answers: Answers) -> np.ndarray:
        """Returns `stopped_by` as indices in `STOPPED_BY`, (rows,) int8."""
        codes = self._codes[answers.exit_index]
        if answers.out_of_time is not None:
            codes[answers.out_of_time] = STOPPED_BY.index(DEADLINE)
        return codes


class RequestCache:
    """Keeps the requests of options that were checked before, so that a repeated one is not checked again. Thread-safe.

    Options are compared by value, and policies by identity. Requests with a deadline, and options of types other than
    `int`, `float` and `Policy`, which may be changed after the call, are not kept.
    """

    def __init__(self) -> None:
        self._default: Request | None = None  # without options
        self._requests: dict[Any, tuple[Policy, Policy | None, Request]] = {}

    def of(
        self,
        artifact: Artifact,
        stored: Policy,
        threshold: Threshold | None,
        policy: Policy | None,
        quality: float | None,
        max_exit: int | None,
        deadline_ms: float | None,
    ) -> Request:
        """Returns what `Request.of` returns."""
        if threshold is None and policy is None and quality is None and max_exit is None and deadline_ms is None:
            if self._default is None or self._default.policy is not stored:
                self._default = Request(stored)
            return self._default
        if (
            deadline_ms is not None
            or type(threshold) not in _COMPARED
            or type(quality) not in _COMPARED
            or type(max_exit) not in _COMPARED
        ):
            return Request.of(artifact, stored, threshold, policy, quality, max_exit, deadline_ms)
        key = (id(stored), id(policy), threshold, quality, max_exit, type(max_exit))
        found = self._requests.get(key)
        if found is not None and found[0] is stored and found[1] is policy:
            return found[2]
        request = Request.of(artifact, stored, threshold, policy, quality, max_exit)
        if len(self._requests) >= _MAX_REQUESTS:
            self._requests = {}
        self._requests[key] = (stored, policy, request)  # keeps both, so that no other policy gets their ids
        return request


_COMPARED = (type(None), int, float)  # booleans are no `int` here
