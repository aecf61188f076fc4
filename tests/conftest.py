"""Settings of every test: one thread, since more threads slow down such tiny models."""

import gc
import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the processes that tests start

import pytest


def pytest_collection_finish() -> None:
    """Exempts what is imported from garbage collection, which Trainer runs after each training."""
    gc.collect()
    gc.freeze()


def _settings_of_accelerate() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}


@pytest.fixture(autouse=True)
def _restore_settings_of_accelerate():
    """Restores the precision and compiler settings that TrainingArguments writes into the environment."""
    before = _settings_of_accelerate()
    yield
    for name in _settings_of_accelerate().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def default_signals():
    """Handles signals as a foreground process does: a background job ignores some, and its children inherit that."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
