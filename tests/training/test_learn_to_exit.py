"""Tests of `learn_to_exit`: exits predict their correctness, and nothing else in the training changes."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.training import SweetCallback, attach, attachment_of, plain_state_dict
from itrex_sweet.training.losses import correctness_loss
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, make_trainer

MODES = pytest.mark.parametrize("mode", ["sweet", "paper", "joint"])


def test_correctness_loss_is_the_mean_squared_error_over_labelled_rows():
    correctness_logits = torch.tensor([0.0, 2.0, -1.0], requires_grad=True)
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    labels = torch.tensor([0, 1, -100])  # correct, wrong, ignored
    loss = correctness_loss(correctness_logits, logits, labels)
    loss.backward()
    wrong = torch.sigmoid(torch.tensor(2.0))
    torch.testing.assert_close(loss.detach(), (0.5**2 + wrong**2) / 2)
    expected = torch.stack([torch.tensor(-0.5 * 0.25), wrong * wrong * (1 - wrong), torch.tensor(0.0)])
    torch.testing.assert_close(correctness_logits.grad, expected)
    assert logits.grad is None
    torch.testing.assert_close(correctness_loss(correctness_logits, logits, labels, 8).detach(), loss.detach() / 4)


@MODES
@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v3"])
def test_other_gradients_do_not_change(family, mode):
    plain, learning = tiny_model(family), tiny_model(family)
    attach(plain, SweetConfig(exits=EXITS, mode=mode))
    attachment = attach(learning, SweetConfig(exits=EXITS, mode=mode, learn_to_exit=True))
    batch = tiny_batch(rows=7)
    without, with_ = plain(**batch), learning(**batch)
    assert torch.equal(without.logits, with_.logits)
    torch.testing.assert_close(with_.loss, without.loss + 2 * 0.25)  # squared error of probability 0.5, at two exits
    without.loss.backward()
    with_.loss.backward()
    others = dict(plain.named_parameters())
    for name, parameter in learning.named_parameters():
        if ".certainty." in name:
            assert parameter.grad.abs().sum() > 0, name
        else:
            expected = others[name].grad
            assert (expected is None) == (parameter.grad is None), name
            assert expected is None or torch.equal(parameter.grad, expected), name
    assert set(attachment.exit_correctness_logits) == {1, 3}
    assert all(logits.shape == (7, plain.config.num_labels) for logits in attachment.exit_logits.values())


@MODES
def test_other_weights_do_not_change(tmp_path, mode):
    """With a low `max_grad_norm`, since the correctness layers are clipped separately, and SGD, which does not enlarge
    rounding errors.
    """
    trained = {}
    for learns in (False, True):
        callback = SweetCallback(exits=EXITS, mode=mode, learn_to_exit=learns)
        settings = dict(max_grad_norm=0.05, seed=3, optim="sgd", learning_rate=0.5)
        trainer = make_trainer(tiny_model("bert"), tmp_path, callback, **settings)
        trainer.train()
        trained[learns] = plain_state_dict(trainer.model)
    learned = {name for name in trained[True] if ".certainty." in name}
    assert learned == trained[True].keys() - trained[False].keys()
    assert all(trained[True][name].abs().sum() > 0 for name in learned)
    for name, weight in trained[False].items():
        torch.testing.assert_close(trained[True][name], weight, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_an_exit_learns_which_rows_it_predicts_correctly():
    torch.manual_seed(0)
    model = tiny_model("bert")
    attachment = attach(model, SweetConfig(exits=EXITS, learn_to_exit=True))
    batch = tiny_batch(rows=24)
    correctness_parameters = [parameter for name, parameter in model.named_parameters() if ".certainty." in name]
    optimizer = torch.optim.Adam(correctness_parameters, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    for exit_ in (1, 3):
        is_correct = attachment.exit_logits[exit_].argmax(-1) == batch["labels"]
        probabilities = torch.sigmoid(attachment.exit_correctness_logits[exit_])
        assert 0 < is_correct.sum() < len(is_correct)
        assert probabilities[is_correct].mean() > probabilities[~is_correct].mean() + 0.1


def test_correctness_layers_are_saved_and_restored(tmp_path):
    trainer = make_trainer(tiny_model("bert"), tmp_path, SweetCallback(exits=EXITS, learn_to_exit=True))
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    attach(again)
    assert attachment_of(again).config.learn_to_exit
    expected = plain_state_dict(trainer.model)
    for name, weight in plain_state_dict(again).items():
        assert torch.equal(weight, expected[name]), name
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    with pytest.raises(TrainingSetupError, match=r"learn_to_exit=True.*learn_to_exit=False"):
        attach(other, SweetConfig(exits=EXITS))


def test_with_lora(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_dropout=0.0)
    model = peft.get_peft_model(tiny_model("bert"), config)
    trainer = make_trainer(model, tmp_path, SweetCallback(exits=EXITS, learn_to_exit=True))
    before = copy.deepcopy(plain_state_dict(model))
    trainer.train()
    after = plain_state_dict(trainer.model)
    learned = [name for name in after if ".certainty." in name]
    assert len(learned) == 4 and all(not torch.equal(after[name], before[name]) for name in learned)
