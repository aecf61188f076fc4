"""A few hundred of the cases that `make fuzz` tries by the thousand, and proof that a bad one is found."""

import os
import subprocess
import sys
import time

import pytest

from tests.fuzz.artifacts import ArtifactCase
from tests.fuzz.inputs import InputCase
from tests.fuzz.workers import Limits, findings
from tests.native.programs import KERNELS

BACKENDS = ("native", "torch") if KERNELS else ("torch",)


@pytest.mark.parametrize(("artifacts", "inputs"), [(150, 0), (0, 150)], ids=["artifacts", "calls"])
def test_what_is_damaged_or_hostile_is_refused_or_answered_alike(artifacts, inputs):
    # In a process of its own: cases run in forks of it, and torch may not go on in a fork of this one.
    command = [sys.executable, "-m", "tests.fuzz", "--artifacts", str(artifacts), "--inputs", str(inputs)]
    finished = subprocess.run(
        [*command, "--backends", *BACKENDS], capture_output=True, text=True, cwd=os.getcwd(), timeout=300
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr[-2000:]


def test_a_case_is_named_by_what_makes_it():
    for seed in range(50):
        assert ArtifactCase.parse(str(ArtifactCase.of(seed))) == ArtifactCase.of(seed)
        assert InputCase.parse(str(InputCase.of(seed))) == InputCase.of(seed)


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        (lambda: os.abort(), "SIGABRT"),
        (lambda: os._exit(3), "exit status 3"),
        (lambda: time.sleep(60), "hang"),
        (lambda: "it is wrong", "it is wrong"),
    ],
    ids=["crash", "exit", "hang", "finding"],
)
def test_what_goes_wrong_in_a_case_is_found_and_others_go_on(misbehave, words, tmp_path):
    done = []

    def run(case, _):
        return misbehave() if case == 3 else None

    for finding in findings(range(6), run, tmp_path, Limits(seconds=1.0)):
        done.append(finding)
    assert [finding.case for finding in done] == [3] and words in done[0].what
