"""Exits with private layers change nothing of the model that they are on."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import TrainerCallback

from itrex_sweet.families import EXIT_HEADS
from itrex_sweet.training import SweetCallback
from tests.tiny_models import FAMILY_CONFIGS, tiny_model
from tests.training.trainers import EXITS, make_trainer

SETTINGS = {"learning_rate": 1e-3, "weight_decay": 0.1, "warmup_steps": 1, "max_grad_norm": 0.1}


def own_weights(model) -> dict[str, torch.Tensor]:
    """Copies of the model's own, without the exits'."""
    return {name: value.clone() for name, value in model.state_dict().items() if EXIT_HEADS not in name}


def exit_weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if EXIT_HEADS in name}


def unequal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not equal to the bit."""
    assert ours.keys() == theirs.keys()
    return [name for name, value in theirs.items() if not torch.equal(value, ours[name])]


def trained(folder, callback=None, model=None, resume=None, **settings):
    """A Trainer after training; without a callback, of the plain model."""
    model = tiny_model(dropout=0.1) if model is None else model
    trainer = make_trainer(model, folder, callback or TrainerCallback(), **{**SETTINGS, **settings})
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def assert_trains_as_plain(tmp_path, model=None, callback=None, **settings):
    model = tiny_model(dropout=0.1) if model is None else model
    before = own_weights(model)
    plain = trained(tmp_path / "plain", model=copy.deepcopy(model), **settings)
    ours = trained(tmp_path / "ours", callback or SweetCallback(exits=EXITS), model=copy.deepcopy(model), **settings)
    assert unequal(own_weights(ours.model), own_weights(plain.model)) == []
    assert unequal(own_weights(plain.model), before)
    return plain, ours


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_every_family_trains_as_without_exits(family, tmp_path):
    assert_trains_as_plain(tmp_path, tiny_model(family, dropout=0.1), rows=8)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2, "rows": 21},
        {"bf16": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"optim": "sgd", "lr_scheduler_type": "cosine"},
        {"optim": "adafactor"},
        {"max_grad_norm": 0.0},
        {"callback": SweetCallback(exits=(1, 2, 3, 4), learn_to_exit=True, distillation=0.5)},
        {"callback": SweetCallback},
        {"eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1, "num_train_epochs": 2},
    ],
    ids=str,
)
def test_any_training_is_that_without_exits(settings, tmp_path):
    assert_trains_as_plain(tmp_path, **settings)
