"""Tests of `--threads`, which every command that runs a model takes."""

import os
import subprocess
import sys

import pytest
import torch

from itrex_sweet.runtime.native import cores

RUNNING = ("train", "predict", "evaluate", "bench", "quantize", "calibrate", "export", "demo")


@pytest.mark.parametrize("verb", RUNNING)
def test_commands_with_the_option(run, verb):
    assert "--threads N" in run(verb, "--help").out


@pytest.mark.parametrize("number", ["0", "-1", "2.5", "two", ""])
def test_invalid_number(run, artifact, number):
    assert run("predict", artifact, "--threads", number).status == 2


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_more_threads_than_cores(run, artifact, tmp_path, backend):
    (tmp_path / "texts.txt").write_text("good phone\n")
    finished = run("predict", artifact, tmp_path / "texts.txt", "--backend", backend, "--threads", 100_000)
    assert finished.status == 1 and "threads=100000" in finished.err


def test_torch_number_of_threads_is_restored(run, artifact, tmp_path):
    (tmp_path / "texts.txt").write_text("good phone\n")
    finished = run("predict", artifact, tmp_path / "texts.txt", "--backend", "torch", "--threads", 2)
    assert finished.status == 0 and torch.get_num_threads() == 1


def test_info_names_the_limit_of_threads(run):
    facts = run("info", "--json").json()["threads"]
    assert facts["used"] == min(facts["limited by"].values()) == 1
    assert facts["limited by"]["torch.get_num_threads()"] == 1
    assert facts["limited by"]["physical cores"] == cores.physical_cores()


@pytest.mark.skipif(cores.physical_cores() < 2, reason="one core")
@pytest.mark.parametrize(
    ("openmp", "set_to", "allowed", "threads"), [(1, None, 2, 1), (2, 1, 2, 1), (2, 2, 1, 1), (2, 2, 2, 2)]
)
def test_default_from_openmp_torch_and_affinity(openmp, set_to, allowed, threads):
    quota = cores.cpu_quota()
    if quota is not None and quota < threads:
        pytest.skip("a CPU quota")
    script = (
        "import os, torch\n"
        f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{allowed}])\n"
        f"{set_to} and torch.set_num_threads({set_to})\n"
        "from itrex_sweet.runtime.native import cores; print(cores.default_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(openmp)}
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert finished.stdout.split() == [str(threads)], finished.stderr
