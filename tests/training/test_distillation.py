"""Tests of distillation: the loss, its gradients, and the cached teacher."""

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


def soft(logits, teacher_logits, temperature) -> torch.Tensor:
    """Computes the loss by the definition of the Kullback–Leibler divergence."""
    teacher, student = (torch.softmax(each / temperature, -1) for each in (teacher_logits, logits))
    return temperature**2 * (teacher * (teacher.log() - student.log())).sum(-1).mean()


def test_the_loss_is_the_divergence_from_the_teacher():
    torch.manual_seed(0)
    logits, teacher_logits = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([0, 1, -100, 2, 1])
    kept = labels != -100
    loss = distillation_loss(logits, teacher_logits, labels, 3.0)
    torch.testing.assert_close(loss, soft(logits[kept], teacher_logits[kept], 3.0))
    torch.testing.assert_close(distillation_loss(logits, teacher_logits, labels, 3.0, 8), loss / 2)
    loss.backward()
    assert teacher_logits.grad is None and logits.grad[2].abs().sum() == 0
    assert distillation_loss(teacher_logits, teacher_logits, labels, 2.0).item() == pytest.approx(0.0, abs=1e-6)


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
        teacher_logits = (
            teacher.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits if external else logits[4]
        )
    expected = 0.0
    for exit_ in EXITS:
        hard = F.cross_entropy(logits[exit_], batch["labels"])
        learns = external or exit_ != 4
        expected += 0.7 * hard + 0.3 * soft(logits[exit_], teacher_logits.detach(), 3.0) if learns else hard
    inputs = dict(batch)
    first = (inputs.pop("input_ids"),) if positional else ()
    output = model(*first, **inputs)
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-5)
    # The reported loss is the cross-entropy.
    torch.testing.assert_close(attachment.exit_losses[1], F.cross_entropy(logits[1], batch["labels"]).detach())
    # The teacher is not part of the model, and has no gradient.
    output.loss.backward()
    assert not any("teacher" in name for name in model.state_dict())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_no_distillation_in_evaluation():
    model, batch = tiny_model("bert"), tiny_batch(rows=5)
    attachment = attach(model, SweetConfig(EXITS, "sweet", distillation=0.5))
    attachment.teacher = Teacher(tiny_model("bert", seed=7))
    loss = model.eval()(**batch).loss
    torch.testing.assert_close(loss, sum(attachment.exit_losses.values()))


@pytest.mark.parametrize("mode", ["sweet", "decoupled"])
def test_the_last_exit_as_teacher_has_no_distillation_gradient(mode):
    """The last exit is detached as a teacher, so the gradients of the segments stay isolated."""
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
        teacher_logits = teacher.eval()(**batch).logits
        model = trainer.model.eval()
        expected_logits = model(**batch).logits
        fresh = tiny_model("bert").eval()(**batch).logits
    assert soft(expected_logits, teacher_logits, 2.0) < 0.3 * soft(fresh, teacher_logits, 2.0)


def test_invalid_teachers(tmp_path):
    with pytest.raises(ConfigError, match="teacher without distillation"):
        SweetCallback(teacher=tiny_model("bert"), distillation=0.0)
    with pytest.raises(ConfigError, match=r"distillation=1\.5"):
        SweetCallback(distillation=1.5)
    with pytest.raises(ConfigError, match="distillation_temperature"):
        SweetCallback(distillation_temperature=0.0)
    other = SweetCallback(exits=EXITS, distillation=0.5, teacher=tiny_model("bert", num_labels=2))
    with pytest.raises(TrainingSetupError, match="teacher has 2 labels and the model 3"):
        make_trainer(tiny_model("bert"), tmp_path, other)
    itself = tiny_model("bert")
    with pytest.raises(TrainingSetupError, match="pass another"):
        make_trainer(itself, tmp_path, SweetCallback(exits=EXITS, distillation=0.5, teacher=itself))


class Counting(torch.nn.Module):
    """A model that counts the rows of its forwards."""

    def __init__(self, model):
        super().__init__()
        self.model, self.rows = model, 0

    def forward(self, **inputs):
        self.rows += len(inputs["input_ids"])
        return self.model(**inputs)


def test_teacher_logits_are_cached_per_row_for_any_batch_and_padding():
    counting = Counting(tiny_model("bert").eval())
    teacher, batch = Teacher(counting), tiny_batch(rows=6)
    batch = {name: value for name, value in batch.items() if name != "labels"}
    expected_logits = teacher.logits(batch)
    torch.testing.assert_close(expected_logits, counting.model(**batch).logits)
    order = torch.tensor([4, 0, 5])
    wider = {name: torch.nn.functional.pad(value[order], (0, 3), value=0) for name, value in batch.items()}
    assert torch.equal(teacher.logits(wider), expected_logits[order]) and counting.rows == 6
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][2, 1] += 1
    assert not torch.equal(teacher.logits(changed)[2], expected_logits[2]) and counting.rows == 12


def test_the_teacher_is_in_evaluation_mode():
    model = tiny_model("bert", dropout=0.5)
    batch = {name: value for name, value in tiny_batch().items() if name != "labels"}
    expected_logits = Teacher(model).logits(batch)
    torch.testing.assert_close(expected_logits, model.eval()(**batch).logits)


def test_the_cache_key_has_token_types_and_embeddings_are_not_cached():
    counting = Counting(tiny_model("bert").eval())
    teacher, batch = Teacher(counting), tiny_batch(rows=2)
    del batch["labels"]
    expected_logits = teacher.logits(batch)
    types = {**batch, "token_type_ids": torch.ones_like(batch["input_ids"])}
    assert not torch.allclose(teacher.logits(types), expected_logits) and counting.rows == 4
    embedded = tiny_model("bert").eval()
    inputs = {"inputs_embeds": torch.randn(2, 5, 32)}
    torch.testing.assert_close(Teacher(embedded).logits(inputs), embedded(**inputs).logits)
