"""Tests of the settings of objects in `runtime`, `serving` and `cluster`: wrong numbers are refused at construction."""

import dataclasses
import math

import numpy as np
import pytest

from itrex_sweet.cluster import SweetDeployment
from itrex_sweet.cluster.folders import predict_folder
from itrex_sweet.cluster.settings import FolderSettings
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.degradation import Degradation, Level
from itrex_sweet.runtime.dispatch import BreadthFirst, MostAnswers
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.runner import Runner
from itrex_sweet.runtime.scheduler import Scheduler
from itrex_sweet.runtime.step_costs import StepCosts
from tests.tiny_artifacts import tiny_artifact

POLICY = Policy((0.6, 0.6), (1.0,) * 3)
LEVELS = [Level(POLICY, None, 1.0)]
NAN, INFINITY = float("nan"), float("inf")
NO_NUMBERS = [NAN, INFINITY, -INFINITY, "1", True, 1j, [1], object(), np.array([1.0, 2.0])]

# Objects without required settings, or with these, of which every number is checked.
DATACLASSES = {Request: {"policy": POLICY}, Level: {"policy": POLICY, "quality": 0.5, "cost": 1.0}, FolderSettings: {}}
try:
    from itrex_sweet.serving.settings import Address, Settings

    DATACLASSES |= {Settings: {}, Address: {}}
except ImportError:  # without the extra [serve]
    Settings = None
NUMBERS = [
    (cls, field.name)
    for cls in DATACLASSES
    for field in dataclasses.fields(cls)
    if field.type.removesuffix(" | None") in ("int", "float")
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(("cls", "name"), NUMBERS, ids=lambda part: getattr(part, "__name__", part))
def test_fields_that_are_no_numbers(cls, name, value):
    with pytest.raises(ConfigError, match=rf"\b{name}\b"):
        cls(**{**DATACLASSES[cls], name: value})


@pytest.mark.parametrize("cls", DATACLASSES, ids=lambda cls: cls.__name__)
def test_numbers_of_other_libraries_become_those_of_python(cls):
    defaults = cls(**DATACLASSES[cls])
    for _, name in (place for place in NUMBERS if place[0] is cls):
        given = getattr(defaults, name)
        for number in (1, 1.0) if given is None else (given,):
            try:
                made = cls(**{**DATACLASSES[cls], name: np.asarray(number)[()]})
            except ConfigError:
                continue  # 1.0 for an integer
            assert type(getattr(made, name)) in (int, float) and getattr(made, name) == number


FLAGS = [(cls, field.name) for cls in DATACLASSES for field in dataclasses.fields(cls) if field.type == "bool"]


@pytest.mark.parametrize(("cls", "name"), FLAGS, ids=lambda part: getattr(part, "__name__", part))
def test_flags_that_are_no_booleans(cls, name):
    for value in (1, "no", None, NAN):
        with pytest.raises(ConfigError, match=name):
            cls(**{**DATACLASSES[cls], name: value})


def test_request_accepts_any_time_and_sign_of_priority():
    now = np.float64(-3.5)
    request = Request(POLICY, now, np.int8(-5), quality=0)
    assert (request.deadline, request.priority, request.quality) == (-3.5, -5, 0.0)
    assert request == dataclasses.replace(request) and hash(request) == hash(Request(POLICY, -3.5, -5, quality=0.0))
    for wrong in ({"policy": "quick"}, {"policy": None}, {"trace": ()}, {"priority": 2**40}, {"quality": 1.1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Request(**{"policy": POLICY, **wrong})


@pytest.mark.skipif(Settings is None, reason="the server needs the extra [serve]")
@pytest.mark.parametrize(
    "wrong",
    [
        {"api_keys": "secret"},  # its letters would be keys
        {"api_keys": ("secret", "")},
        {"api_keys": ("secret", 5)},
        {"api_keys": ("secret\n",)},
        {"under_load": "shed"},
        {"scheduling": None},
        {"classify_shape": "tei"},
        {"quality_floor": -0.1},
        {"target_ms": 0.0},
        {"default_deadline_ms": 1e10},
        {"payload_limit": 0},
    ],
    ids=str,
)
def test_settings_of_a_server_that_are_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))) as raised:
        Settings(**wrong)
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="port"):
        Address(**{"grpc_port": 65536})


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    return load_backend(tiny_artifact(tmp_path_factory.mktemp("artifact"), policy=POLICY), "torch")


CALLS = {
    "target_seconds": lambda value, backend: Degradation(LEVELS, value),
    "max_hold_seconds": lambda value, backend: MostAnswers(StepCosts(3), max_hold_seconds=value),
    "max_run_seconds": lambda value, backend: MostAnswers(StepCosts(3), max_run_seconds=value),
    "refill": lambda value, backend: BreadthFirst(value),
    "batch_size": lambda value, backend: Scheduler(backend, POLICY, batch_size=value),
    "batch_tokens": lambda value, backend: Scheduler(backend, POLICY, batch_tokens=value),
    "max_waiting_rows": lambda value, backend: Scheduler(backend, POLICY, max_waiting_rows=value),
    "workers": lambda value, backend: Runner(Scheduler(backend, POLICY), value),
    "seconds": lambda value, backend: Runner(Scheduler(backend, POLICY)).drain(value),
    "deadline": lambda value, backend: Executor(backend, POLICY).run(TokenBatch.from_rows([[5, 6]]), deadline=value),
    "drain_seconds": lambda value, backend: SweetDeployment("no folder", drain_seconds=value),
    "ray_workers": lambda value, backend: predict_folder("no folder", [], "nowhere", ray_workers=value),
}


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", CALLS)
def test_arguments_that_are_no_numbers(name, value, backend):
    with pytest.raises(ConfigError, match=name):
        CALLS[name](value, backend)


@pytest.mark.parametrize(
    "name", ["target_seconds", "max_run_seconds", "batch_size", "workers", "ray_workers", "refill"]
)
def test_arguments_that_are_not_positive(name, backend):
    for value in (0, -1):
        with pytest.raises(ConfigError, match=name):
            CALLS[name](value, backend)


def test_refused_time_of_drain_refuses_no_requests(backend):
    scheduler = Scheduler(backend, POLICY)
    with pytest.raises(ConfigError, match="seconds"):
        Runner(scheduler).drain(math.nan)
    assert not scheduler.is_closed and Runner(scheduler).drain(-1.0) and scheduler.is_closed


def test_levels_of_load_are_checked():
    with pytest.raises(ConfigError, match="levels"):
        Degradation([])
    with pytest.raises(ConfigError, match="decreasing cost"):
        Degradation([*LEVELS, Level(POLICY, 0.5, 1.0)])
    with pytest.raises(ConfigError, match="quality"):
        Level(POLICY, 1.5, 1.0)
    with pytest.raises(ConfigError, match="cost"):
        Level(POLICY, None, 0.0)
