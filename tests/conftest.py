"""For every test: one thread, since models here are so tiny that threads would only wait for one another."""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the processes that tests start

import pytest


@pytest.fixture(autouse=True)
def _no_settings_of_accelerate_left():
    """TrainingArguments leaves precision and compiler in the environment, for whoever comes next."""
    before = {name for name in os.environ if name.startswith("ACCELERATE_")}
    yield
    for name in {name for name in os.environ if name.startswith("ACCELERATE_")} - before:
        del os.environ[name]


@pytest.fixture
def default_signals():
    """Handles signals as a foreground process does; a background job ignores some, and so would its children."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
