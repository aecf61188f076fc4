"""Tests of SweetCallback in an unmodified Trainer."""

from __future__ import annotations

import copy
import json
import logging

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, TrainerCallback, TrainingArguments

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, InputError, TrainingSetupError, UnsupportedModelError
from itrex_sweet.training import SweetCallback, attach, attachment_of, clip_by_group
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, Rows, make_trainer


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(ours, theirs, exactly: bool = True, atol: float = 1e-6) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        tolerance = dict(rtol=0, atol=0) if exactly else dict(rtol=1e-5, atol=atol)
        torch.testing.assert_close(ours[name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


# training


@pytest.mark.parametrize("mode", ["sweet", "paper", "joint"])
def test_every_weight_learns(mode, tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, mode=mode), rows=24, num_train_epochs=8)
    before = weights_of(trainer.model)
    trainer.train()
    still = [name for name, value in weights_of(trainer.model).items() if torch.equal(value, before[name])]
    assert still == []
    first, last = (next(log for log in logs if "loss_exit_1" in log) for logs in _forward_and_reversed(trainer))
    assert all(last[f"loss_exit_{exit_}"] < first[f"loss_exit_{exit_}"] for exit_ in EXITS)


def _forward_and_reversed(trainer):
    return trainer.state.log_history, trainer.state.log_history[::-1]


def test_gradient_accumulation_equals_one_large_batch(tmp_path):
    settings = dict(optim="sgd", max_grad_norm=0.0, max_steps=3, logging_steps=1, lr_scheduler_type="constant")
    big, small = SweetCallback(EXITS, "sweet"), SweetCallback(EXITS, "sweet")
    big = make_trainer(tiny_model(), tmp_path / "a", big, per_device_train_batch_size=8, **settings)
    small = make_trainer(tiny_model(), tmp_path / "b", small, gradient_accumulation_steps=2, **settings)
    big.train()
    small.train()
    assert_equal(weights_of(small.model), weights_of(big.model), exactly=False)
    ours, theirs = ([log for log in t.state.log_history if "loss_exit_1" in log] for t in (small, big))
    for one, other in zip(ours, theirs, strict=True):
        for key in ("loss", *(f"loss_exit_{exit_}" for exit_ in EXITS)):
            assert one[key] == pytest.approx(other[key], abs=2e-4)


def test_num_items_in_batch_divides_every_exits_loss():
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS, mode="sweet"))
    batch = tiny_batch(rows=8)
    if "kwargs" not in type(model).forward.__code__.co_varnames:
        pytest.skip("this release of transformers passes the model no num_items_in_batch")
    whole = model(**batch).loss
    halves = [{key: value[rows] for key, value in batch.items()} for rows in (slice(0, 3), slice(3, 8))]
    parts = [model(**half, num_items_in_batch=torch.tensor(8)).loss for half in halves]
    torch.testing.assert_close(sum(parts), whole)


def test_training_logs_have_the_loss_of_every_exit(tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    # The logged losses are those against the labels; without distillation they add up to the training loss.
    callback = SweetCallback(exits=EXITS, distillation=0.0)
    trainer = make_trainer(tiny_model(), tmp_path, callback, eval_strategy="epoch")
    trainer.add_callback(Watch)
    trainer.train()
    training = [log for log in seen if "loss" in log]
    keys = [f"loss_exit_{exit_}" for exit_ in EXITS]
    assert len(training) == 2
    for log in training:
        assert log["loss"] == pytest.approx(sum(log[key] for key in keys), abs=5e-4)
        assert "grad_norm" in log
    others = [log for log in seen if "loss" not in log]
    assert len(others) == 2 and not any(key in log for log in others for key in keys)
    kept = [log for log in trainer.state.log_history if "loss" in log]
    assert [[log[key] for key in keys] for log in kept] == [[log[key] for key in keys] for log in training]


def test_bf16_autocast(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path, bf16=True, eval_strategy="epoch", bf16_full_eval=False)
    seen = []
    trainer.model.sweet_exits["1"].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    trainer.train()
    assert set(seen) == {torch.bfloat16}
    assert all(np.isfinite(log["loss"]) for log in trainer.state.log_history if "loss" in log)
    assert "eval_exit_1_accuracy" in trainer.evaluate()


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_trains_the_same(reentrant, tmp_path):
    """With SGD: Adam divides a gradient by its size, so that rounding moves a weight as far as a real gradient does."""
    settings = dict(optim="sgd", learning_rate=0.1)
    plain = make_trainer(tiny_model(), tmp_path / "a", **settings)
    before = weights_of(plain.model)
    plain.train()
    again = make_trainer(
        tiny_model(),
        tmp_path / "b",
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
        **settings,
    )
    again.train()
    assert again.model.bert.encoder.layer[0].gradient_checkpointing
    after = weights_of(plain.model)
    assert max((after[name] - value).abs().max() for name, value in before.items()) > 0.01
    # IPEX, once imported, uses other kernels for the forward without gradients that precedes the recomputed one.
    assert_equal(weights_of(again.model), after, exactly=False, atol=1e-5)


def test_a_frozen_backbone_trains_heads_only(tmp_path):
    model = tiny_model()
    model.bert.requires_grad_(False)
    trainer = make_trainer(model, tmp_path)
    before = weights_of(trainer.model)
    trainer.train()
    changed = {name for name, value in weights_of(trainer.model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith(("sweet_exits", "classifier"))}


def test_the_users_own_attachment_is_used(tmp_path):
    model = tiny_model()
    attachment = attach(model, SweetConfig(EXITS, "sweet", gradient_scale=0.5))
    make_trainer(model, tmp_path, SweetCallback(mode="sweet", gradient_scale=0.5)).train()
    assert attachment_of(model) is attachment
    with pytest.raises(TrainingSetupError, match="detach"):
        make_trainer(model, tmp_path, SweetCallback((1, 2, 4), "sweet", gradient_scale=0.5))
    with pytest.raises(TrainingSetupError, match=r"gradient_scale=0\.0"):
        make_trainer(model, tmp_path, SweetCallback(EXITS, "sweet"))


def test_a_named_scale_goes_with_an_attachment_of_the_same_shares(tmp_path):
    model = tiny_model()
    callback = SweetCallback(mode="sweet", gradient_scale="cut_first")
    attach(model, SweetConfig(EXITS, "sweet", gradient_scale=(0.0, 1.0)))
    make_trainer(model, tmp_path, callback).train()
    assert callback.config.gradient_scale == (0.0, 1.0) == tuple(model.config.sweet["gradient_scale"])


# setups that would fail silently


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"torch_compile": True}, "torch_compile"),
    ],
)
def test_unsupported_training_arguments(settings, message, tmp_path):
    with pytest.raises(TrainingSetupError, match=message):
        make_trainer(tiny_model(), tmp_path, **settings)


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"fp16": True}, "bf16"),
        ({"_n_gpu": 2}, "torchrun"),
        ({"deepspeed": "zero.json"}, "DDP"),
        ({"fsdp": ["full_shard"]}, "DDP"),
    ],
)
def test_unsupported_hardware_settings(attributes, message, tmp_path):
    # TrainingArguments rejects these without the hardware, so they are set afterwards.
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for name, value in attributes.items():
        object.__setattr__(args, name, value)
    model = tiny_model()
    with pytest.raises(TrainingSetupError, match=message):
        SweetCallback(exits=EXITS).on_init_end(args, None, None, model=model)
    assert attachment_of(model) is None


def test_compute_loss_func_is_rejected(tmp_path):
    def loss(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs.logits, labels)

    trainer = make_trainer(tiny_model(), tmp_path, compute_loss_func=loss)
    with pytest.raises(TrainingSetupError, match="compute_loss_func"):
        trainer.train()


def test_an_optimizer_without_the_heads(tmp_path):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = make_trainer(model, tmp_path, optimizers=(optimizer, None))
    with pytest.raises(TrainingSetupError, match=r"sweet_exits\.1\.dense\.weight.*attach"):
        trainer.train()
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    make_trainer(model, tmp_path, optimizers=(optimizer, None)).train()


def test_model_init(tmp_path):
    trainer = make_trainer(None, tmp_path, model_init=lambda: tiny_model())
    with pytest.raises(TrainingSetupError, match="model_init"):
        trainer.train()

    def init():
        model = tiny_model()
        attach(model, SweetConfig(exits=EXITS))
        return model

    trainer = make_trainer(None, tmp_path, model_init=init)
    trainer.train()
    assert "eval_exit_1_accuracy" in trainer.evaluate()


def test_callback_added_with_add_callback(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path, TrainerCallback())
    trainer.add_callback(SweetCallback(exits=EXITS))
    with pytest.raises(TrainingSetupError, match="add_callback"):
        trainer.train()


def test_invalid_settings_and_models(tmp_path):
    with pytest.raises(ConfigError, match="mode"):
        SweetCallback(mode="other")
    with pytest.raises(ConfigError, match="4 layers"):
        make_trainer(tiny_model(), tmp_path, SweetCallback(exits=(1, 9)))
    several_values = tiny_model()
    several_values.config.problem_type = "regression"
    with pytest.raises(UnsupportedModelError, match="regression of one value"):
        make_trainer(several_values, tmp_path)


def test_labels_out_of_range_in_training(tmp_path):
    trainer = make_trainer(tiny_model(num_labels=2), tmp_path)
    with pytest.raises(InputError, match="label 2 in row"):
        trainer.train()


# clipping


def _updates(mode: str, scale_of_logits: float, folder) -> dict[int, torch.Tensor]:
    """Returns exit → update of its segment by one step, with the logits of exit 1 multiplied by `scale_of_logits`."""
    model = tiny_model()
    trainer = make_trainer(
        model, folder, SweetCallback(exits=EXITS, mode=mode), optim="sgd", max_steps=1, max_grad_norm=0.5
    )
    model.sweet_exits["1"].register_forward_hook(lambda module, args, logits: logits * scale_of_logits)
    segments = attachment_of(model).parameters_by_segment()
    before = {exit_: torch.cat([p.detach().flatten().clone() for _, p in named]) for exit_, named in segments.items()}
    trainer.train()
    assert trainer.args.max_grad_norm == 0.5
    return {
        exit_: torch.cat([p.detach().flatten() for _, p in named]) - before[exit_] for exit_, named in segments.items()
    }


def test_large_gradients_of_one_exit_do_not_scale_down_other_updates(tmp_path):
    small, large = _updates("sweet", 1.0, tmp_path / "a"), _updates("sweet", 1000.0, tmp_path / "b")
    assert torch.equal(small[3], large[3]) and torch.equal(small[4], large[4])
    for exit_ in EXITS:  # every gradient norm is above 0.5, so an update is the learning rate times 0.5
        assert small[exit_].norm().item() == pytest.approx(0.5 * 1e-2, rel=1e-3)
        assert large[exit_].norm().item() == pytest.approx(0.5 * 1e-2, rel=1e-3)


def test_joint_mode_clips_one_global_norm(tmp_path):
    small, large = _updates("joint", 1.0, tmp_path / "a"), _updates("joint", 1000.0, tmp_path / "b")
    assert large[4].norm() < 0.1 * small[4].norm()
    assert torch.cat(list(large.values())).norm().item() == pytest.approx(0.5 * 1e-2, rel=1e-3)


def test_max_grad_norm_of_zero_disables_clipping(tmp_path):
    def weights(max_grad_norm):
        trainer = make_trainer(
            tiny_model(),
            tmp_path,
            optim="sgd",
            max_steps=1,
            max_grad_norm=max_grad_norm,
            lr_scheduler_type="constant",
        )
        trainer.train()
        return weights_of(trainer.model)

    assert_equal(weights(0.0), weights(1e9))
    assert any(not torch.equal(a, b) for a, b in zip(weights(0.0).values(), weights(0.01).values(), strict=True))


def test_clipping_survives_a_training_that_raised(tmp_path):
    class Fail(TrainerCallback):
        def on_optimizer_step(self, *args, **kwargs):
            raise RuntimeError("stop")

    trainer = make_trainer(tiny_model(), tmp_path, max_grad_norm=0.25)
    trainer.add_callback(Fail)
    with pytest.raises(RuntimeError, match="stop"):
        trainer.train()
    trainer.remove_callback(Fail)
    norms = []

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            for named in attachment_of(model).parameters_by_segment().values():
                norms.append(torch.cat([p.grad.flatten() for _, p in named if p.grad is not None]).norm().item())

    trainer.add_callback(Watch)
    trainer.train()
    assert trainer.args.max_grad_norm == 0.25
    assert norms and max(norms) == pytest.approx(0.25, rel=1e-3)


def test_clip_by_group():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([30.0, 40.0]), torch.tensor([0.3, 0.4])
    norms = clip_by_group([[parameters[0]], [parameters[1]], [parameters[2]]], 1.0)
    assert [norm.item() for norm in norms] == pytest.approx([50.0, 0.5, 0.0])
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.8]))
    assert torch.equal(parameters[1].grad, torch.tensor([0.3, 0.4])) and parameters[2].grad is None


# evaluation


def expected_metrics(trainer, rows, prefix="eval") -> dict[str, float]:
    batch = rows.batch
    model = copy.deepcopy(trainer.model).eval()
    with torch.no_grad():
        model(**batch)
    metrics = {}
    for exit_, logits in attachment_of(model).exit_logits.items():
        right = (logits.argmax(-1) == batch["labels"])[batch["labels"] != -100]
        metrics[f"{prefix}_exit_{exit_}_accuracy"] = right.float().mean().item()
        metrics[f"{prefix}_exit_{exit_}_loss"] = F.cross_entropy(logits, batch["labels"]).item()
    return metrics


def test_evaluation_reports_every_exit(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path)
    trainer.train()
    metrics = trainer.evaluate()
    expected = expected_metrics(trainer, trainer.eval_dataset)
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert {key for key in metrics if "exit" in key} == set(expected)
    assert len({metrics[f"eval_exit_{exit_}_loss"] for exit_ in EXITS}) == len(EXITS)
    assert {key: trainer.state.log_history[-1][key] for key in expected} == pytest.approx(expected, rel=1e-5)


def test_evaluation_with_compute_metrics_and_several_data_sets(tmp_path):
    shapes = []

    def compute(prediction):
        shapes.append((prediction.predictions.shape, prediction.label_ids.shape))
        return {"zeros": np.float64((prediction.predictions.argmax(-1) == 0).mean())}

    data = {"a": Rows(rows=7, seed=3), "b": Rows(rows=11, seed=4)}
    callback = SweetCallback(exits=EXITS, compute_metrics=compute)
    trainer = make_trainer(tiny_model(), tmp_path, callback, eval_dataset=data, compute_metrics=compute)
    metrics = trainer.evaluate()
    for name, rows in data.items():
        expected = expected_metrics(trainer, rows, f"eval_{name}")
        assert {key: metrics[key] for key in expected} == pytest.approx(expected, rel=1e-5)
        assert metrics[f"eval_{name}_zeros"] == metrics[f"eval_{name}_exit_4_zeros"]
        assert isinstance(metrics[f"eval_{name}_exit_1_zeros"], float)
    assert set(shapes) == {((7, 3), (7,)), ((11, 3), (11,))}


def test_prediction(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path)
    rows = Rows(rows=9, seed=5)
    rows.batch["labels"][4] = -100
    answer = trainer.predict(rows)
    expected = expected_metrics(trainer, rows, "test")
    assert {key: answer.metrics[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert answer.predictions.shape == (9, 3)
    unlabelled = trainer.predict(Rows(rows=9, seed=5, labelled=False))
    assert np.array_equal(unlabelled.predictions, answer.predictions)
    assert not [key for key in unlabelled.metrics if "exit" in key]


def test_an_interrupted_evaluation_is_discarded(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path)
    expected = trainer.evaluate()
    broken = Rows(rows=13, seed=2)
    broken.batch["labels"][-1] = 99
    with pytest.raises(InputError):
        trainer.evaluate(broken)
    again = trainer.evaluate()
    assert {k: v for k, v in again.items() if "exit" in k} == {k: v for k, v in expected.items() if "exit" in k}


def test_metric_for_best_model_may_be_that_of_an_exit(tmp_path):
    values = iter([0.1, 0.9, 0.5, 0.2])
    seen = []

    def scripted(prediction):  # called once per exit; the second of three is exit 3
        seen.append(len(seen))
        return {"score": next(values) if len(seen) % 3 == 2 else 0.0}

    trainer = make_trainer(
        tiny_model(),
        tmp_path,
        SweetCallback(exits=EXITS, compute_metrics=scripted),
        num_train_epochs=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_exit_3_score",
        greater_is_better=True,
    )
    trainer.train()
    assert trainer.state.best_metric == 0.9
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-8")
    best = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-8")
    attach(best)
    assert_equal(weights_of(trainer.model), weights_of(best))


# saving and resuming


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    settings = dict(num_train_epochs=2, save_strategy="steps", save_steps=3)
    whole = make_trainer(tiny_model(dropout=0.1), tmp_path / "a", **settings)
    whole.train()
    recorded = json.loads((tmp_path / "a" / "checkpoint-3" / "trainer_state.json").read_text())
    recorded = recorded["stateful_callbacks"]["SweetCallback"]["args"]
    assert recorded == SweetConfig(exits=(1, 3, 4)).to_dict()

    resumed = make_trainer(tiny_model(seed=5, dropout=0.1), tmp_path / "b", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert_equal(weights_of(resumed.model), weights_of(whole.model))
    keys = [f"loss_exit_{exit_}" for exit_ in EXITS]
    ours, theirs = ([log for log in t.state.log_history if "loss" in log][-1] for t in (resumed, whole))
    assert [ours[key] for key in keys] == [theirs[key] for key in keys]


@pytest.mark.parametrize(
    "callback, message",
    [
        (SweetCallback(exits=(1, 2, 4)), r"exits=\(1, 3, 4\)"),
        (SweetCallback(exits=EXITS, exit_lr_multiplier=1.0), r"exit_lr_multiplier=3\.0"),
    ],
)
def test_resuming_with_other_settings(callback, message, tmp_path):
    make_trainer(tiny_model(), tmp_path, save_strategy="steps", save_steps=2).train()
    other = make_trainer(tiny_model(), tmp_path, callback, num_train_epochs=2)
    with pytest.raises(TrainingSetupError, match=message):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_resuming_from_a_checkpoint_without_exits(tmp_path):
    make_trainer(tiny_model(), tmp_path, TrainerCallback(), save_strategy="steps", save_steps=2).train()
    attached = make_trainer(tiny_model(), tmp_path, num_train_epochs=2, save_only_model=True)
    (tmp_path / "checkpoint-2" / "optimizer.pt").unlink()
    with pytest.raises(TrainingSetupError, match="without exits"):
        attached.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_restoring_callbacks_from_a_checkpoint(tmp_path):
    settings = dict(num_train_epochs=2, save_strategy="steps", save_steps=2)
    make_trainer(tiny_model(), tmp_path, **settings).train()
    settings["restore_callback_states_from_checkpoint"] = True
    again = make_trainer(tiny_model(), tmp_path, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "loss_exit_1" in [log for log in again.state.log_history if "loss" in log][-1]
    assert again.args.max_grad_norm == 1.0

    callback = SweetCallback(exits=EXITS, compute_metrics=lambda prediction: {})
    other = tmp_path / "other"
    make_trainer(tiny_model(), other, callback, save_strategy="steps", save_steps=2).train()
    lost = make_trainer(tiny_model(), other, SweetCallback(exits=EXITS, compute_metrics=lambda p: {}), **settings)
    with pytest.raises(TrainingSetupError, match="compute_metrics"):
        lost.train(resume_from_checkpoint=str(other / "checkpoint-2"))


def test_a_saved_model_loads_as_the_plain_model_and_trains_on_with_its_heads(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    batch = Rows(rows=6, seed=9).batch
    assert torch.equal(plain(**batch).logits, trainer.model.eval()(**batch).logits)
    again = make_trainer(plain, tmp_path / "again", SweetCallback())
    assert_equal(weights_of(again.model), weights_of(trainer.model))
    theirs, ours = trainer.evaluate(), again.evaluate()
    assert {k: v for k, v in ours.items() if "exit" in k} == {k: v for k, v in theirs.items() if "exit" in k}


def test_nothing_is_logged_as_a_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    make_trainer(tiny_model(), tmp_path).train()
    assert [record for record in caplog.records if "itrex" in record.name or "sweet" in record.getMessage()] == []
