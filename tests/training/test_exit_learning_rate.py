"""Tests of the learning-rate multiplier of the exits."""

import copy

import pytest
import torch

from itrex_sweet.training import SweetCallback
from itrex_sweet.training.exit_optimization import ExitLearningRate
from tests.tiny_models import tiny_model
from tests.training.trainers import EXITS, make_trainer

OPTIMIZERS = {
    "AdamW": lambda parameters, rate: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.1),
    "SGD": lambda parameters, rate: torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("multiplier", [3.0, 0.25, 1.0])
def test_steps_equal_those_of_a_multiplied_learning_rate(name, multiplier):
    torch.manual_seed(0)
    ours = torch.nn.Linear(5, 4)
    theirs = copy.deepcopy(ours)
    unused = torch.nn.Parameter(torch.ones(3))
    optimizers = [
        OPTIMIZERS[name]([*ours.parameters(), unused], 1e-2),
        OPTIMIZERS[name](theirs.parameters(), multiplier * 1e-2),
    ]
    rate = ExitLearningRate(multiplier)
    for _ in range(5):
        batch = torch.randn(6, 5)
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(batch).square().sum().backward()
        rate.before_step([*ours.parameters(), unused])
        for optimizer in optimizers:
            optimizer.step()
        rate.after_step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert torch.equal(unused, torch.ones(3))


def test_the_callback_multiplies_the_steps_of_the_exits_only(tmp_path):
    moved = {}
    for multiplier in (1.0, 4.0):
        model = tiny_model()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        callback = SweetCallback(exits=EXITS, exit_lr_multiplier=multiplier)
        trainer = make_trainer(model, tmp_path, callback, optim="sgd", max_steps=1, learning_rate=1e-3)
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        moved[multiplier] = {name: value - before[name] for name, value in trainer.model.state_dict().items()}
    for name, step in moved[1.0].items():
        expected = 4.0 * step if name.startswith("sweet_exits") else step
        torch.testing.assert_close(moved[4.0][name], expected, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert any(step.abs().max() > 1e-5 for name, step in moved[1.0].items() if "sweet_exits.1.layer" in name)
