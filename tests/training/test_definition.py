"""Tests the definition of SWEET on every family: which weights each exit's loss trains."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from itrex_sweet.config import SweetConfig
from itrex_sweet.training import attach
from tests.tiny_models import FAMILY_CONFIGS, tiny_batch, tiny_model
from tests.training.references import (
    DENSE,
    OUT,
    TABLE_NORM,
    TABLES,
    LayerByLayer,
    classification_head,
    exit_head,
    head_logits,
)

EXITS = (1, 3, 4)
RELATIVE = [family for family in FAMILY_CONFIGS if family.startswith(("deberta", "mpnet"))]

families = pytest.mark.parametrize("family", FAMILY_CONFIGS)


def with_exits(family: str, **settings):
    """Returns a model with exits with different heads, its attachment, a batch, and the plain model."""
    plain = tiny_model(family)
    model = copy.deepcopy(plain)
    attachment = attach(model, SweetConfig(**{"exits": EXITS, "mode": "sweet", **settings}))
    with torch.no_grad():
        for _, parameter in attachment.head_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, attachment, tiny_batch(rows=5), plain


def gradients_of(model) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def reference(model, plain, batch, cut, shares_pooler=False, share_of_table=lambda segment, table: table):
    """Computes loss and gradients with an independent implementation of the forward.

    Args:
        cut: hidden states before a segment → input of the segment.
        share_of_table: (segment from 0, table) → table that its layers receive.
    """
    run = LayerByLayer(plain, batch)
    kind = run.kind
    heads = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
        if name.startswith("sweet_exits")
    }
    embedded = hidden = run.embed()
    table, loss, start = run.table(), 0.0, 0
    for segment, exit_ in enumerate(EXITS):
        hidden = hidden if segment == 0 else cut(hidden)
        for index in range(start, exit_):
            hidden = run.run(index, hidden, None if table is None else share_of_table(segment, table), embedded)
        start = exit_
        head = classification_head(run.model, kind)
        if exit_ != EXITS[-1]:
            head = exit_head(heads, exit_, head.dense if shares_pooler else None)
        loss = loss + F.cross_entropy(head_logits(kind, hidden, head, batch["attention_mask"]), batch["labels"])
    loss.backward()
    named = {**run.parameters(), **heads}
    return loss, {name: p.grad for name, p in named.items() if p.grad is not None}


@families
def test_each_segment_has_the_gradients_of_a_separate_training(family):
    model, _, batch, plain = with_exits(family)
    model(**batch).loss.backward()
    together = gradients_of(model)

    alone: dict[str, torch.Tensor] = {}
    start = 0
    for segment, exit_ in enumerate(EXITS):
        run = LayerByLayer(plain, batch)  # a separate model for this segment
        with torch.set_grad_enabled(segment == 0):
            embedded = hidden = run.embed()
            table = run.table()
        if table is not None and segment > 0:
            table = table.detach()  # a constant: it belongs to the first segment
        with torch.no_grad():
            for index in range(start):
                hidden = run.run(index, hidden, table, embedded)
        for index in range(start, exit_):
            hidden = run.run(index, hidden, table, embedded)
        start = exit_
        head = classification_head(run.model, run.kind)
        own: dict[str, torch.Tensor] = {}
        if exit_ != EXITS[-1]:
            own = {
                name: parameter.detach().clone().requires_grad_()
                for name, parameter in model.named_parameters()
                if name.startswith(f"sweet_exits.{exit_}.")
            }
            head = exit_head(own, exit_)
        F.cross_entropy(head_logits(run.kind, hidden, head, batch["attention_mask"]), batch["labels"]).backward()
        for name, parameter in {**run.parameters(), **own}.items():
            if parameter.grad is not None:
                assert name not in alone, f"{name} is in two segments"
                alone[name] = parameter.grad
    assert_same(together, alone)
    assert all(value.abs().sum() > 0 for name, value in alone.items() if "key" not in name and ".k_lin" not in name)


@families
def test_an_exits_loss_trains_its_own_segment_and_head_only(family):
    model, attachment, batch, _ = with_exits(family)
    losses = {}
    attachment.loss_observer = losses.update  # with their graph
    model(**batch)
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}  # not RoFormer's sines
    segments = attachment.parameters_by_segment()
    for exit_ in EXITS:
        gradients = torch.autograd.grad(losses[exit_], list(named.values()), retain_graph=True, allow_unused=True)
        reached = {name for name, g in zip(named, gradients, strict=True) if g is not None and g.abs().sum() > 0}
        own = named.keys() & {name for name, _ in segments[exit_]}
        assert reached <= own
        assert own - reached <= {name for name in own if "key" in name or "k_lin" in name or "word_emb" in name}


@families
def test_every_parameter_belongs_to_one_segment(family):
    model, attachment, _, _ = with_exits(family)
    segments = attachment.parameters_by_segment()
    names = [name for named in segments.values() for name, _ in named]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    kind = model.config.model_type
    assert {f"{DENSE[kind]}.weight", f"{OUT[kind]}.weight"} <= {name for name, _ in segments[4]}
    first = {name for name, _ in segments[1]}
    shared = {name for name in names if name in TABLES or name.startswith(TABLE_NORM) or ".conv." in name}
    assert shared <= first and {name for name in names if "embeddings" in name} <= first
    assert bool(shared) == (family in RELATIVE)


@families
def test_joint_mode_trains_the_sum_of_the_losses(family):
    model, attachment, batch, plain = with_exits(family, mode="joint")
    loss = model(**batch).loss
    loss.backward()
    expected, gradients = reference(model, plain, batch, cut=lambda hidden: hidden)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(sum(attachment.exit_losses.values()), loss.detach())
    assert_same(gradients_of(model), gradients)


@families
def test_paper_mode_shares_pooler_and_table_and_detaches_hidden_states(family):
    model, _, batch, plain = with_exits(family, mode="paper")
    model(**batch).loss.backward()
    _, gradients = reference(model, plain, batch, cut=torch.Tensor.detach, shares_pooler=True)
    assert_same(gradients_of(model), gradients)
    assert not [name for name in model.state_dict() if "sweet_exits" in name and "dense" in name]


@families
@pytest.mark.parametrize("mode", ["sweet", "paper"])
@pytest.mark.parametrize("scale", [0.25, (0.5, 0.25), (0.0, 1.0)])
def test_gradient_scale_multiplies_gradients_between_segments(family, mode, scale):
    scales = scale if isinstance(scale, tuple) else (scale, scale)
    model, _, batch, plain = with_exits(family, mode=mode, gradient_scale=scale)
    model(**batch).loss.backward()
    cuts = iter(scales)
    table_of = {"sweet": lambda segment, t: scaled(t, math.prod(scales[:segment])), "paper": lambda segment, t: t}

    def scaled(tensor, factor):  # same value, gradient times the factor
        return tensor.detach() + factor * (tensor - tensor.detach())

    _, gradients = reference(
        model,
        plain,
        batch,
        cut=lambda hidden: scaled(hidden, next(cuts)),
        shares_pooler=mode == "paper",
        share_of_table=table_of[mode],
    )
    assert_same(gradients_of(model), gradients)


@pytest.mark.parametrize("family", RELATIVE)
def test_the_relative_table_is_trained_by_the_first_segment_only(family):
    model, _, batch, _ = with_exits(family)
    name = next(name for name, _ in model.named_parameters() if name in TABLES)
    table = model.get_parameter(name)
    model(**batch).loss.backward()
    owned = table.grad.clone()
    for mode in ("paper", "joint"):
        other, _, _, _ = with_exits(family, mode=mode)
        other(**batch).loss.backward()
        assert not torch.allclose(other.get_parameter(name).grad, owned, rtol=1e-2)


@families
def test_outputs_other_than_the_loss_do_not_change(family):
    model, attachment, batch, plain = with_exits(family)
    for mode in ("train", "eval"):
        getattr(model, mode)(), getattr(plain, mode)()
        ours, theirs = model(**batch), plain(**batch)
        assert type(ours) is type(theirs) and list(ours) == list(theirs)
        assert torch.equal(ours.logits, theirs.logits)
        assert torch.equal(ours["loss"], ours.loss) and torch.equal(ours[0], ours.loss)
        torch.testing.assert_close(attachment.exit_losses[4], theirs.loss.detach())
        torch.testing.assert_close(ours.loss, sum(attachment.exit_losses.values()))
        as_tuple = model(**batch, return_dict=False)
        assert isinstance(as_tuple, tuple) and len(as_tuple) == len(plain(**batch, return_dict=False))
        assert torch.equal(as_tuple[0], ours.loss) and torch.equal(as_tuple[1], ours.logits)
    with torch.no_grad():  # for both: IPEX, once imported, uses other kernels without gradients
        unlabelled = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        theirs = plain(**batch)
    assert unlabelled.loss is None and torch.equal(unlabelled.logits, theirs.logits)
    assert attachment.exit_losses == {} and set(attachment.exit_logits) == set(EXITS)


@families
def test_heads_are_initialized_from_the_models_own(family):
    model = tiny_model(family)
    plain = copy.deepcopy(model)
    attachment = attach(model, SweetConfig(exits=EXITS, mode="sweet"))
    batch = tiny_batch()
    model(**batch)
    output = plain(**batch, output_hidden_states=True)
    kind = plain.config.model_type
    head = dataclasses.replace(classification_head(plain, kind), pooling="first")
    for exit_ in EXITS[:-1]:  # hidden_states[k] is the output of layer k, DeBERTa-v2's convolution included
        expected = head_logits(kind, output.hidden_states[exit_], head, batch["attention_mask"])
        torch.testing.assert_close(attachment.exit_logits[exit_], expected.detach())
    torch.testing.assert_close(attachment.exit_logits[EXITS[-1]], output.logits.detach())


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v3"])
def test_heads_have_the_dropout_of_the_family(family):
    model = tiny_model(family, dropout=0.25)
    attach(model, SweetConfig(exits=EXITS, mode="sweet"))
    head = model.sweet_exits["1"]
    before_dense = 0.0 if family == "bert" else 0.25
    assert (head.dropout_before_dense.p, head.dropout_before_classifier.p) == (before_dense, 0.25)
