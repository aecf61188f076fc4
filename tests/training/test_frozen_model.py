"""Tests of `train="exits"`: the model is frozen, and no labels are needed."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, Trainer

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.families import EXIT_HEADS
from itrex_sweet.training import SweetCallback, attach, attachment_of, detach
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, Rows, make_trainer


def exits_only(**settings) -> SweetCallback:
    return SweetCallback(exits=EXITS, train="exits", **settings)


def unlabelled(trainer: Trainer) -> Trainer:
    trainer.train_dataset, trainer.eval_dataset = Rows(labelled=False), Rows(rows=13, seed=1, labelled=False)
    return trainer


def divergence(model, batch) -> dict[int, float]:
    """Returns the Kullback–Leibler divergence of each exit's probabilities from the model's."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        model.eval()(**inputs)
    logits = attachment_of(model).exit_logits
    full = logits[4].log_softmax(-1)
    return {k: F.kl_div(logits[k].log_softmax(-1), full, reduction="batchmean", log_target=True).item() for k in (1, 3)}


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v3"])
def test_exits_learn_the_models_predictions_and_its_weights_do_not_change(family, tmp_path):
    model = tiny_model(family, dropout=0.1)
    before = copy.deepcopy(model.state_dict())
    trainer = unlabelled(make_trainer(model, tmp_path, exits_only(), num_train_epochs=5, learning_rate=3e-3))
    assert not any(p.requires_grad for name, p in model.named_parameters() if EXIT_HEADS not in name)
    batch = trainer.train_dataset.batch
    before_training = divergence(model, batch)
    trainer.train()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    after_training = divergence(model, batch)
    assert all(after_training[exit_] < 0.7 * before_training[exit_] for exit_ in (1, 3))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_saved_model_predicts_as_the_checkpoint(tmp_path):
    tiny_model().save_pretrained(tmp_path / "checkpoint")
    load = AutoModelForSequenceClassification.from_pretrained
    trainer = unlabelled(make_trainer(load(tmp_path / "checkpoint"), tmp_path, exits_only(), weight_decay=0.1))
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    batch = tiny_batch()
    one, other = (load(tmp_path / name).eval()(**batch).logits for name in ("checkpoint", "saved"))
    assert torch.equal(one, other)


def test_dropout_applies_to_the_exits_only():
    model = tiny_model(dropout=0.2)
    attachment = attach(model, SweetConfig(EXITS, train="exits"))
    batch = {name: value for name, value in tiny_batch().items() if name != "labels"}
    expected = model.eval()(**batch).logits
    output = model.train()(**batch)
    assert torch.equal(output.logits, expected) and output.loss.requires_grad
    before = attachment.exit_logits
    model(**batch)
    assert torch.equal(attachment.exit_logits[4], before[4])
    assert not torch.equal(attachment.exit_logits[1], before[1])
    assert model.training and model.sweet_exits.training


@pytest.mark.parametrize("as_tuple", [False, True])
def test_the_loss_is_the_divergence_from_the_model(as_tuple):
    model = tiny_model()
    attachment = attach(model, SweetConfig(EXITS, train="exits", distillation_temperature=2.0))
    batch = {name: value for name, value in tiny_batch().items() if name != "labels"}
    output = model(**batch, return_dict=not as_tuple)
    loss, logits = (output[0], output[1]) if as_tuple else (output.loss, output.logits)
    assert torch.equal(logits, attachment.exit_logits[4])
    full = (logits / 2).log_softmax(-1)
    expected = sum(
        4 * F.kl_div((attachment.exit_logits[k] / 2).log_softmax(-1), full, reduction="batchmean", log_target=True)
        for k in (1, 3)
    )
    torch.testing.assert_close(loss, expected)
    assert attachment.exit_losses.keys() == {1, 3}
    loss.backward()
    assert all(parameter.grad is not None for _, parameter in attachment.head_parameters())
    assert model.eval()(**batch).loss is None


def test_labels_are_used_with_distillation_below_one():
    batch = tiny_batch()
    losses = {}
    for share in (None, 0.0):
        model = tiny_model()
        attachment = attach(model, SweetConfig(EXITS, train="exits", distillation=share))
        losses[share] = model(**batch).loss
        if share is not None:
            labels = sum(F.cross_entropy(attachment.exit_logits[k], batch["labels"]) for k in (1, 3))
            torch.testing.assert_close(losses[share], labels)
            with pytest.raises(TrainingSetupError, match="distillation=0 takes a share"):
                model(**{name: value for name, value in batch.items() if name != "labels"})
        else:
            other = {**batch, "labels": 2 - batch["labels"]}
            torch.testing.assert_close(model(**other).loss, losses[share])


def test_exits_learn_to_predict_agreement_with_the_model(tmp_path):
    trainer = unlabelled(make_trainer(tiny_model(), tmp_path, exits_only(learn_to_exit=True)))
    before = trainer.model.sweet_exits["1"].certainty.weight.clone()
    trainer.train()
    assert not torch.equal(trainer.model.sweet_exits["1"].certainty.weight, before)


def test_evaluation_without_labels_reports_agreement(tmp_path):
    trainer = unlabelled(make_trainer(tiny_model(), tmp_path, exits_only(), eval_strategy="epoch"))
    trainer.train()
    batch = trainer.eval_dataset.batch
    with torch.no_grad():
        trainer.model.eval()(**batch)
    logits = attachment_of(trainer.model).exit_logits
    [log] = [each for each in trainer.state.log_history if "eval_exit_1_agreement" in each]
    for exit_ in EXITS:
        agreement = (logits[exit_].argmax(-1) == logits[4].argmax(-1)).float().mean().item()
        assert log[f"eval_exit_{exit_}_agreement"] == pytest.approx(agreement)
    assert not any("accuracy" in name for name in log)
    labelled = trainer.evaluate(Rows(rows=13, seed=1))
    assert "eval_exit_1_accuracy" in labelled and "eval_exit_1_agreement" not in labelled


def test_resuming_and_training_twice(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}
    whole = unlabelled(make_trainer(tiny_model(dropout=0.1), tmp_path / "a", exits_only(), **settings))
    whole.train()
    resumed = unlabelled(make_trainer(tiny_model(dropout=0.1), tmp_path / "b", exits_only(), **settings))
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())
    own = {name: value.clone() for name, value in expected.items() if EXIT_HEADS not in name}
    whole.args.num_train_epochs = 3
    whole.train()
    assert all(torch.equal(value, own[name]) for name, value in whole.model.state_dict().items() if name in own)


def test_parameters_frozen_by_the_user_stay_frozen():
    model = tiny_model()
    model.bert.embeddings.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    attach(model, SweetConfig(EXITS, train="exits"))
    assert not any(model.get_parameter(name).requires_grad for name in flags)
    detach(model)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


def test_there_must_be_an_exit_to_train(tmp_path):
    with pytest.raises(ConfigError, match="no exit before the last"):
        make_trainer(tiny_model(), tmp_path, SweetCallback(exits=(4,), train="exits"))
