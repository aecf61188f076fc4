"""For every test: one thread, since models here are so tiny that threads would only wait for one another."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the processes that tests start

import pytest


@pytest.fixture(autouse=True)
def _no_settings_of_accelerate_left():
    """TrainingArguments leaves precision and compiler in the environment, for whoever comes next."""
    before = {name for name in os.environ if name.startswith("ACCELERATE_")}
    yield
    for name in {name for name in os.environ if name.startswith("ACCELERATE_")} - before:
        del os.environ[name]
