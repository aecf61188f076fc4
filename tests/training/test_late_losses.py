"""Tests of the warning about exits that hardly learned, from the losses at the end of a training."""

from __future__ import annotations

import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.training import SweetCallback
from itrex_sweet.training.late_losses import hardly_learned
from tests.tiny_models import tiny_model
from tests.training.trainers import EXITS, make_trainer

losses = st.floats(0.0, 5.0)


@given(st.dictionaries(st.integers(1, 12), losses, min_size=1, max_size=4), st.floats(0.01, 4.0), st.floats(0.0, 1.0))
def test_a_higher_loss_is_found_if_a_lower_one_is(of_exits, entropy, more):
    last = max(of_exits)
    found = hardly_learned(of_exits, entropy)
    assert last not in found and set(found) <= set(of_exits)
    raised = {exit_: loss if exit_ == last else loss + more for exit_, loss in of_exits.items()}
    assert set(found) <= set(hardly_learned(raised, entropy))


@pytest.mark.parametrize(
    "of_exits, entropy, found",
    [
        ({1: 1.66, 2: 1.70, 4: 0.31, 6: 0.25}, math.log(6), [1, 2]),
        ({1: 0.66, 2: 0.60, 4: 0.38, 6: 0.35}, math.log(2), [1]),
        ({1: 2.1, 6: 1.0}, math.log(40), []),
        ({1: 0.69, 6: 0.60}, math.log(2), []),  # the last exit learned little too
        ({6: 0.1}, math.log(2), []),
    ],
)
def test_examples(of_exits, entropy, found):
    assert hardly_learned(of_exits, entropy) == found


SETTINGS = {"num_train_epochs": 40, "learning_rate": 3e-3, "per_device_train_batch_size": 16, "logging_steps": 100}


def test_the_callback_names_an_exit_that_hardly_learned(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "itrex_sweet")
    trainer = make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, exit_lr_multiplier=1e-6), **SETTINGS)
    trainer.train()
    [message] = [record.getMessage() for record in caplog.records if "hardly learned" in record.getMessage()]
    assert message.startswith("training: exit 1 hardly learned: its loss in the last 20% of the steps is ")
    assert message.endswith("leave it out: exits=(3, 4).")

    trainer.args.num_train_epochs = 1  # the losses of the training before do not count
    caplog.clear()
    trainer.train()
    assert "hardly learned" not in caplog.text


def test_the_callback_names_no_exit_that_learned(tmp_path, caplog):
    trainer = make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS), **SETTINGS)
    trainer.train()
    assert "hardly learned" not in caplog.text
