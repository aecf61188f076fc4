"""Tests of early backward: with isolated segments, an exit's graph is freed in the forward."""

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


class Saved:
    """Wraps a tensor that autograd saves for backward."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def saved_after_forward(model, batch) -> int:
    """Returns the number of elements that the graph of the loss holds after the forward."""
    alive: list[weakref.ref] = []

    def pack(tensor: torch.Tensor) -> Saved:
        kept = Saved(tensor)
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
    "distilled": {"distillation": 0.5, "teacher": True},
    "first isolated": {"gradient_scale": "cut_first"},
}
PRECISIONS = [(family, False) for family in FAMILY_CONFIGS] + [("bert", True), ("deberta-v3", True)]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
@pytest.mark.parametrize(("family", "bf16"), PRECISIONS)
def test_gradients_are_the_same_to_the_bit(family, bf16, settings):
    model, attachment = attached(family, **settings)
    batches = [tiny_batch(seed=seed) for seed in (0, 1)]
    early = gradients_of(model, batches, bf16=bf16)
    whole, attachment = attached(family, **settings)
    attachment.loss_observer = lambda losses: None  # an observer may compute gradients, so the graph is not freed
    expected = gradients_of(whole, batches, bf16=bf16)
    assert early.keys() == expected.keys() and len(early) >= 40
    for name, gradient in expected.items():
        assert torch.equal(early[name], gradient), name


def test_most_of_the_graph_is_freed_in_the_forward():
    model, attachment = attached()
    batch = tiny_batch(rows=8, length=16)
    early = saved_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    whole = saved_after_forward(model, batch)
    assert early < 0.4 * whole, "only the last of four layers is still needed"


@pytest.mark.parametrize(
    ("scales", "minimum", "maximum"), [("cut_first", 0.7, 0.85), ((1.0, 0.0), 1.0, 1.0), ((0.5, 0.5), 1.0, 1.0)]
)
def test_only_isolated_segments_are_freed(scales, minimum, maximum):
    model, attachment = attached(gradient_scale=scales)
    batch = tiny_batch(rows=8, length=16)
    early = saved_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    assert minimum <= early / saved_after_forward(model, batch) <= maximum


@pytest.mark.parametrize("settings", [{"gradient_scale": 0.1}, {"mode": "joint"}, {"distillation": 0.5}])
def test_the_graph_is_kept_if_a_later_exit_needs_it(settings):
    model, attachment = attached(**settings)
    batch = tiny_batch()
    kept = saved_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    assert kept == saved_after_forward(model, batch)


def test_no_early_backward_in_evaluation_or_without_gradients():
    model, attachment = attached()
    batch = tiny_batch()
    model.eval()
    kept = saved_after_forward(model, batch)
    attachment.loss_observer = lambda losses: None
    assert kept == saved_after_forward(model, batch)
    model, attachment = attached()
    with torch.no_grad():
        loss = model(**batch).loss
    torch.testing.assert_close(loss, sum(attachment.exit_losses.values()))


def test_accumulated_scaled_losses():
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


def test_frozen_and_unused_parameters():
    used, unused, frozen = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3))
    frozen.requires_grad_(False)
    loss = early_backward((used * frozen).sum(), [used, unused, frozen])
    loss.backward()
    assert loss.item() == 5.0 and used.grad.tolist() == [1.0, 2.0]
    assert unused.grad is None and frozen.grad is None
