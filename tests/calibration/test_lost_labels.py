"""Tests that calibration names the labels that the policy of a kept budget loses."""

import functools
import itertools
import json
import logging

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification, open_artifact
from itrex_sweet.artifact import keep_exits
from itrex_sweet.calibration import calibrate as calibrate_module
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.commands.calibrate import _shown
from itrex_sweet.data import Rows
from itrex_sweet.warning_once import is_first, warnings_once
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer

calibrate = functools.partial(calibrate_module.calibrate, unit="layers")
TEXTS = [" ".join(words) for words in itertools.product(WORDS[:12], WORDS[5:20], WORDS[3:15])]
ROWS, RARE = 1800, 18  # of these, 1 %


@pytest.fixture
def model(tmp_path):
    tiny_artifact(tmp_path / "model", tokenizer=tiny_tokenizer())
    return SweetModelForSequenceClassification.from_pretrained(tmp_path / "model", backend="torch")


@pytest.fixture
def exits_that_lose(monkeypatch):
    """Makes early exits certain of label 0 for every row, and the last exit right."""

    def give(loses: bool):
        def logits(executor, batch, description=""):
            truth = np.where(np.arange(ROWS) % (ROWS // RARE), 0, 1)
            given = np.random.default_rng(0).normal(0, 0.01, (ROWS, 3, 3)).astype(np.float32)
            given[np.arange(ROWS), 2, truth] += 6.0
            given[np.arange(ROWS), :2, 0 if loses else truth] += 6.0
            if not loses:
                given[np.arange(ROWS), :2, truth] = 6.0
            return given, None

        monkeypatch.setattr("itrex_sweet.evaluation.outcomes.outputs_at_every_exit", logits)

    return give


def give_rows():
    return Rows(TEXTS[:ROWS], None, source="held-out.csv")


@pytest.mark.parametrize("loses", [True, False])
def test_lost_labels_are_named(model, exits_that_lose, loses, tmp_path, caplog):
    exits_that_lose(loses)
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        calibration = calibrate(model, give_rows(), Budget(max_agreement_drop=0.04))
    assert calibration.chosen > 0
    usual, rare, never = calibration.labels
    assert usual.rows + rare.rows == calibration.rows[1] and never.rows == 0 and rare.rows >= 8
    assert [each.label for each in calibration.lost_labels] == (["LABEL_1"] if loses else [])
    assert rare.agreeing == (0 if loses else rare.rows)
    named = f"LABEL_1 on {rare.rows} of {rare.rows} texts"
    assert (named in caplog.text) == loses and caplog.text.count("changes far more answers") == loses
    assert (named in _shown(calibration)) == loses
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    record = open_artifact(written.directory).calibration
    assert record["labels"][1] == {"label": "LABEL_1", "rows": rare.rows, "agreeing": rare.agreeing,
                                   "agreement": rare.share}  # fmt: skip
    assert record["lost_labels"] == (["LABEL_1"] if loses else []) and json.dumps(record)
    card = (written.directory / "README.md").read_text()
    assert (named in card) == loses
    kept = keep_exits(written, (1, 4), tmp_path / "pruned")
    assert kept.calibration == {} or kept.calibration["labels"] == record["labels"]


def test_a_budget_without_a_guarantee_names_them_too(model, exits_that_lose, tmp_path, caplog):
    exits_that_lose(True)
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        calibration = calibrate(model, give_rows(), Budget(max_layers=1.5))
    assert [each.label for each in calibration.lost_labels] == ["LABEL_1"] and "LABEL_1 on" in caplog.text
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    assert "LABEL_1 on" in (written.directory / "README.md").read_text()


def test_steps_of_one_call_name_a_label_once(model, exits_that_lose, caplog):
    exits_that_lose(True)
    with caplog.at_level(logging.WARNING, "itrex_sweet"), warnings_once():
        for _ in range(2):
            calibrate(model, give_rows(), Budget(max_layers=1.5))
        assert not is_first("lost label LABEL_1") and is_first("lost label LABEL_2")
    assert caplog.text.count("LABEL_1 on") == 1
    assert is_first("lost label LABEL_1") and is_first("lost label LABEL_1"), "outside, every call warns"
