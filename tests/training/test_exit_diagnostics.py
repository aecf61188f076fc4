"""Tests of the warnings at the end of training about exits that are not better than the majority class."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.training import SweetCallback
from itrex_sweet.training.exit_diagnostics import ExitDiagnostics
from tests.tiny_models import tiny_model
from tests.training.trainers import EXITS, Rows, make_trainer


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


def warnings_for(labels, accuracies, leaving=0.5) -> str:
    return "\n".join(ExitDiagnostics.of(labels, accuracies, leaving, "a threshold of 0.9").warnings())


BALANCED, IMBALANCED = [0, 1] * 200, [0] * 320 + [1] * 80


def test_no_warning_for_a_good_model():
    assert warnings_for(BALANCED, {1: 0.7, 4: 0.9}) == ""
    assert warnings_for(IMBALANCED, {1: 0.86, 4: 0.9}) == ""


@pytest.mark.parametrize(
    "labels, accuracy, words",
    [
        (BALANCED, 0.50, "at chance, within two standard errors of the majority class"),
        (BALANCED, 0.54, "at chance"),
        (BALANCED, 0.30, "is below the majority class"),
        (IMBALANCED, 0.80, "is within two standard errors of the majority class"),
        (IMBALANCED, 0.83, "is within two standard errors of the majority class"),
        (IMBALANCED, 0.70, "is below the majority class"),
        (IMBALANCED, 0.50, "at chance, below the majority class"),
    ],
)
def test_warning_about_the_last_exit(labels, accuracy, words):
    text = warnings_for(labels, {1: 0.95, 4: accuracy})
    assert words in text and "last exit (4 layers)" in text and f"{100 * accuracy:.1f} % of 400 rows" in text
    assert text.count("\n") == 0


def test_exits_are_named_together():
    text = warnings_for(BALANCED, {1: 0.5, 3: 0.52, 6: 0.2, 9: 0.9, 12: 0.95})
    assert "exits 1, 3 are at chance" in text and "exit 6 is below" in text
    assert "9" not in text.replace("9, ", "") or "exit 9" not in text


def test_no_row_leaves_early():
    assert "no row leaves early" in warnings_for(BALANCED, {1: 0.8, 4: 0.9}, 0.0)
    assert "a threshold of 0.9" in warnings_for(BALANCED, {1: 0.8, 4: 0.9}, 0.0)
    assert warnings_for(BALANCED, {4: 0.9}, None) == ""


def test_one_label_or_no_rows():
    assert "the same label" in warnings_for([1] * 30, {1: 1.0, 4: 1.0})
    assert warnings_for([], {1: 0.0, 4: 0.0}) == ""


@given(
    st.lists(st.integers(0, 3), min_size=0, max_size=60),
    st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1, max_size=4),
    st.floats(0, 1) | st.none(),
)
def test_any_evaluation_gives_sentences(labels, accuracies, leaving):
    sentences = ExitDiagnostics.of(labels, dict(enumerate(accuracies, start=1)), leaving, "t").warnings()
    assert all(sentence.endswith(".") for sentence in sentences)


@given(st.integers(1, 2000), st.floats(0, 1))
def test_more_rows_give_no_new_warning_for_a_better_exit(rows, accuracy):
    few, many = ([0, 1] * rows, [0, 1] * (10 * rows))
    if accuracy > 0.5 and warnings_for(few, {4: accuracy}, None) == "":
        assert warnings_for(many, {4: accuracy}, None) == ""


def test_the_callback_warns_about_its_last_evaluation(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "itrex_sweet")
    model = tiny_model()
    with torch.no_grad():
        model.classifier.weight.mul_(0.01)  # so that no exit is confident
    trainer = make_trainer(model, tmp_path, eval_strategy="epoch", learning_rate=0.0)
    trainer.train()
    assert "eval: " in caplog.text and "chance" in caplog.text and "no row leaves early" in caplog.text
    caplog.clear()
    quiet = make_trainer(tiny_model(), tmp_path, callback := SweetCallback(exits=EXITS), eval_strategy="epoch")
    callback.logs_diagnostics = False
    quiet.train()
    assert caplog.text == ""


def test_the_callback_warns_about_the_best_checkpoint_if_it_is_loaded(tmp_path, caplog):
    class Changing(Rows):
        """Changes the correct label in every evaluation."""

        reads = 0

        def __getitem__(self, row):
            Changing.reads += 1
            item = super().__getitem__(row)
            return {**item, "labels": (item["labels"] + (Changing.reads - 1) // len(self)) % 3}

    caplog.set_level(logging.WARNING, "itrex_sweet")
    settings = dict(num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch", learning_rate=0.0)
    best = dict(load_best_model_at_end=True, metric_for_best_model="eval_exit_3_accuracy", greater_is_better=True)
    trainer = make_trainer(tiny_model(), tmp_path, eval_dataset=Changing(60, seed=5), **settings, **best)
    trainer.train()
    seen = [log["eval_exit_3_accuracy"] for log in trainer.state.log_history if "eval_exit_3_accuracy" in log]
    assert trainer.state.best_metric == max(seen) != seen[-1]
    assert f", {100 * max(seen):.1f} % of 60 rows" in caplog.text and f", {100 * seen[-1]:.1f} %" not in caplog.text
