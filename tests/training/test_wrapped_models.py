"""Tests of compiled and wrapped models, and of objects that are not models."""

from __future__ import annotations

import pytest
import torch

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError, UnsupportedModelError
from itrex_sweet.training import SweetCallback, attach, attachment_of
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, make_trainer

SWEET = SweetConfig(exits=EXITS)


@pytest.mark.parametrize(
    "wrap, message",
    [
        (lambda model: torch.compile(model, backend="eager"), "compiled"),
        (lambda model: torch.nn.DataParallel(model), "model.module"),
    ],
)
def test_wrapped_before_attaching(wrap, message, tmp_path):
    model = tiny_model()
    with pytest.raises(TrainingSetupError, match=message):
        attach(wrap(model), SWEET)
    with pytest.raises(TrainingSetupError, match=message):
        make_trainer(wrap(model), tmp_path, SweetCallback(exits=EXITS))
    assert attachment_of(model) is None and not hasattr(model.config, "sweet")


@pytest.mark.parametrize(("in_place", "mode"), [(True, "joint"), (False, "sweet")])
def test_compiled_after_attaching_trains_the_same(in_place, mode):
    plain, model = tiny_model(num_layers=2), tiny_model(num_layers=2)
    config, batch = SweetConfig(exits=(1, 2), mode=mode), tiny_batch()
    attach(plain, config)
    attachment = attach(model, config)
    plain(**batch).loss.backward()
    if in_place:
        model.compile(backend="eager")
    compiled = model if in_place else torch.compile(model, backend="eager")
    compiled(**batch).loss.backward()
    assert attachment.loss_received_gradient
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if expected[name].grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("thing", ["bert-base-uncased", None, {}, torch.nn.Linear(2, 2), tiny_model])
def test_objects_that_are_not_models(thing):
    with pytest.raises(UnsupportedModelError, match="AutoModelForSequenceClassification"):
        attach(thing, SWEET)


@pytest.mark.parametrize("config", [{"exits": (1, 4)}, (1, 4), "sweet"])
def test_invalid_config_objects(config):
    with pytest.raises(ConfigError, match=r"attach\(model, SweetConfig"):
        attach(tiny_model(), config)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"teacher": "bert", "distillation": 0.5}, "teacher"),
        ({"teacher": tiny_model(), "distillation": 0.0}, "teacher without distillation"),
        ({"compute_metrics": "accuracy"}, "compute_metrics"),
        ({"allow_half": "no"}, "allow_half"),
        ({"exits": 3}, r"exits=\(3,\)"),
        ({"learn_to_exit": 1}, "learn_to_exit"),
        ({"distillation": float("nan")}, "distillation"),
    ],
)
def test_invalid_settings_of_the_callback(settings, message):
    with pytest.raises(ConfigError, match=message):
        SweetCallback(**settings)
