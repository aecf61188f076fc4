"""Tests of the description of the machine."""

import json
import os

import pytest

from itrex_sweet.runtime import machine
from itrex_sweet.runtime.machine import Machine


def test_describe_this_machine():
    here = Machine.here()
    assert here.processor and here.cores >= here.usable_cores >= 1
    assert set(here.instruction_sets) <= set(machine.INSTRUCTION_SETS)
    assert here.processor in here.describe()
    json.dumps(here.to_dict(), allow_nan=False)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_limits_the_cores():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert Machine.here().usable_cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "broken\n"}, None),
        ({}, None),
    ],
)
def test_cgroup_quota(tmp_path, files, quota):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert machine._cpu_quota(tmp_path) == quota
