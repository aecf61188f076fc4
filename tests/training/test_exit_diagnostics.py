"""Tests of the warnings at the end of training about exits that are no better than a constant prediction."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS
from itrex_sweet.training import SweetCallback
from itrex_sweet.training.exit_diagnostics import ExitDiagnostics
from tests.tiny_models import tiny_model
from tests.training.trainers import EXITS, Rows, make_trainer


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


def warnings_for(labels, accuracies, leaving=0.5, associations=None, task=SINGLE_LABEL) -> str:
    associations = dict.fromkeys(accuracies, 0.0) if associations is None else associations
    found = ExitDiagnostics.of(TASKS[task], labels, accuracies, associations, leaving, "a threshold of 0.9")
    return "\n".join(found.warnings())


BALANCED, IMBALANCED = [0, 1] * 200, [0] * 320 + [1] * 80


def test_no_warning_for_a_good_model():
    assert warnings_for(BALANCED, {1: 0.7, 4: 0.9}) == ""
    assert warnings_for(IMBALANCED, {1: 0.86, 4: 0.9}) == ""


@pytest.mark.parametrize("labels, accuracy", [(BALANCED, 0.54), (BALANCED, 0.30), (IMBALANCED, 0.83)])
def test_warning_about_the_last_exit(labels, accuracy):
    text = warnings_for(labels, {1: 0.95, 4: accuracy})
    assert "last exit (4 layers), is not measurably better" in text and f"{100 * accuracy:.1f} % of 400 rows" in text
    assert text.count("\n") == 0
    useful = warnings_for(labels, {1: 0.95, 4: accuracy}, associations={1: 9.0, 4: 9.0})
    assert "no more rows right" in useful and "matthews" in useful and useful.count("\n") == 0


def test_a_useful_exit_of_imbalanced_data_causes_no_warning():
    """The exit predicts the frequent label for all rows, and is certain of half of them."""
    assert "exit 1 is not measurably better" in warnings_for(
        IMBALANCED, {1: 0.8, 4: 0.9}, associations={1: 1.9, 4: 18.0}
    )
    assert warnings_for(IMBALANCED, {1: 0.8, 4: 0.9}, associations={1: 6.0, 4: 18.0}) == ""


def test_an_exit_that_too_few_rows_judge_causes_no_warning():
    """Of 300 rows, 6 have another label: an exit that finds half of them has an association below 2 as often as not."""
    rare = [0] * 294 + [1] * 6
    assert warnings_for(rare, {1: 0.98, 4: 0.98}, associations={1: 1.5, 4: 1.5}) == ""
    assert "exit 1 is not measurably better" in warnings_for(rare, {1: 0.98, 4: 0.99}, associations={1: 0.0, 4: 6.0})
    assert "no more rows right" in warnings_for(rare, {1: 0.98, 4: 0.98}, associations={1: 1.5, 4: 6.0})


def test_regression_and_multi_label():
    values, sets = [0.1, 0.7, 0.3, 0.9] * 50, [(0, 1), (0, 0)] * 100
    text = warnings_for(values, {}, None, {1: 1.2, 4: 12.0}, REGRESSION)
    assert text.startswith("exit 1 is not measurably better") and "prediction: association" in text and "%" not in text
    assert warnings_for(values, {}, None, {1: 5.0, 4: 12.0}, REGRESSION) == ""
    text = warnings_for(sets, {1: 0.5, 4: 0.9}, 0.5, {1: 1.2, 4: 12.0}, MULTI_LABEL)
    assert "exit 1 is not" in text and "prediction: 50.0 % of 200 rows" in text and "has 50.0 %" in text


def test_exits_are_named_together():
    text = warnings_for(BALANCED, {1: 0.5, 3: 0.52, 6: 0.2, 9: 0.9, 12: 0.95})
    assert text.startswith(
        "exits 1, 3, 6 are not measurably better than a constant prediction: 50.0, 52.0, 20.0 % of 400 rows correct"
    )


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
    st.floats(),
)
def test_any_evaluation_gives_sentences(labels, accuracies, leaving, value):
    exits = range(1, len(accuracies) + 1)
    text = warnings_for(labels, dict(zip(exits, accuracies, strict=True)), leaving, dict.fromkeys(exits, value))
    assert all(sentence.endswith(".") for sentence in text.splitlines())


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
    rows = Rows(rows=60, seed=1)
    trainer = make_trainer(model, tmp_path, eval_strategy="epoch", learning_rate=0.0, eval_dataset=rows)
    trainer.train()
    assert "eval: " in caplog.text and "constant prediction" in caplog.text and "no row leaves early" in caplog.text
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
    assert seen[-1] < 1 / 3 and "exit 1 is" in caplog.text and "exits 1, 3 are" not in caplog.text
