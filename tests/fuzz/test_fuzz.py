"""Some cases of `make fuzz`, and tests of the fuzzer itself."""

import os
import subprocess
import sys
import time

import pytest

from tests.fuzz.artifacts import ArtifactCase
from tests.fuzz.inputs import InputCase
from tests.fuzz.workers import Limits, find_failures
from tests.native.programs import KERNELS

BACKENDS = ("native", "torch") if KERNELS else ("torch",)


@pytest.mark.parametrize(("artifacts", "inputs"), [(80, 0), (0, 80)], ids=["artifacts", "calls"])
def test_backends_reject_or_agree_on_damaged_artifacts_and_invalid_calls(artifacts, inputs):
    # In a process of its own: cases run in forked children, and torch in this process may have started threads.
    command = [sys.executable, "-m", "tests.fuzz", "--texts", "0"]
    command += ["--artifacts", str(artifacts), "--inputs", str(inputs)]
    finished = subprocess.run(
        [*command, "--backends", *BACKENDS], capture_output=True, text=True, cwd=os.getcwd(), timeout=300
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr[-2000:]


def test_cases_can_be_parsed_from_their_string():
    for seed in range(50):
        assert ArtifactCase.parse(str(ArtifactCase.from_seed(seed))) == ArtifactCase.from_seed(seed)
        assert InputCase.parse(str(InputCase.from_seed(seed))) == InputCase.from_seed(seed)


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        (lambda: os.abort(), "SIGABRT"),
        (lambda: os._exit(3), "exit status 3"),
        (lambda: time.sleep(60), "hang"),
        (lambda: "a failure", "a failure"),
    ],
    ids=["crash", "exit", "hang", "finding"],
)
def test_failure_of_one_case_is_found_and_the_others_run(misbehave, words, tmp_path):
    found = []

    def run(case, _):
        return misbehave() if case == 3 else None

    for finding in find_failures(range(6), run, tmp_path, Limits(seconds=1.0)):
        found.append(finding)
    assert [finding.case for finding in found] == [3] and words in found[0].message
