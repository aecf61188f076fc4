"""Tests that weights train in float32, and that divergence stops the training before an optimizer step."""

from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback

from itrex_sweet import open_artifact
from itrex_sweet.artifact import write_artifact
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ArtifactError, SweetError, TrainingDivergedError
from itrex_sweet.training import (
    DivergenceCallback,
    SweetCallback,
    attach,
    plain_state_dict,
    save_artifact,
    save_cascade,
    truncate,
)
from itrex_sweet.training.precision import set_config_dtype_to_float32
from tests.tiny_models import tiny_batch, tiny_model
from tests.training import trainers
from tests.training.trainers import EXITS, Rows, make_trainer

HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


def dtypes_of(model) -> set[torch.dtype]:
    return {value.dtype for value in model.parameters()}


# float32 by default


@pytest.mark.parametrize("dtype", HALF)
def test_a_half_precision_checkpoint_trains_in_float32(dtype, tmp_path, caplog):
    tiny_model().to(dtype).save_pretrained(tmp_path / "half")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half").to(dtype)
    trainer = make_trainer(model, tmp_path)
    assert dtypes_of(trainer.model) == {torch.float32}
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == 1 and str(dtype).removeprefix("torch.") in messages[0] and "float32" in messages[0]
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert all(torch.isfinite(value).all() for value in trainer.model.parameters())
    save_artifact(trainer.model, tmp_path / "artifact")
    config = open_artifact(tmp_path / "artifact").config
    assert {config.get("dtype"), config.get("torch_dtype")} <= {"float32", None}
    assert dtypes_of(AutoModelForSequenceClassification.from_pretrained(tmp_path / "artifact")) == {torch.float32}


def test_training_after_an_evaluation_in_half_precision(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path, bf16_full_eval=True)
    trainer.evaluate()
    trainer.train()
    assert dtypes_of(trainer.model) == {torch.float32}


def test_lora_over_a_half_precision_model(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_model().bfloat16(), peft.LoraConfig(task_type="SEQ_CLS", r=4)).train()
    trainer = make_trainer(model, tmp_path)
    trainer.train()
    assert dtypes_of(trainer.model) == {torch.float32}


def test_half_precision_on_request(tmp_path):
    trainer = make_trainer(tiny_model().bfloat16(), tmp_path, SweetCallback(exits=EXITS, allow_half=True))
    trainer.train()
    assert dtypes_of(trainer.model) == {torch.bfloat16}


def test_attaching_warns(caplog):
    attach(tiny_model().half(), SweetConfig(exits=EXITS))
    assert "float16" in caplog.text and "model.float()" in caplog.text


# divergence


def test_a_learning_rate_that_is_much_too_high(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path, learning_rate=1e30, num_train_epochs=3)
    with pytest.raises(TrainingDivergedError, match=r"at step [2-4]: .*learning rate"):
        trainer.train()
    assert trainer.args.max_grad_norm == 0.0 or trainer.args.max_grad_norm == 1.0


@pytest.fixture()
def corrupted_step(monkeypatch):
    """Multiplies the loss of one micro-batch, counted from 1, or its gradient only, by a value."""

    def corrupt(at, value, gradient_only=False):
        class Corrupted(Trainer):
            seen = 0

            def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
                outputs = model(**inputs)
                Corrupted.seen += 1
                if at == Corrupted.seen:
                    if gradient_only:
                        outputs.loss.register_hook(lambda gradient: gradient * value)
                    else:
                        outputs.loss = outputs.loss * value
                return (outputs.loss, outputs) if return_outputs else outputs.loss

        monkeypatch.setattr(trainers, "Trainer", Corrupted)

    return corrupt


@pytest.mark.parametrize(
    ("mode", "value", "gradient_only", "settings"),
    [
        ("sweet", math.nan, False, {}),
        ("sweet", math.inf, True, {"max_grad_norm": 0.0}),
        ("joint", math.nan, True, {}),
        ("joint", math.inf, False, {"max_grad_norm": 0.0}),
        ("joint", math.inf, True, {"logging_nan_inf_filter": False}),
    ],
)
def test_no_step_with_a_gradient_that_is_not_finite(mode, value, gradient_only, settings, corrupted_step, tmp_path):
    corrupted_step(3, value, gradient_only)
    trainer = make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, mode=mode), **settings)
    after = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            after.append(copy.deepcopy(model.state_dict()))

    trainer.add_callback(Watch)
    with pytest.raises(TrainingDivergedError, match="at step 3"):
        trainer.train()
    assert len(after) == 2
    for name, weights in trainer.model.state_dict().items():
        assert torch.equal(weights, after[-1][name]) and torch.isfinite(weights.float()).all()
    save_artifact(trainer.model, tmp_path / "artifact")


def test_every_micro_batch_is_checked(corrupted_step, tmp_path):
    corrupted_step(3, math.nan)
    with pytest.raises(TrainingDivergedError, match="at step 2"):
        make_trainer(tiny_model(), tmp_path, gradient_accumulation_steps=2).train()


def test_a_loss_that_is_not_finite_is_named_with_its_exit(tmp_path):
    def loss(logits, labels, exit):
        return torch.nn.functional.cross_entropy(logits, labels) * (math.inf if exit == 3 else 1.0)

    with pytest.raises(TrainingDivergedError, match="at step 1: the loss of exit 3 is inf"):
        make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, loss=loss)).train()


def test_a_checkpoint_that_is_not_finite(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.bert.encoder.layer[2].output.dense.weight[0, 0] = math.nan
    with pytest.raises(TrainingDivergedError, match=r"1 of 1536 values of 'bert\.encoder\.layer\.2\.output"):
        make_trainer(model, tmp_path).train()


def test_a_plain_model(corrupted_step, tmp_path):
    corrupted_step(2, math.nan)
    trainer = make_trainer(tiny_model(), tmp_path, DivergenceCallback())
    with pytest.raises(TrainingDivergedError, match="at step 2: the norm of the gradient is nan"):
        trainer.train()
    corrupted_step(0, math.nan)
    make_trainer(tiny_model(), tmp_path, DivergenceCallback()).train()


# writing


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["bert.embeddings.LayerNorm.bias", "sweet_exits.3.dense.weight", "classifier.bias"])
def test_weights_that_are_not_finite_are_not_written(name, value, tmp_path):
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS))
    save_artifact(model, tmp_path / "artifact")
    before = (tmp_path / "artifact" / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[1] = value
    with pytest.raises(ArtifactError, match=f"1 of .* values of '{name}'"):
        save_artifact(model, tmp_path / "artifact")
    assert (tmp_path / "artifact" / "model.safetensors").read_bytes() == before
    with pytest.raises(ArtifactError, match=name):
        save_artifact(model, tmp_path / "new")
    assert not (tmp_path / "new" / "model.safetensors").exists()


def test_a_cascade_and_an_int8_artifact_are_not_written_either(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.classifier.weight[0, 0] = math.nan
    with pytest.raises(ArtifactError, match=r"classifier\.weight"):
        save_cascade({2: truncate(model, 2), 4: model}, tmp_path / "cascade")
    valid = tiny_model()
    attach(valid, SweetConfig(exits=EXITS))
    tensors = {**plain_state_dict(valid), "scale": torch.tensor([1.0, math.inf])}
    with pytest.raises(SweetError, match="'scale'"):
        write_artifact(tmp_path / "int8", config=valid.config, tensors=tensors, quantization={"recipe": "static"})


def test_finite_extremes_are_written(tmp_path):
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS))
    with torch.no_grad():
        model.classifier.bias[0] = torch.finfo(torch.float32).max
    save_artifact(model, tmp_path / "artifact")


def test_rows_without_labels_are_no_divergence(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path)
    trainer.train_dataset = Rows(16)
    trainer.train_dataset.batch["labels"][:] = -100
    trainer.train()
    assert torch.isfinite(trainer.model(**tiny_batch()).loss)


def test_the_deprecated_name_of_the_dtype_is_not_read():
    """transformers 5 warns of it."""

    class Config:
        dtype = torch.bfloat16

        @property
        def torch_dtype(self):
            raise AssertionError("deprecated")

    config = Config()
    set_config_dtype_to_float32(config)
    assert config.dtype == torch.float32
