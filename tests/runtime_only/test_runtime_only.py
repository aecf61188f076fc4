"""Tests that answers without torch and transformers are bit-identical to those of a full installation.

They run where torch is not installed, as in `.ci/run`: `ITREX_SWEET_RECORDED` names a folder that `record.py` wrote.
In a full installation, one kind of artifact is recorded and compared, as a test of these files;
`tests/test_without_torch.py` compares all kinds there, in an environment made of links.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import itrex_sweet
from itrex_sweet.errors import MissingExtraError
from itrex_sweet.runtime.native import library
from tests.runtime_only.cases import ANSWERS_FILE, KINDS, TEXTS, answers

RECORDED = os.environ.get("ITREX_SWEET_RECORDED")
COMPARED = KINDS if RECORDED else ("learned",)

pytestmark = pytest.mark.skipif(
    all(reason == library.NOT_BUILT for reason in library.available().values()), reason="the native engine is not built"
)
runtime_environment = pytest.mark.skipif(not RECORDED, reason="for an environment without torch: ITREX_SWEET_RECORDED")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    if RECORDED:
        return Path(RECORDED)
    folder = tmp_path_factory.mktemp("recorded")
    from tests.runtime_only.record import record

    record(folder, COMPARED)
    return folder


@pytest.mark.parametrize("kind", COMPARED)
def test_answers_equal_those_of_a_full_installation(recorded, kind):
    expected = json.loads((recorded / ANSWERS_FILE).read_text(encoding="utf-8"))[kind]
    classifier = itrex_sweet.load(recorded / kind)
    found = answers(classifier, kind)
    assert json.loads(json.dumps(found)) == expected
    exits = {answer["exit_layer"] for call in found.values() for answer in call if "exit_layer" in answer}
    assert len(exits) > 1, "every answer comes from the same exit"
    assert pickle.loads(pickle.dumps(classifier)).predict(TEXTS) == classifier.predict(TEXTS)


@runtime_environment
@pytest.mark.parametrize("verb", ["predict", "info"])
def test_command_line(recorded, verb):
    command = [sys.executable, "-m", "itrex_sweet.cli", verb, str(recorded / "bert")]
    finished = subprocess.run(command, input="\n".join(TEXTS[:4]), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    if verb == "predict":
        labels = [json.loads(line)["label"] for line in finished.stdout.splitlines()]
        expected = json.loads((recorded / ANSWERS_FILE).read_text(encoding="utf-8"))["bert"]["stored policy"]
        assert labels == [answer["label"] for answer in expected[:4]]


@runtime_environment
def test_torch_and_transformers_are_not_installed():
    for package in ("torch", "transformers", "datasets", "accelerate", "optimum", "matplotlib"):
        with pytest.raises(ModuleNotFoundError):
            __import__(package)


@runtime_environment
@pytest.mark.parametrize("name", ["SweetModelForSequenceClassification", "SweetCallback", "SweetQuantizer"])
def test_names_that_need_torch_name_the_extra(name):
    with pytest.raises(MissingExtraError, match=r"pip install 'itrex-sweet\[train\]'"):
        getattr(itrex_sweet, name)


@runtime_environment
def test_torch_backend_names_the_extra(recorded):
    with pytest.raises(Exception, match=r"pip install 'itrex-sweet\[train\]'"):
        itrex_sweet.load(recorded / "bert", backend="torch")
