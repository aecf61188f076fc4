"""Tests of `itrex-sweet prune-exits` and `calibrate --prune-exits`."""

import shutil

import pytest

from itrex_sweet import open_artifact
from tests.cli.conftest import sentences


@pytest.fixture
def copied(artifact, tmp_path):
    shutil.copytree(artifact, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "rows.txt"
    path.write_text("".join(f"{row['text']}\n" for row in sentences(300, 5)))
    return path


def test_exits_given_by_number(run, copied, tmp_path):
    finished = run("prune-exits", copied, "--keep", "1,4", "--output", tmp_path / "out")
    assert finished.status == 0, finished.err
    assert "exits 1, 4; without 2." in finished.out and "MB" in finished.out
    assert open_artifact(tmp_path / "out").exits == (1, 4) and open_artifact(copied).exits == (1, 2, 4)
    assert "1 and 4 layers" in (tmp_path / "out" / "README.md").read_text()


def test_exits_chosen_on_data(run, copied, texts):
    finished = run("prune-exits", copied, "--data", texts, "--unit", "layers", "--least-gain", "1", "--json")
    assert finished.status == 0, finished.err
    assert finished.json()["removed"] == [1, 2] and finished.json()["saves"].keys() == {"1", "2"}
    assert open_artifact(copied).exits == (4,)


def test_invalid_arguments(run, copied, texts):
    assert run("prune-exits", copied).status == 2
    assert run("prune-exits", copied, "--keep", "1", "--data", texts).status == 2
    finished = run("prune-exits", copied, "--keep", "3")
    assert finished.status == 1 and "not among those of" in finished.err


def test_pruning_during_calibration(run, copied, texts):
    argv = ("calibrate", copied, "--data", texts, "--max-layers", 3.99, "--unit", "layers", "--prune-exits")
    finished = run(*argv)
    assert finished.status == 0, finished.err
    pruned = open_artifact(copied)
    assert all(threshold < 1.0 for threshold in pruned.policy.thresholds)
    assert pruned.calibration["exits"] == list(pruned.exits)
    assert "## Calibration" in (copied / "README.md").read_text()
