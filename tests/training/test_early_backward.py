"""Where gradients are cut, a segment's graph is let go as soon as its exit's loss is known; nothing else changes."""

from __future__ import annotations

import contextlib
import copy
import weakref

import pytest
import torch

from itrex_sweet.config import SweetConfig
from itrex_sweet.training import attach
from itrex_sweet.training.gradients import early_backward
from itrex_sweet.training.teacher import Teacher
from tests.tiny_models import FAMILY_CONFIGS, tiny_batch, tiny_model

EXITS = (1, 3, 4)


def attached(family: str = "bert", teacher: bool = False, **settings):
    model = tiny_model(family, dropout=0.1)
    attachment = attach(model, SweetConfig(**{"exits": EXITS, "mode": "sweet", **settings}))
    attachment.teacher = Teacher(tiny_model(family, seed=1)) if teacher else None
    return model, attachment


def gradients_of(model, batches, share: float = 1.0, bf16: bool = False) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = model(**batch).loss
        (share * loss).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


class Kept:
    """Stands for a tensor that a graph keeps for its backward."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def kept_after_forward(model, batch) -> int:
    """Elements that the loss's graph still holds."""
    alive: list[weakref.ref] = []

    def pack(tensor: torch.Tensor) -> Kept:
        kept = Kept(tensor)
        alive.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        loss = model(**batch).loss
    held = sum(each.tensor.numel() for reference in alive if (each := reference()) is not None)
    loss.backward()
    return held


SETTINGS = {
    "plain": {},
    "learned": {"learn_to_exit": True},
    "taught": {"distillation": 0.5, "teacher": True},
    "first alone": {"gradient_scale": "cut_first"},
}
PRECISIONS = [(family, False) for family in FAMILY_CONFIGS] + [("bert", True), ("deberta-v3", True)]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
@pytest.mark.parametrize(("family", "bf16"), PRECISIONS)
def test_gradients_are_the_same_to_the_bit(family, bf16, settings):
    model, attachment = attached(family, **settings)
    batches = [tiny_batch(seed=seed) for seed in (0, 1)]
    spent = gradients_of(model, batches, bf16=bf16)
    whole, attachment = attached(family, **settings)
    attachment.loss_observer = lambda losses: None  # who watches may ask for any gradient: the graph stays
    expected = gradients_of(whole, batches, bf16=bf16)
    assert spent.keys() == expected.keys() and len(spent) > 40
    for name, gradient in expected.items():
        assert torch.equal(spent[name], gradient), name


def test_most_of_the_graph_is_gone_after_the_forward():
    model, attachment = attached()
    batch = tiny_batch(rows=8, length=16)
    spent = kept_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    whole = kept_after_forward(model, batch)
    assert spent < 0.4 * whole, "only the last layer of four, and the heads of none, is still needed"


@pytest.mark.parametrize(
    ("scales", "least", "most"), [("cut_first", 0.7, 0.85), ((1.0, 0.0), 1.0, 1.0), ((0.5, 0.5), 1.0, 1.0)]
)
def test_only_segments_between_whole_cuts_are_let_go(scales, least, most):
    model, attachment = attached(gradient_scale=scales)
    batch = tiny_batch(rows=8, length=16)
    spent = kept_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    assert least <= spent / kept_after_forward(model, batch) <= most


@pytest.mark.parametrize("settings", [{"gradient_scale": 0.1}, {"mode": "joint"}, {"distillation": 0.5}])
def test_the_graph_stays_where_a_later_exit_needs_it(settings):
    model, attachment = attached(**settings)
    batch = tiny_batch()
    kept = kept_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    assert kept == kept_after_forward(model, batch)


def test_the_graph_stays_in_evaluation_and_none_is_needed_without_gradients():
    model, attachment = attached()
    batch = tiny_batch()
    model.eval()
    kept = kept_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    assert kept == kept_after_forward(model, batch)
    model, attachment = attached()
    with torch.no_grad():
        loss = model(**batch).loss
    torch.testing.assert_close(loss, sum(attachment.exit_losses.values()))


def test_accumulated_shares_of_the_loss():
    model, _ = attached()
    batches = [tiny_batch(seed=seed) for seed in range(4)]
    shares = gradients_of(copy.deepcopy(model), batches, share=0.25)
    for name, gradient in gradients_of(model, batches).items():
        torch.testing.assert_close(shares[name], 0.25 * gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_a_second_backward_raises():
    model, _ = attached()
    loss = model(**tiny_batch()).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_frozen_and_unreached_parameters():
    used, unused, frozen = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3))
    frozen.requires_grad_(False)
    loss = early_backward((used * frozen).sum(), [used, unused, frozen])
    loss.backward()
    assert loss.item() == 5.0 and used.grad.tolist() == [1.0, 2.0]
    assert unused.grad is None and frozen.grad is None
