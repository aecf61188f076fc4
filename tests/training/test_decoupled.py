"""Tests that exits with private layers do not change the training of the model."""

from __future__ import annotations

import copy

import pytest
import torch

from itrex_sweet.config import SweetConfig
from itrex_sweet.families import EXIT_HEADS
from itrex_sweet.training import SweetCallback, attach, plain_state_dict
from tests.tiny_models import FAMILY_CONFIGS, ROW_CONFIGS, tiny_model
from tests.training.trainers import EXITS, trained
from tests.training.two_processes import run_two_processes, train_with_and_without_exits


def own_weights(model) -> dict[str, torch.Tensor]:
    """Returns copies of the model's weights without those of the exits."""
    return {name: value.clone() for name, value in model.state_dict().items() if EXIT_HEADS not in name}


def exit_weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if EXIT_HEADS in name}


def unequal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    """Returns the names of tensors that are not equal to the bit."""
    assert ours.keys() == theirs.keys()
    return [name for name, value in theirs.items() if not torch.equal(value, ours[name])]


def assert_trains_as_plain(tmp_path, model=None, callback=None, **settings):
    model = tiny_model(dropout=0.1) if model is None else model
    before = own_weights(model)
    plain = trained(tmp_path / "plain", model=copy.deepcopy(model), **settings)
    ours = trained(tmp_path / "ours", callback or SweetCallback(exits=EXITS), model=copy.deepcopy(model), **settings)
    assert unequal(own_weights(ours.model), own_weights(plain.model)) == []
    assert unequal(own_weights(plain.model), before)
    return plain, ours


@pytest.mark.parametrize("family", [*FAMILY_CONFIGS, *ROW_CONFIGS])
def test_every_family_trains_as_without_exits(family, tmp_path):
    assert_trains_as_plain(tmp_path, tiny_model(family, dropout=0.1))


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
def test_training_arguments_train_as_without_exits(settings, tmp_path):
    assert_trains_as_plain(tmp_path, **settings)


def test_the_best_checkpoint_is_that_of_a_training_without_exits(tmp_path):
    best = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
        "warmup_steps": 0,
        "metric_for_best_model": "loss",
        "greater_is_better": True,  # so that the best checkpoint is not the last
    }
    plain, ours = assert_trains_as_plain(tmp_path, **best)
    assert ours.state.best_global_step == plain.state.best_global_step < plain.state.max_steps
    keys = ("eval_loss", "grad_norm", "learning_rate")
    logs = [
        [(key, log[key]) for log in trainer.state.log_history for key in keys if key in log]
        for trainer in (ours, plain)
    ]
    assert logs[0] == logs[1]


def test_exits_do_not_affect_one_another(tmp_path):
    several = trained(tmp_path / "a", SweetCallback(exits=(1, 2, 3, 4)))
    alone = trained(tmp_path / "b", SweetCallback(exits=(3, 4)))
    expected = exit_weights(alone.model)
    found = {name: value for name, value in exit_weights(several.model).items() if name in expected}
    assert unequal(found, expected) == [] and len(expected) == 20


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    settings = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 3, "rows": 8}
    _, ours = assert_trains_as_plain(tmp_path, **settings)
    callback = SweetCallback(exits=EXITS)
    checkpoint = str(tmp_path / "ours" / "checkpoint-3")
    resumed = trained(tmp_path / "again", callback, resume=checkpoint, **settings)
    assert unequal(dict(resumed.model.state_dict()), dict(ours.model.state_dict())) == []


def test_lora_trains_as_without_exits(tmp_path):
    peft = pytest.importorskip("peft")

    def adapted():
        torch.manual_seed(3)
        model = tiny_model("bert", dropout=0.1)
        return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_dropout=0.1))

    plain = trained(tmp_path / "plain", model=adapted())
    ours = trained(tmp_path / "ours", SweetCallback(exits=EXITS), model=adapted())
    assert unequal(own_weights(ours.model), own_weights(plain.model)) == []
    # The trained weights can be loaded from the adapter's folder.
    ours.save_model(tmp_path / "saved")
    again = peft.PeftModel.from_pretrained(tiny_model("bert", dropout=0.1), tmp_path / "saved")
    attach(again, heads_from=tmp_path / "saved", config=SweetConfig(EXITS))
    expected = plain_state_dict(ours.model)
    found = plain_state_dict(again)
    assert unequal(found, expected) == []
    started = plain_state_dict(adapted())
    layer = "bert.encoder.layer.2.intermediate.dense.weight"
    assert not torch.equal(expected["sweet_exits.3.layer.intermediate.dense.weight"], started[layer])


def test_an_exit_starts_from_weights_with_adapters_merged():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, init_lora_weights=False)
    model = peft.get_peft_model(tiny_model("bert"), config)
    attach(model, SweetConfig(EXITS))
    weights = plain_state_dict(model)
    path = "attention.self.query.weight"
    torch.testing.assert_close(weights[f"sweet_exits.3.layer.{path}"], weights[f"bert.encoder.layer.2.{path}"])
    base = tiny_model("bert").bert.encoder.layer[2].attention.self.query.weight
    assert not torch.equal(weights[f"sweet_exits.3.layer.{path}"], base)


def test_two_processes_train_as_without_exits(tmp_path):
    """Compares the weights after training with DistributedDataParallel, to the bit."""
    run_two_processes(train_with_and_without_exits, tmp_path)
    plain, ours = (torch.load(tmp_path / f"{name}-0.pt") for name in ("plain", "ours"))
    others = torch.load(tmp_path / "ours-1.pt")
    assert unequal(others, ours) == [], "the processes differ"
    assert unequal({name: value for name, value in ours.items() if EXIT_HEADS not in name}, plain) == []
