"""Tests of class weights and custom losses, which apply at every exit."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, Trainer

from itrex_sweet.config import SweetConfig, balanced_weights
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training import SweetCallback, attach, attachment_of, save_artifact
from itrex_sweet.training.label_loss import LabelLoss, accepts_exit, trainer_loss
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, Rows, make_trainer

WEIGHTS = (1.0, 2.5, 0.25)


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


def focal(logits, labels, exit):
    loss = F.cross_entropy(logits, labels, reduction="none")
    return ((1 - torch.exp(-loss)) ** 2 * loss).mean()


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def reference_loss_and_gradients(loss_of, mode: str, batch, **more) -> tuple[float, dict[str, torch.Tensor]]:
    """Returns loss and gradients computed from the logits of each exit."""
    model = tiny_model()
    attachment = attach(model, SweetConfig(exits=EXITS, mode=mode, **more))
    attachment.loss_observer = lambda losses: None  # keeps the graphs
    logits = {}
    for exit_, head in attachment._heads().items():
        head.register_forward_hook(lambda module, args, output, exit_=exit_: logits.__setitem__(exit_, output))
    logits[EXITS[-1]] = model(**batch).logits
    loss = sum(loss_of(logits[exit_], batch["labels"], exit_) for exit_ in EXITS)
    loss.backward()
    return loss.item(), gradients(model)


def assert_same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("mode", ["sweet", "paper", "joint"])
def test_class_weights_are_those_of_cross_entropy_at_every_exit(mode):
    batch = tiny_batch(rows=7)
    batch["labels"][2] = -100

    def weighted(logits, labels, exit_):
        return F.cross_entropy(logits, labels, weight=torch.tensor(WEIGHTS))

    expected, theirs = reference_loss_and_gradients(weighted, mode, batch)
    model = tiny_model()
    attachment = attach(model, SweetConfig(exits=EXITS, mode=mode, class_weights=WEIGHTS))
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert_same_gradients(gradients(model), theirs)
    assert sum(attachment.exit_losses.values()).item() == pytest.approx(expected, rel=1e-5)
    assert model.eval()(**batch).loss.item() == pytest.approx(expected, rel=1e-5)  # in evaluation too


@pytest.mark.parametrize("mode", ["sweet", "joint"])
def test_a_custom_loss_at_every_exit(mode):
    batch = tiny_batch(rows=7)
    seen = []

    def scaled_focal(logits, labels, exit):
        seen.append((exit, logits.dtype, tuple(logits.shape), labels.tolist()))
        return exit * focal(logits, labels, exit)

    expected, theirs = reference_loss_and_gradients(scaled_focal, mode, batch)
    seen.clear()
    batch_with_ignored = {name: torch.cat([value, value[:1]]) for name, value in batch.items()}
    batch_with_ignored["labels"][-1] = -100
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS, mode=mode), loss=scaled_focal)
    loss = model(**batch_with_ignored).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert_same_gradients(gradients(model), theirs)
    assert seen == [(exit_, torch.float32, (7, 3), batch["labels"].tolist()) for exit_ in EXITS]  # once each


def test_a_custom_loss_in_a_trainer(tmp_path):
    callback = SweetCallback(exits=EXITS, loss=focal, distillation=0.0)
    trainer = make_trainer(tiny_model(), tmp_path, callback, eval_strategy="epoch", logging_steps=1)
    trainer.train()
    log = next(log for log in trainer.state.log_history if "loss_exit_1" in log)
    assert log["loss"] == pytest.approx(sum(log[f"loss_exit_{exit_}"] for exit_ in EXITS), abs=2e-3)
    batch = Rows(rows=13, seed=1).batch
    metrics = trainer.evaluate()
    trainer.model.eval()(**batch)
    for exit_, logits in attachment_of(trainer.model).exit_logits.items():
        assert metrics[f"eval_exit_{exit_}_loss"] == pytest.approx(
            focal(logits, batch["labels"], exit_).item(), abs=1e-5
        )
    assert trainer.model.config.sweet["loss"] == "focal"


def test_micro_batches_add_up_to_the_whole_batch():
    if "kwargs" not in type(tiny_model()).forward.__code__.co_varnames:
        pytest.skip("this release of transformers passes the model no num_items_in_batch")
    batch = tiny_batch(rows=8)
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS), loss=focal)
    whole = model(**batch).loss
    halves = [{key: value[rows] for key, value in batch.items()} for rows in (slice(0, 3), slice(3, 8))]
    parts = [model(**half, num_items_in_batch=torch.tensor(8)).loss for half in halves]
    torch.testing.assert_close(sum(parts), whole)


def test_class_weights_do_not_apply_to_distillation():
    batch = tiny_batch(rows=6)
    model = tiny_model()
    attachment = attach(model, SweetConfig(exits=EXITS, class_weights=WEIGHTS, distillation=1.0))
    loss = model(**batch).loss
    unweighted = tiny_model()
    attach(unweighted, SweetConfig(exits=EXITS, distillation=1.0))
    last = attachment.exit_losses[EXITS[-1]]
    difference = last - F.cross_entropy(attachment.exit_logits[EXITS[-1]], batch["labels"])
    torch.testing.assert_close(loss.detach() - unweighted(**batch).loss.detach(), difference)


def test_balanced_weights_come_from_the_training_rows(tmp_path):
    rows = [Rows(16)[place] for place in range(16)]
    rows = [row for row in rows if row["labels"] != 2] + [row for row in rows if row["labels"] == 2][:2]
    labels = [int(row["labels"]) for row in rows]
    expected = [len(labels) / (3 * labels.count(label)) for label in range(3)]
    args = make_trainer(tiny_model(), tmp_path).args
    trainer = Trainer(
        tiny_model(), args, train_dataset=rows, callbacks=[SweetCallback(exits=EXITS, class_weights="balanced")]
    )
    trainer.train()
    assert trainer.model.config.sweet["class_weights"] == pytest.approx(expected)
    trainer.train()  # again
    trainer.save_model(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert attach(again).config.class_weights == pytest.approx(expected)
    unreadable = make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, class_weights="balanced"))
    with pytest.raises(TrainingSetupError, match="balanced_weights"):
        unreadable.train()


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=40))
def test_balanced_weights_give_every_label_the_same_total(labels):
    labels = [-100 if label < 0 else label for label in labels]
    present = {label for label in labels if label >= 0}
    if present != {0, 1, 2, 3}:
        with pytest.raises(ConfigError, match="no training row has label"):
            balanced_weights(labels, 4)
        return
    weights = balanced_weights(labels, 4)
    totals = [weights[label] * labels.count(label) for label in range(4)]
    assert totals == pytest.approx([totals[0]] * 4)
    assert sum(totals) == pytest.approx(sum(label >= 0 for label in labels))


def test_training_with_balanced_weights_that_are_not_computed_yet():
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS, class_weights="balanced"))
    with pytest.raises(TrainingSetupError, match="balanced_weights"):
        model(**tiny_batch())
    assert torch.isfinite(model.eval()(**tiny_batch()).loss)


@pytest.mark.parametrize(
    "weights",
    [
        (1.0, 2.0),
        (1.0, -1.0, 1.0),
        (1.0, 0.0, 1.0),
        (1.0, float("nan"), 1.0),
        (float("inf"), 1.0, 1.0),
        ("1", "2", "3"),
        (True, True, True),
        1.0,
        "even",
        (),
        {0: 1.0, 1: 1.0, 2: 1.0},
        np.ones((3, 1)),
        [None] * 3,
    ],
)
def test_invalid_class_weights(weights, tmp_path):
    with pytest.raises(ConfigError, match="class_weights"):
        attach(tiny_model(), SweetConfig(exits=EXITS, class_weights=weights))
    with pytest.raises(ConfigError, match="class_weights"):
        make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, class_weights=weights))


@pytest.mark.parametrize(
    "weights", [[1, 2, 3], (1.0, 2.0, 3.0), np.arange(1, 4), np.float32([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0])]
)
def test_accepted_types_of_class_weights(weights):
    config = SweetCallback(class_weights=weights).config
    assert config.class_weights == (1.0, 2.0, 3.0)
    assert SweetConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "loss",
    [
        torch.nn.CrossEntropyLoss(label_smoothing=0.1),
        F.cross_entropy,
        lambda logits, labels: F.cross_entropy(logits, labels),
        functools.partial(F.cross_entropy, label_smoothing=0.1),
        lambda logits, labels, exit_=None: exit_ * F.cross_entropy(logits, labels),
        lambda *given: given[2] * F.cross_entropy(*given[:2]),
    ],
)
def test_accepted_loss_functions(loss):
    model = tiny_model()
    attachment = attach(model, SweetConfig(exits=EXITS), loss=loss)
    model(**tiny_batch()).loss.backward()
    assert all(p.grad is not None for _, p in attachment.head_parameters())
    assert attachment.config.loss


@pytest.mark.parametrize("loss", ["focal", 3, lambda: 0, lambda logits: logits.sum(), lambda a, b, c, d: a.sum()])
def test_invalid_loss_functions(loss):
    with pytest.raises(ConfigError, match="loss="):
        SweetCallback(loss=loss)


@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda logits, labels: 1.0, "returned 1.0"),
        (lambda logits, labels: None, "returned None"),
        (lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"), "shape"),
        (lambda logits, labels: (logits.argmax(-1) == labels).sum(), "int64"),
        (lambda logits, labels: F.cross_entropy(logits, labels).detach(), "without a gradient"),
    ],
)
def test_loss_functions_with_invalid_results(loss, message):
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS), loss=loss)
    with pytest.raises(TrainingSetupError, match=message):
        model(**tiny_batch())


def test_a_loss_and_class_weights_exclude_each_other():
    with pytest.raises(ConfigError, match="leave one of them out"):
        SweetCallback(loss=focal, class_weights=WEIGHTS)


def test_a_saved_model_needs_its_loss_function_again(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, loss=focal))
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").train()
    attach(again)
    with pytest.raises(TrainingSetupError, match="'focal'"):
        again(**tiny_batch())
    again.eval()(**tiny_batch())
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").train()
    attach(other, loss=focal)
    other(**tiny_batch()).loss.backward()
    assert save_artifact(trainer.model, tmp_path / "artifact").config["sweet"]["loss"] == "focal"


@pytest.mark.parametrize("first, second", [(dict(loss=focal), {}), ({}, dict(class_weights=WEIGHTS))])
def test_resuming_with_another_loss(first, second, tmp_path):
    settings = dict(num_train_epochs=2, save_strategy="steps", save_steps=2)
    make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, **first), **settings).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    make_trainer(tiny_model(), tmp_path / "b", SweetCallback(exits=EXITS, **first), **settings).train(checkpoint)
    with pytest.raises(TrainingSetupError, match="was trained with"):
        make_trainer(tiny_model(), tmp_path / "c", SweetCallback(exits=EXITS, **second), **settings).train(checkpoint)


def test_restoring_the_callback_loses_the_function(tmp_path):
    settings = dict(num_train_epochs=2, save_strategy="steps", save_steps=2)
    make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, loss=focal), **settings).train()
    settings["restore_callback_states_from_checkpoint"] = True
    lost = make_trainer(tiny_model(), tmp_path / "b", SweetCallback(exits=EXITS, loss=focal), **settings)
    with pytest.raises(TrainingSetupError, match="without its loss function"):
        lost.train(str(tmp_path / "checkpoint-2"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([-100, 0, 1, 2]), min_size=1, max_size=9))
def test_any_labels_give_a_finite_loss(labels):
    logits, labels = torch.randn(len(labels), 3), torch.tensor(labels)
    plain = LabelLoss(SweetConfig())(logits, labels, 1)
    for loss in (LabelLoss(SweetConfig(class_weights=(1.0, 1.0, 1.0))), LabelLoss(SweetConfig(), F.cross_entropy)):
        torch.testing.assert_close(loss(logits, labels, 1), plain)


def test_the_same_loss_for_a_plain_trainer(tmp_path):
    loss = trainer_loss(LabelLoss(SweetConfig(class_weights=WEIGHTS)))
    args = make_trainer(tiny_model(), tmp_path, optim="sgd", max_steps=1, logging_steps=1).args
    plain = tiny_model()
    rows = Rows(4)
    expected = F.cross_entropy(plain(**rows.batch).logits, rows.batch["labels"], weight=torch.tensor(WEIGHTS))
    trainer = Trainer(plain, args, train_dataset=rows, compute_loss_func=loss)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), abs=1e-4)


def test_accepts_exit():
    assert accepts_exit(focal) and accepts_exit(lambda *given: 0) and not accepts_exit(F.cross_entropy)
    assert not accepts_exit(torch.nn.CrossEntropyLoss())
