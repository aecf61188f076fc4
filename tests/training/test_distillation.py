"""Exits that learn from a teacher: what the loss is, and whom it reaches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training import SweetCallback, attach
from itrex_sweet.training.losses import distillation_loss
from itrex_sweet.training.teacher import Teacher
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, make_trainer


def soft(logits, taught, temperature) -> torch.Tensor:
    """By the definition of the Kullback–Leibler divergence."""
    theirs, ours = (torch.softmax(each / temperature, -1) for each in (taught, logits))
    return temperature**2 * (theirs * (theirs.log() - ours.log())).sum(-1).mean()


def test_the_loss_is_the_divergence_from_the_teacher():
    torch.manual_seed(0)
    logits, taught = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([0, 1, -100, 2, 1])
    kept = labels != -100
    loss = distillation_loss(logits, taught, labels, 3.0)
    torch.testing.assert_close(loss, soft(logits[kept], taught[kept], 3.0))
    torch.testing.assert_close(distillation_loss(logits, taught, labels, 3.0, 8), loss / 2)
    loss.backward()
    assert taught.grad is None and logits.grad[2].abs().sum() == 0
    assert distillation_loss(taught, taught, labels, 2.0).item() == pytest.approx(0.0, abs=1e-6)


def logits_of_exits(model, batch) -> dict[int, torch.Tensor]:
    logits = {}
    hooks = [
        head.register_forward_hook(lambda *call, name=name: logits.update({int(name): call[-1]}))
        for name, head in model.sweet_exits.items()
    ]
    logits[4] = model(**batch).logits
    for hook in hooks:
        hook.remove()
    return logits


@pytest.mark.parametrize("family", ["bert", "deberta-v3"])
@pytest.mark.parametrize("external", [True, False])
@pytest.mark.parametrize("positional", [True, False])
def test_each_exit_learns_from_labels_and_teacher(family, external, positional):
    model, teacher, batch = tiny_model(family), tiny_model(family, seed=7), tiny_batch(rows=5)
    attachment = attach(model, SweetConfig(EXITS, "sweet", distillation=0.3, distillation_temperature=3.0))
    with torch.no_grad():
        for _, parameter in attachment.head_parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if external:
        attachment.teacher = Teacher(teacher)
    logits = logits_of_exits(model, batch)
    with torch.no_grad():
        taught = teacher.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits if external else logits[4]
    expected = 0.0
    for exit_ in EXITS:
        hard = F.cross_entropy(logits[exit_], batch["labels"])
        learns = external or exit_ != 4
        expected += 0.7 * hard + 0.3 * soft(logits[exit_], taught.detach(), 3.0) if learns else hard
    inputs = dict(batch)
    first = (inputs.pop("input_ids"),) if positional else ()
    output = model(*first, **inputs)
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-5)
    # What is reported stays comparable: the cross-entropy.
    torch.testing.assert_close(attachment.exit_losses[1], F.cross_entropy(logits[1], batch["labels"]).detach())
    # The teacher is no part of the model, and gets no gradient.
    output.loss.backward()
    assert not any("teacher" in name for name in model.state_dict())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_in_evaluation_labels_alone_count():
    model, batch = tiny_model("bert"), tiny_batch(rows=5)
    attachment = attach(model, SweetConfig(EXITS, "sweet", distillation=0.5))
    attachment.teacher = Teacher(tiny_model("bert", seed=7))
    loss = model.eval()(**batch).loss
    torch.testing.assert_close(loss, sum(attachment.exit_losses.values()))


@pytest.mark.parametrize("mode", ["sweet", "decoupled"])
def test_a_deeper_exit_is_not_pulled_towards_the_early_ones(mode):
    """The last exit as the teacher is a constant: gradients of segments stay apart."""
    batch, gradients = tiny_batch(rows=5), {}
    for share in (0.0, 0.5):
        model = tiny_model("bert")
        attach(model, SweetConfig(EXITS, mode, distillation=share))
        model(**batch).loss.backward()
        gradients[share] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    last = [name for name in gradients[0.0] if "layer.3" in name or name.startswith(("bert.pooler", "classifier"))]
    assert last
    for name in last:
        assert torch.equal(gradients[0.0][name], gradients[0.5][name]), name


def test_through_a_trainer(tmp_path):
    teacher = tiny_model("bert", seed=7)
    before = copy.deepcopy(teacher.state_dict())
    callback = SweetCallback(EXITS, "sweet", distillation=1.0, teacher=teacher)
    trainer = make_trainer(tiny_model("bert"), tmp_path, callback, num_train_epochs=40, learning_rate=3e-3)
    batch = trainer.train_dataset.batch
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    with torch.no_grad():
        taught = teacher.eval()(**batch).logits
        model = trainer.model.eval()
        said = model(**batch).logits
        fresh = tiny_model("bert").eval()(**batch).logits
    assert soft(said, taught, 2.0) < 0.3 * soft(fresh, taught, 2.0)


def test_what_cannot_teach(tmp_path):
    with pytest.raises(ConfigError, match="teacher without distillation"):
        SweetCallback(teacher=tiny_model("bert"))
    with pytest.raises(ConfigError, match=r"distillation=1\.5"):
        SweetCallback(distillation=1.5)
    with pytest.raises(ConfigError, match="distillation_temperature"):
        SweetCallback(distillation_temperature=0.0)
    other = SweetCallback(exits=EXITS, distillation=0.5, teacher=tiny_model("bert", num_labels=2))
    with pytest.raises(TrainingSetupError, match="teacher has 2 labels and the model 3"):
        make_trainer(tiny_model("bert"), tmp_path, other)
    itself = tiny_model("bert")
    with pytest.raises(TrainingSetupError, match="another model"):
        make_trainer(itself, tmp_path, SweetCallback(exits=EXITS, distillation=0.5, teacher=itself))


class Counting(torch.nn.Module):
    """A teacher that counts how many rows it was asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, **inputs):
        self.asked += len(inputs["input_ids"])
        return self.model(**inputs)


def test_a_teacher_is_asked_about_a_row_once_however_it_is_batched_or_padded():
    counting = Counting(tiny_model("bert").eval())
    teacher, batch = Teacher(counting), tiny_batch(rows=6)
    batch = {name: value for name, value in batch.items() if name != "labels"}
    said = teacher.logits(batch)
    torch.testing.assert_close(said, counting.model(**batch).logits)
    order = torch.tensor([4, 0, 5])
    wider = {name: torch.nn.functional.pad(value[order], (0, 3), value=0) for name, value in batch.items()}
    assert torch.equal(teacher.logits(wider), said[order]) and counting.asked == 6
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][2, 1] += 1
    assert not torch.equal(teacher.logits(changed)[2], said[2]) and counting.asked == 12


def test_a_teacher_answers_as_in_evaluation():
    model = tiny_model("bert", dropout=0.5)
    batch = {name: value for name, value in tiny_batch().items() if name != "labels"}
    said = Teacher(model).logits(batch)
    torch.testing.assert_close(said, model.eval()(**batch).logits)


def test_a_teacher_tells_rows_apart_by_their_token_types_and_is_asked_again_about_embeddings():
    counting = Counting(tiny_model("bert").eval())
    teacher, batch = Teacher(counting), tiny_batch(rows=2)
    del batch["labels"]
    said = teacher.logits(batch)
    types = {**batch, "token_type_ids": torch.ones_like(batch["input_ids"])}
    assert not torch.allclose(teacher.logits(types), said) and counting.asked == 4
    embedded = tiny_model("bert").eval()
    inputs = {"inputs_embeds": torch.randn(2, 5, 32)}
    torch.testing.assert_close(Teacher(embedded).logits(inputs), embedded(**inputs).logits)
