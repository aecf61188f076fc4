"""Tests of exits on PEFT models."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from itrex_sweet.artifact import open_artifact
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ArtifactError, TrainingSetupError, UnsupportedModelError
from itrex_sweet.training import SweetCallback, attach, attachment_of, detach, plain_state_dict, save_artifact
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, make_trainer

peft = pytest.importorskip("peft")

SWEET = SweetConfig(exits=EXITS, mode="sweet")
FAMILIES = ["bert", "roberta", "distilbert", "deberta-v3"]


def lora(family: str = "bert", seed: int = 0, **settings):
    """Returns a tiny PEFT model with random adapters."""
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_dropout=0.0, init_lora_weights=False, **settings)
    if family == "distilbert" and not config.target_modules:
        config.target_modules = {"q_lin", "v_lin"}  # peft has no default for it
    torch.manual_seed(seed + 100)
    return peft.get_peft_model(tiny_model(family), config).train()


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_run_once_and_segments_are_isolated(family):
    model = lora(family)
    plain = copy.deepcopy(model)
    attachment = attach(model, SWEET)
    batch = tiny_batch()
    calls = []
    for exit_ in (1, 3):
        attachment._heads()[exit_].register_forward_hook(lambda *_: calls.append(1))
    output = model(**batch)
    assert torch.equal(output.logits, plain(**batch).logits) and len(calls) == 2
    torch.testing.assert_close(output.loss, sum(attachment.exit_losses.values()))
    torch.testing.assert_close(attachment.exit_losses[4], plain(**batch).loss.detach())

    segments = attachment.parameters_by_segment()
    names = [name for named in segments.values() for name, _ in named]
    assert sorted(names) == sorted(weights_of(model))
    losses = {}
    attachment.loss_observer = losses.update  # with their graph
    model(**batch)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(losses[3], list(trainable.values()), allow_unused=True)
    reached = {name for name, g in zip(trainable, gradients, strict=True) if g is not None and g.abs().sum() > 0}
    own = {name for name, p in segments[3] if p.requires_grad}
    assert reached and reached <= own and any("lora" in name for name in reached)
    assert any("sweet_exits.3" in name for name in reached)


@pytest.mark.parametrize("mode", ["sweet", "paper"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_training_changes_adapters_and_heads(family, mode, tmp_path):
    callback = SweetCallback(exits=EXITS, mode=mode)
    trainer = make_trainer(lora(family), tmp_path, callback, eval_strategy="epoch")
    before = weights_of(trainer.model)
    trainer.train()
    changed = {name for name, value in weights_of(trainer.model).items() if not torch.equal(value, before[name])}
    trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert changed == trainable
    assert {f"base_model.model.sweet_exits.{k}.modules_to_save.default.classifier.weight" for k in (1, 3)} <= changed
    assert "eval_exit_1_accuracy" in trainer.state.log_history[-2]


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant, tmp_path):
    model = lora()
    attach(model, SWEET)
    batch = tiny_batch()
    model(**batch).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model(**batch).loss.backward()
    for name, value in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, value, msg=lambda m, n=name: f"{n}: {m}")


def test_checkpoints_contain_the_heads(tmp_path):
    settings = dict(num_train_epochs=2, save_strategy="steps", save_steps=3)
    whole = make_trainer(lora(), tmp_path / "a", SweetCallback(exits=EXITS), **settings)
    whole.train()
    checkpoint = tmp_path / "a" / "checkpoint-3"
    saved = load_file(checkpoint / "adapter_model.safetensors")
    assert "base_model.model.sweet_exits.3.dense.weight" in saved

    resumed = make_trainer(lora(seed=9), tmp_path / "b", SweetCallback(exits=EXITS), **settings)
    before = weights_of(resumed.model)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    ours, theirs = weights_of(resumed.model), weights_of(whole.model)
    for name, value in theirs.items():
        if "original_module" not in name:
            torch.testing.assert_close(ours[name], value, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert any(not torch.equal(before[name], ours[name]) for name in ours if "sweet_exits" in name)


def test_a_saved_adapter_is_restored_with_its_heads(tmp_path):
    trainer = make_trainer(lora(), tmp_path, SweetCallback(exits=EXITS))
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    again = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "saved")
    attach(again, SweetConfig(EXITS), heads_from=tmp_path / "saved")
    batch = tiny_batch()
    trainer.model.eval()(**batch)
    again.eval()(**batch)
    ours, theirs = attachment_of(again).exit_logits, attachment_of(trainer.model).exit_logits
    assert all(torch.equal(ours[exit_], theirs[exit_]) for exit_ in EXITS)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
@pytest.mark.parametrize("mode", ["sweet", "paper"])
@pytest.mark.parametrize("from_checkpoint", [True, False])
def test_trained_biases_are_restored(bias, mode, from_checkpoint, tmp_path):
    callback = SweetCallback(exits=EXITS, mode=mode, learn_to_exit=True)
    trainer = make_trainer(lora(bias=bias), tmp_path, callback, save_strategy="epoch")
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    folder = tmp_path / ("checkpoint-4" if from_checkpoint else "saved")
    again = peft.PeftModel.from_pretrained(tiny_model(), folder, is_trainable=True)
    attach(again, SweetConfig(EXITS, mode=mode, learn_to_exit=True), heads_from=folder)
    batch = tiny_batch()
    trainer.model.eval()(**batch)
    again.eval()(**batch)
    ours, theirs = attachment_of(again), attachment_of(trainer.model)
    assert all(torch.equal(ours.exit_logits[exit_], theirs.exit_logits[exit_]) for exit_ in EXITS)
    correctness, expected = ours.exit_correctness_logits, theirs.exit_correctness_logits
    assert all(torch.equal(correctness[exit_], expected[exit_]) for exit_ in (1, 3))
    plain, other = plain_state_dict(again), plain_state_dict(trainer.model)
    assert plain.keys() == other.keys() and all(torch.equal(plain[name], other[name]) for name in other)
    again.train()(**batch).loss.backward()
    assert all(p.grad is not None for _, p in ours.head_parameters() if p.requires_grad)


def test_the_folder_of_an_adapter_given_to_from_pretrained(tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    trainer = make_trainer(peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", r=4)).train(), tmp_path)
    trainer.save_model(tmp_path / "adapter")
    inside = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3)
    with pytest.raises(TrainingSetupError, match=r"PeftModel\.from_pretrained\(plain, FOLDER.*heads_from=FOLDER"):
        attach(inside, SWEET)
    with pytest.raises(ArtifactError, match=r"PEFT adapter.*save_artifact"):
        open_artifact(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "base"), tmp_path / "adapter", is_trainable=True
    )
    attach(again, SweetConfig(EXITS), heads_from=tmp_path / "adapter")
    assert save_artifact(again, tmp_path / "artifact").exits == EXITS


@pytest.mark.parametrize("mode", ["sweet", "paper"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_state_dict_merges_adapters(family, mode):
    model = lora(family, target_modules="all-linear" if family == "bert" else None)
    attachment = attach(model, SweetConfig(exits=EXITS, mode=mode))
    with torch.no_grad():
        for _, parameter in attachment.head_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = tiny_batch()
    before = weights_of(model)
    model.eval()(**batch)
    expected = attachment.exit_logits
    tensors = plain_state_dict(model)
    assert not [name for name in tensors if "lora" in name or "base_" in name or "modules_to_save" in name]
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)

    plain = tiny_model(family, seed=3).eval()
    other = attach(plain, SweetConfig(exits=EXITS, mode=mode))
    plain.load_state_dict(tensors)
    plain(**batch)
    for exit_ in EXITS:
        torch.testing.assert_close(other.exit_logits[exit_], expected[exit_], rtol=1e-4, atol=1e-5)
    after = weights_of(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    model.train()(**batch).loss.backward()


def test_copies_and_detaching():
    model = lora()
    names = list(model.state_dict())
    attachment = attach(model, SWEET)
    batch = tiny_batch()
    twin = copy.deepcopy(model)
    assert attachment_of(twin) is not attachment
    twin(**batch).loss.backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert any(parameter.grad is not None for name, parameter in twin.named_parameters() if "sweet_exits" in name)
    detach(model)
    assert list(model.state_dict()) == names and not hasattr(model.config, "sweet")
    assert attachment_of(model) is None
    model(**batch)


def test_attaching_before_peft_is_rejected(tmp_path):
    model = tiny_model()
    attach(model, SWEET)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4)).train()
    with pytest.raises(TrainingSetupError, match="get_peft_model"):
        wrapped(**tiny_batch())
    with pytest.raises(TrainingSetupError, match="get_peft_model"):
        make_trainer(wrapped, tmp_path, SweetCallback(exits=EXITS))


def test_other_adapters_are_rejected():
    with pytest.raises(UnsupportedModelError, match="virtual tokens"):
        config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
        attach(peft.get_peft_model(tiny_model(), config))
    model = tiny_model()
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["query"]))
    with pytest.raises(TrainingSetupError, match="get_peft_model"):
        attach(model)


def test_the_merged_weights_load_as_the_plain_model(tmp_path):
    model = lora()
    attach(model, SWEET)
    batch = tiny_batch()
    expected = model.eval()(**batch).logits
    plain = AutoModelForSequenceClassification.from_config(tiny_model().config).eval()
    tensors = {name: value for name, value in plain_state_dict(model).items() if "sweet_exits" not in name}
    plain.load_state_dict(tensors)
    torch.testing.assert_close(plain(**batch).logits, expected, rtol=1e-4, atol=1e-5)
