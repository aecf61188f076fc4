"""The default number of threads."""

import os
import sys

import numpy as np
import pytest
import torch

from itrex_sweet.errors import ConfigError
from itrex_sweet.runtime.native import cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_limits_threads():
    allowed = os.sched_getaffinity(0)
    assert 1 <= cores.default_threads() <= len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores.default_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (8.0, 4), (2.0, 2), (1.5, 1), (0.2, 1)])
def test_cpu_quota_limits_threads(monkeypatch, quota, threads):
    monkeypatch.setattr(cores, "physical_cores", lambda: 4)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores.default_threads() == threads


@pytest.mark.parametrize(
    ("value", "threads"),
    [("1", 1), ("3", 3), ("2,1", 2), (" 2 ", 2), ("100", 4)]
    + [(value, 4) for value in ("", "0", "-1", "two", "1.5", "9" * 20, "²")],
)
def test_omp_num_threads_limits_threads_without_torch(monkeypatch, value, threads):
    monkeypatch.setattr(cores, "physical_cores", lambda: 4)
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores.default_threads() == threads


def test_torch_num_threads_limits_threads(monkeypatch):
    monkeypatch.setattr(cores, "physical_cores", lambda: 4)
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torch.set_num_threads has precedence
    for value, threads in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(torch, "get_num_threads", lambda value=value: value)
        assert cores.default_threads() == threads


@pytest.mark.parametrize("threads", [0, -1, True, False, 2.5, 2.0, "2", None, [2], float("nan"), 100_000, 2**40])
def test_invalid_number_of_threads_raises(threads):
    with pytest.raises(ConfigError, match=r"^threads="):
        cores.validate_threads(threads)


def test_valid_numbers_of_threads():
    assert [cores.validate_threads(number) for number in (1, 2, 64, np.int64(3))] == [1, 2, 64, 3]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_hyperthreads_share_a_core(monkeypatch, tmp_path):
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    assert cores.physical_cores(tmp_path) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 9})
    assert cores.physical_cores(tmp_path) == 2, "an unknown cpu9 counts as a core"
