"""Tests that Trainer subclasses whose loss trains no exit raise after the first backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import Trainer

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.training import GradientConflictCallback, SweetCallback, attach, attachment_of
from itrex_sweet.training.validation import check_gradients_reached_exits
from tests.tiny_models import tiny_batch, tiny_model
from tests.training import trainers
from tests.training.trainers import EXITS, make_trainer


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


@pytest.fixture()
def subclass(monkeypatch):
    """Replaces the Trainer of `make_trainer` by one whose loss is a function of (outputs, labels, model, inputs)."""

    def use(loss_of):
        class Subclass(Trainer):
            def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
                outputs = model(**inputs)
                loss = loss_of(outputs, inputs["labels"], model, inputs)
                return (loss, outputs) if return_outputs else loss

        monkeypatch.setattr(trainers, "Trainer", Subclass)

    return use


def weighted(outputs, labels, model, inputs):
    return F.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))


def focal(outputs, labels, model, inputs):
    loss = F.cross_entropy(outputs.logits, labels, reduction="none")
    return ((1 - torch.exp(-loss)) ** 2 * loss).mean()


def with_a_penalty_on_all_weights(outputs, labels, model, inputs):
    return weighted(outputs, labels, model, inputs) + 1e-3 * sum(p.square().sum() for p in model.parameters())


def with_zero_times_the_exits(outputs, labels, model, inputs):
    return weighted(outputs, labels, model, inputs) + 0.0 * outputs.loss


def detached(outputs, labels, model, inputs):
    return weighted(outputs, labels, model, inputs) + outputs.loss.detach()


def replaced(outputs, labels, model, inputs):
    outputs.loss = weighted(outputs, labels, model, inputs)
    return outputs.loss


def with_the_detached_exit_losses(outputs, labels, model, inputs):
    return weighted(outputs, labels, model, inputs) + sum(attachment_of(model).exit_losses.values())


@pytest.mark.parametrize("mode", ["sweet", "paper", "joint"])
@pytest.mark.parametrize("loss", [weighted, with_a_penalty_on_all_weights])
def test_a_replaced_loss_in_every_mode(loss, mode, subclass, tmp_path):
    subclass(loss)
    trainer = make_trainer(tiny_model(), tmp_path, SweetCallback(exits=EXITS, mode=mode))
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    with pytest.raises(TrainingSetupError, match=r"sweet_exits\.1\..*class_weights"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    assert trainer.state.log_history == []


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        (focal, {}),
        (with_zero_times_the_exits, {}),
        (detached, {}),
        (replaced, {}),
        (with_the_detached_exit_losses, {}),
        (focal, {"gradient_accumulation_steps": 2}),
        (with_zero_times_the_exits, {"bf16": True}),
        (detached, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}),
        (replaced, {"max_grad_norm": 0.0}),
    ],
)
def test_losses_without_gradient_to_the_exits(loss, settings, subclass, tmp_path):
    subclass(loss)
    with pytest.raises(TrainingSetupError, match="trained no exit but the last"):
        make_trainer(tiny_model(), tmp_path, **settings).train()


@pytest.mark.parametrize("callback", [SweetCallback(EXITS, learn_to_exit=True), SweetCallback(EXITS, distillation=0.5)])
def test_distillation_and_learn_to_exit_are_checked_too(callback, subclass, tmp_path):
    subclass(weighted)
    with pytest.raises(TrainingSetupError, match="trained no exit but the last"):
        make_trainer(tiny_model(), tmp_path, callback).train()


def test_checked_with_a_loss_observer_too(subclass, tmp_path):
    subclass(weighted)
    trainer = make_trainer(tiny_model(), tmp_path)
    trainer.add_callback(GradientConflictCallback(every=1))
    with pytest.raises(TrainingSetupError, match="trained no exit but the last"):
        trainer.train()


def test_lora(subclass, tmp_path):
    peft = pytest.importorskip("peft")
    subclass(weighted)
    model = peft.get_peft_model(tiny_model(), peft.LoraConfig(task_type="SEQ_CLS", r=4)).train()
    with pytest.raises(TrainingSetupError, match=r"sweet_exits\.1\..*class_weights"):
        make_trainer(model, tmp_path).train()


@pytest.fixture()
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", world_size=1, rank=0)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("find_unused", [True, False])
def test_distributed_data_parallel(find_unused, one_process):
    model = tiny_model()
    attachment = attach(model, SweetConfig(exits=EXITS))
    parallel = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=find_unused)
    batch = tiny_batch()
    F.cross_entropy(parallel(**batch).logits, batch["labels"]).backward()
    with pytest.raises(TrainingSetupError, match="trained no exit but the last"):
        check_gradients_reached_exits(attachment)
    model.zero_grad()
    if find_unused:  # without it, DDP allows no second step after one with unused parameters
        parallel(**batch).loss.backward()
        check_gradients_reached_exits(attachment)


def test_labels_removed_by_a_subclass(monkeypatch, tmp_path):
    class Popping(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            labels = inputs.pop("labels")
            return F.cross_entropy(model(**inputs).logits, labels)

    monkeypatch.setattr(trainers, "Trainer", Popping)
    with pytest.raises(TrainingSetupError, match="class_weights"):
        make_trainer(tiny_model(), tmp_path).train()


def added_to(outputs, labels, model, inputs):
    return outputs.loss + 0.1 * focal(outputs, labels, model, inputs)


def of_two_forwards(outputs, labels, model, inputs):
    again = model(**inputs)
    apart = F.kl_div(outputs.logits.log_softmax(-1), again.logits.softmax(-1), reduction="batchmean")
    return (outputs.loss + again.loss) / 2 + apart


def scaled(outputs, labels, model, inputs):
    return 1e-3 * outputs.loss


@pytest.mark.parametrize(
    ("loss", "mode"), [(added_to, "sweet"), (of_two_forwards, "sweet"), (of_two_forwards, "joint"), (scaled, "joint")]
)
def test_losses_with_gradient_to_the_exits(loss, mode, subclass, tmp_path):
    subclass(loss)
    trainer = make_trainer(tiny_model(dropout=0.1), tmp_path, SweetCallback(exits=EXITS, mode=mode))
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    trainer.train()  # a second time
    still = [name for name, value in trainer.model.named_parameters() if torch.equal(value, before[name])]
    assert still == []


def test_frozen_heads_are_not_checked(subclass, tmp_path):
    subclass(weighted)
    trainer = make_trainer(tiny_model(), tmp_path)
    trainer.model.sweet_exits.requires_grad_(False)
    trainer.train()


def test_a_head_that_was_replaced_after_its_optimizer_was_made(tmp_path):
    trainer = make_trainer(tiny_model(), tmp_path)
    trainer.create_optimizer()
    trainer.model.sweet_exits["1"].classifier = torch.nn.Linear(32, 3)
    with pytest.raises(TrainingSetupError, match=r"optimizer does not hold sweet_exits\.1\.classifier\.weight"):
        trainer.train()
