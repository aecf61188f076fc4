"""Tests of the warning about exits that hardly learned, from the losses at the end of a training."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS
from itrex_sweet.training import SweetCallback
from itrex_sweet.training.late_losses import LateLosses, constant_loss, hardly_learned
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


def test_constant_loss():
    """It equals the smallest loss that one prediction for all rows has."""
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    expected = F.cross_entropy(torch.log(torch.tensor([[3.0, 1.0, 2.0]]) / 6).expand(6, 3), labels).item()
    one_hot = F.one_hot(labels, 3).float()
    assert constant_loss(TASKS[SINGLE_LABEL], 6, _sums(one_hot)) == pytest.approx(expected)
    means = one_hot.mean(0)
    expected = F.binary_cross_entropy(means.expand(6, 3), one_hot).item()
    assert constant_loss(TASKS[MULTI_LABEL], 6, _sums(one_hot)) == pytest.approx(expected)
    values = torch.tensor([[1.0], [3.0], [8.0]])
    assert constant_loss(TASKS[REGRESSION], 3, _sums(values)) == pytest.approx(values.var(correction=0).item())


def _sums(labels):
    return torch.stack([labels.sum(0), (labels**2).sum(0)])


GENERATOR = torch.Generator().manual_seed(0)


class Batch:
    """An attachment after a forward."""

    def __init__(self, task, labels, losses, logits=None):
        self.task, self.labels, self.exit_losses = TASKS[task], labels, losses
        noise = torch.randn(len(labels), 3 if task == SINGLE_LABEL else labels[0].numel(), generator=GENERATOR)
        self.exit_logits = dict.fromkeys(losses, noise) if logits is None else logits
        self.label_loss = SimpleNamespace(is_default=True)
        self.model = SimpleNamespace(config=SimpleNamespace(num_labels=3))


@pytest.mark.parametrize(
    ("task", "labels", "constant", "prediction"),
    [
        (REGRESSION, torch.tensor([1.0, -1.0] * 60), "1", "mean"),
        (MULTI_LABEL, torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]] * 60), "0.462", "frequencies"),
        (SINGLE_LABEL, torch.tensor([0, 1, -100] * 60), "0.693", "frequencies"),
    ],
)
def test_warnings_of_all_tasks(task, labels, constant, prediction):
    late = LateLosses()
    late.add(Batch(task, labels, {1: torch.tensor(0.45), 4: torch.tensor(0.1)}))
    assert (task == MULTI_LABEL) == bool(late.warnings())
    late.clear()
    late.add(Batch(task, labels, {1: torch.tensor(float(constant) - 0.01), 4: torch.tensor(0.1)}))
    [sentence] = late.warnings()
    assert sentence.startswith("exit 1 hardly learned") and f"the {prediction} of the labels has {constant}" in sentence
    late.clear()
    assert late.warnings() == []


@pytest.mark.parametrize(("labels", "majority"), [(2, 0.94), (5, 0.94), (20, 0.94), (20, 0.99)])
def test_a_useful_exit_of_imbalanced_rows_is_not_named(labels, majority):
    """It removes less than a fifth of the loss that the last exit removes, and tells the labels apart."""
    random = torch.Generator().manual_seed(1)
    shares = torch.full((labels,), (1 - majority) / (labels - 1))
    shares[0] = majority
    late = LateLosses()
    late_of_noise = LateLosses()
    for _ in range(50):
        given = torch.multinomial(shares, 32, replacement=True, generator=random)
        one_hot = F.one_hot(given, labels).float()

        def exit_of(distance, one_hot=one_hot):
            noise = torch.randn(one_hot.shape, generator=random)
            return distance * (distance * one_hot + noise) + shares.log()

        of_last = exit_of(4.0)
        for each, logits in ((late, exit_of(0.7 if labels == 2 else 0.9)), (late_of_noise, exit_of(0.05))):
            of_exits = {1: logits, 4: of_last}
            batch = Batch(SINGLE_LABEL, given, {}, of_exits)
            batch.exit_losses = {exit_: F.cross_entropy(one, given) for exit_, one in of_exits.items()}
            batch.model.config.num_labels = labels
            each.add(batch)
    entropy = torch.special.entr(shares).sum().item()
    means = {exit_: total.item() for exit_, total in late._losses.means().items()}
    assert hardly_learned(means, entropy) == [1], "this test needs an exit that the losses alone name"
    assert late.warnings() == []
    assert [sentence[:22] for sentence in late_of_noise.warnings()] == ["exit 1 hardly learned:"]


def test_the_kept_logits_are_bounded(monkeypatch):
    monkeypatch.setattr("itrex_sweet.training.late_losses._MAX_NUMBERS", 500)
    late = LateLosses()
    for _ in range(100):
        late.add(Batch(SINGLE_LABEL, torch.tensor([0, 1] * 10), {1: torch.tensor(0.69), 4: torch.tensor(0.1)}))
    assert sum(logits.numel() for _, logits in late._batches) <= 500
    assert len(late.warnings()) == 1
    late.clear()
    assert not late._batches


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
