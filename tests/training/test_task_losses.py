"""Training of multi-label and regression heads."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from itrex_sweet import SweetCallback, SweetConfig, attach, save_artifact
from itrex_sweet.config import balanced_positive_weights
from itrex_sweet.errors import ConfigError, InputError, TrainingSetupError
from itrex_sweet.metrics import micro_f1, spearman
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, task_named
from itrex_sweet.training import default_threshold
from itrex_sweet.training.default_threshold import VALUE_TOLERANCE, ThresholdEstimator
from itrex_sweet.training.task_losses import (
    binary_distillation_loss,
    error_estimate_loss,
    exact_match_loss,
    losses_of,
    value_distillation_loss,
)
from tests.tiny_models import tiny_batch, tiny_config
from tests.training.trainers import make_trainer

EXITS = (1, 2, 4)
LABELS = {MULTI_LABEL: 3, REGRESSION: 1}
TASKS = tuple(LABELS)


def model_for(task: str, seed: int = 0, dropout: float = 0.0, **changes):
    torch.manual_seed(seed)
    config = tiny_config("bert", 4, LABELS[task], dropout)
    config.problem_type = task
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForSequenceClassification.from_config(config).train()


def batch_for(task: str, rows: int = 4):
    batch = tiny_batch(rows)
    generator = torch.Generator().manual_seed(1)
    batch["labels"] = (
        torch.randint(0, 2, (rows, 3), generator=generator).float()
        if task == MULTI_LABEL
        else 5 * torch.rand(rows, generator=generator)
    )
    return batch


@pytest.mark.parametrize("task", TASKS)
def test_decoupled_exits_leave_the_models_gradient_as_without_exits(task):
    plain, model, batch = model_for(task, dropout=0.1), model_for(task, dropout=0.1), batch_for(task)
    attach(model, SweetConfig(exits=EXITS))
    for each in (plain, model):
        torch.manual_seed(3)
        each(**batch).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in plain.named_parameters():
        assert torch.equal(gradients[name], parameter.grad), name
    # The keys of a private layer whose query is still zero get a gradient from the second step on.
    heads = [gradients[name] for name in gradients if name.startswith("sweet_exits.") and ".key." not in name]
    assert heads and all(gradient is not None and gradient.abs().sum() > 0 for gradient in heads)


@pytest.mark.parametrize("task", TASKS)
def test_joint_loss_is_the_sum_of_the_tasks_loss_at_every_exit(task):
    model, batch = model_for(task), batch_for(task)
    attachment = attach(model, SweetConfig(exits=EXITS, mode="joint"))
    loss = model(**batch).loss
    expected = {
        exit_: F.binary_cross_entropy_with_logits(logits, batch["labels"])
        if task == MULTI_LABEL
        else F.mse_loss(logits[:, 0], batch["labels"])
        for exit_, logits in attachment.exit_logits.items()
    }
    for exit_ in EXITS:
        torch.testing.assert_close(attachment.exit_losses[exit_], expected[exit_])
    estimates = sum(
        error_estimate_loss(certainty, attachment.exit_logits[exit_], batch["labels"])
        for exit_, certainty in attachment.exit_correctness_logits.items()
    )
    torch.testing.assert_close(loss.detach(), sum(expected.values()) + estimates)


@pytest.mark.parametrize("task", TASKS)
def test_exits_of_a_frozen_model_learn_its_outputs_without_labels(task):
    model, batch = model_for(task), batch_for(task)
    del batch["labels"]
    attachment = attach(model, SweetConfig(exits=EXITS, train="exits"))
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=3e-3)
    before = copy.deepcopy(model.classifier.state_dict())
    distances = []
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        last = attachment.exit_logits[EXITS[-1]]
        distances.append(sum((attachment.exit_logits[exit_] - last).abs().mean().item() for exit_ in EXITS[:-1]))
    assert distances[-1] < 0.3 * distances[0]
    assert all(torch.equal(value, before[name]) for name, value in model.classifier.state_dict().items())


def test_error_estimate_is_minimal_at_the_mean_absolute_error():
    logits, labels = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([1.5, 3.0, 0.0])
    certainty = torch.zeros(3, requires_grad=True)
    constant = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([constant], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        error_estimate_loss(constant.expand(3), logits, labels).backward()
        optimizer.step()
    assert torch.exp(-constant).item() == pytest.approx(3.5 / 3, rel=1e-4)
    logits.requires_grad_()
    error_estimate_loss(certainty, logits, labels).backward()
    assert logits.grad is None, "the estimate does not train the exit itself"
    certainty.grad = None
    error_estimate_loss(certainty, logits, labels, teacher_logits=logits).backward()
    assert (certainty.grad < 0).all()  # no difference from the teacher: every estimate should fall


def test_losses_of_micro_batches_add_up():
    torch.manual_seed(0)
    logits, teacher, certainty = torch.randn(6, 3), torch.randn(6, 3), torch.randn(6)
    labels = (torch.randn(6, 3) > 0).float()
    whole = binary_distillation_loss(logits, teacher, labels, 2.0), exact_match_loss(certainty, logits, labels)
    halves = [
        (
            binary_distillation_loss(logits[part], teacher[part], labels[part], 2.0, 18),
            exact_match_loss(certainty[part], logits[part], labels[part], None, 18),
        )
        for part in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(torch.stack(whole), sum(map(torch.stack, halves)))
    values = value_distillation_loss(logits[:, :1], teacher[:, :1], labels[:, 0], 2.0)
    torch.testing.assert_close(values, F.mse_loss(logits[:, :1], teacher[:, :1]))
    reference = F.binary_cross_entropy_with_logits(logits / 2, torch.sigmoid(teacher / 2))
    entropy = F.binary_cross_entropy_with_logits(teacher / 2, torch.sigmoid(teacher / 2))
    torch.testing.assert_close(whole[0], 4 * (reference - entropy))


def test_class_weights_are_the_weights_of_positive_rows():
    model, batch = model_for(MULTI_LABEL), batch_for(MULTI_LABEL)
    attachment = attach(model, SweetConfig(exits=EXITS, class_weights=(1.0, 2.0, 5.0)))
    model(**batch).loss.backward()
    expected = F.binary_cross_entropy_with_logits(
        attachment.exit_logits[4], batch["labels"], pos_weight=torch.tensor((1.0, 2.0, 5.0))
    )
    torch.testing.assert_close(attachment.exit_losses[4], expected)
    assert balanced_positive_weights([[1, 0], [1, 1], [0, 1], [1, 0]], 2) == (1 / 3, 1.0)
    with pytest.raises(ConfigError, match="has label 1"):
        balanced_positive_weights([[1, 0], [0, 0]], 2)
    with pytest.raises(ConfigError, match="a regression has no classes"):
        attach(model_for(REGRESSION), SweetConfig(exits=EXITS, class_weights=(1.0,)))


@pytest.mark.parametrize(
    "task, labels, message",
    [
        (MULTI_LABEL, torch.tensor([0, 1, 2, 0]), "a vector of 3 ones and zeros"),
        (MULTI_LABEL, torch.ones(4, 2), "a vector of 3 ones and zeros"),
        (MULTI_LABEL, torch.tensor([[0, 1, 0]] * 3 + [[0, 2, 0]]), "in row 3"),
        (MULTI_LABEL, torch.tensor([[0, 1, float("nan")]] * 4), "in row 0"),
        (REGRESSION, torch.ones(4, 2), "one number per row"),
        (REGRESSION, torch.tensor([1.0, 2.0, float("nan"), 1.0]), "row 2: the target of a regression is a finite"),
    ],
)
def test_labels_that_do_not_fit_are_refused(task, labels, message):
    model = model_for(task)
    attach(model, SweetConfig(exits=EXITS))
    with pytest.raises(InputError, match=message):
        model(**{**batch_for(task), "labels": labels})


def test_regression_estimates_errors_in_every_mode_and_saves_them(tmp_path):
    for mode in ("decoupled", "sweet"):
        model = model_for(REGRESSION, problem_type=None)
        attachment = attach(model, SweetConfig(exits=EXITS, mode=mode))
        assert attachment.config.learn_to_exit and model.config.problem_type == REGRESSION
        artifact = save_artifact(model, tmp_path / mode)
        assert artifact.policy.criterion == "learned" and artifact.policy.task == REGRESSION


@pytest.mark.parametrize("task, name", [(MULTI_LABEL, "exact_match"), (REGRESSION, "pearson")])
def test_trainer_reports_the_tasks_metrics_at_every_exit(task, name, tmp_path):
    batch = batch_for(task, rows=8)
    rows = [{key: value[row] for key, value in batch.items()} for row in range(8)]
    trainer = make_trainer(model_for(task), tmp_path, SweetCallback(EXITS), eval_dataset=rows, max_steps=2)
    trainer.train_dataset = rows
    trainer.train()
    metrics = trainer.evaluate()
    for exit_ in EXITS:
        assert {f"eval_exit_{exit_}_{name}", f"eval_exit_{exit_}_loss"} <= set(metrics)
        assert f"eval_exit_{exit_}_accuracy" not in metrics


def test_balanced_weights_come_from_the_trainers_label_vectors(tmp_path):
    batch = batch_for(MULTI_LABEL, rows=8)
    rows = [{key: value[row].tolist() for key, value in batch.items()} for row in range(8)]
    callback = SweetCallback(EXITS, class_weights="balanced")
    trainer = make_trainer(model_for(MULTI_LABEL), tmp_path, callback, max_steps=1)
    trainer.train_dataset = rows
    trainer.train()
    assert callback.config.class_weights == balanced_positive_weights(batch["labels"].tolist(), 3)


def test_a_teacher_of_another_task_is_refused(tmp_path):
    teacher = model_for(MULTI_LABEL, problem_type="single_label_classification")
    with pytest.raises(TrainingSetupError, match="fine-tuned for the same task"):
        make_trainer(model_for(MULTI_LABEL), tmp_path, SweetCallback(EXITS, teacher=teacher))


def test_threshold_estimates_of_other_tasks():
    def estimated(task, logits, certainty=None):
        estimator = ThresholdEstimator(task_named(task))
        for _ in range(default_threshold.EVALUATION_INTERVAL):
            estimator.update(logits, certainty)
        return estimator.threshold

    sure, unsure = torch.tensor([6.0, -6.0]), torch.tensor([6.0, -1.0])
    last = torch.stack([sure, sure]).repeat(10, 1)
    assert estimated(MULTI_LABEL, {1: last, 2: last}) == default_threshold.CANDIDATES[0]
    wrong = torch.stack([unsure, sure.abs()]).repeat(10, 1)  # its second row is sure, and one label differs
    assert estimated(MULTI_LABEL, {1: wrong, 2: last}) > torch.sigmoid(torch.tensor(6.0)).item()
    values = torch.arange(20.0)[:, None]
    tolerance = VALUE_TOLERANCE * values.std(correction=0)
    near, far = values + 0.9 * tolerance, values.clone()
    far[::2] += 1.1 * tolerance
    certainty = torch.where(far == values, 2.0, -1.0)[:, 0]
    assert estimated(REGRESSION, {1: near, 2: values}, {1: certainty}) == default_threshold.ERROR_CANDIDATES[0]
    threshold = estimated(REGRESSION, {1: far, 2: values}, {1: certainty})
    assert torch.sigmoid(torch.tensor(-1.0)) <= threshold < torch.sigmoid(torch.tensor(2.0))


def test_metrics_and_targets():
    labels = torch.tensor([[1, 0], [1, 1]]).numpy()
    assert micro_f1(torch.tensor([[1, 0], [0, 1]]).numpy(), labels) == pytest.approx(0.8)
    assert spearman(torch.tensor([1.0, 2.0, 9.0]).numpy(), torch.tensor([3.0, 4.0, 4.0]).numpy()) == pytest.approx(
        0.8660254
    )
    assert losses_of(task_named(MULTI_LABEL)).targets(torch.tensor([[0.1, -2.0]])).tolist() == [[1.0, 0.0]]
