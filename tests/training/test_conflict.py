"""Tests of gradient conflict against separately computed gradients, and that measuring changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training import GradientConflictCallback, SweetCallback, attach, attachment_of, gradient_conflict
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.references import LAYERS
from tests.training.trainers import EXITS, make_trainer

PAIRS = {(1, 3): 1, (1, 4): 1, (3, 4): 3}  # → number of layers that both exits use


def reference_cosines(model, family: str, batch) -> dict[tuple[int, int], list[float]]:
    """Computes the cosines with one backward per exit."""
    gradients = {}
    for exit_ in EXITS:
        fresh = copy.deepcopy(model)
        logits = {}
        for name, head in fresh.sweet_exits.items():
            head.register_forward_hook(lambda *call, name=name, logits=logits: logits.update({int(name): call[-1]}))
        logits[4] = fresh(**batch).logits
        F.cross_entropy(logits[exit_], batch["labels"]).backward()
        gradients[exit_] = [
            torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in layer.parameters()])
            for layer in fresh.get_submodule(LAYERS[family])
        ]
    return {
        (early, late): [
            F.cosine_similarity(gradients[early][layer], gradients[late][layer], dim=0).item() for layer in range(depth)
        ]
        for (early, late), depth in PAIRS.items()
    }


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta"])
def test_cosines_equal_those_of_separate_gradients(family):
    model = tiny_model(family)
    attachment = attach(model, SweetConfig(exits=EXITS, mode="joint"))
    with torch.no_grad():
        for _, parameter in attachment.head_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    batch = tiny_batch(rows=6)
    found = gradient_conflict(model, batch)
    expected = reference_cosines(model, family, batch)
    assert found.keys() == expected.keys()
    for pair, cosines in expected.items():
        assert found[pair] == pytest.approx(cosines, abs=1e-4)
        assert all(abs(value) > 1e-3 for value in cosines)
    assert all(parameter.grad is None for parameter in model.parameters()) and attachment.loss_observer is None


@pytest.mark.parametrize(
    ("settings", "isolated"),
    [({}, True), ({"mode": "sweet"}, True), ({"mode": "sweet", "gradient_scale": 0.25}, False)],
)
def test_conflict_is_zero_between_cut_segments(settings, isolated):
    model = tiny_model("bert")
    attach(model, SweetConfig(exits=EXITS, **settings))
    found = gradient_conflict(model, tiny_batch(rows=6))
    assert all((value == 0.0) == isolated for cosines in found.values() for value in cosines)


def test_measuring_does_not_change_the_training(tmp_path):
    trained, results = [], []
    for measured_run in (False, True):
        conflict = GradientConflictCallback(every=2)
        trainer = make_trainer(tiny_model("bert"), tmp_path, SweetCallback(exits=EXITS, mode="joint"), seed=1)
        if measured_run:
            trainer.add_callback(conflict)
        trainer.train()
        trained.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        results.append(conflict.result)
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
    assert results[0].measured == 0 and results[1].measured == 2  # 16 rows in batches of 4: forwards 0 and 2
    assert {pair: len(cosines) for pair, cosines in results[1].mean().items()} == PAIRS
    assert all(-1.0 <= value <= 1.0 for cosines in results[1].mean().values() for value in cosines)
    assert set(results[1].to_dict()["cosines"]) == {"1-3", "1-4", "3-4"}
    assert attachment_of(trainer.model).loss_observer is None


def test_means_are_over_measurements(tmp_path, monkeypatch):
    from itrex_sweet.training import conflict

    seen = iter([{(1, 3): [1.0]}, {(1, 3): [0.5]}, {(1, 3): [0.0]}, {(1, 3): [-0.5]}])
    monkeypatch.setattr(conflict, "_cosines", lambda losses, layers: next(seen))
    callback = GradientConflictCallback(every=1)
    trainer = make_trainer(tiny_model("bert"), tmp_path)
    trainer.add_callback(callback)
    trainer.train()
    assert callback.result.mean() == {(1, 3): [0.25]}


def test_invalid_measurements(tmp_path):
    with pytest.raises(TrainingSetupError, match="no exits"):
        gradient_conflict(tiny_model("bert"), tiny_batch())
    model = tiny_model("bert")
    attach(model, SweetConfig(exits=EXITS))
    unlabelled = {name: value for name, value in tiny_batch().items() if name != "labels"}
    with pytest.raises(TrainingSetupError, match="no labels"):
        gradient_conflict(model.eval(), unlabelled)
    with pytest.raises(ConfigError, match="every=0"):
        GradientConflictCallback(every=0)
    trainer = make_trainer(tiny_model("bert"), tmp_path, GradientConflictCallback())
    with pytest.raises(TrainingSetupError, match="put SweetCallback before"):
        trainer.train()
    trainer = make_trainer(tiny_model("bert"), tmp_path, gradient_checkpointing=True)
    trainer.add_callback(GradientConflictCallback())
    with pytest.raises(TrainingSetupError, match="backward once"):
        trainer.train()
