"""Tests of attaching and detaching exits: rejected models, restoring, copying and saving."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMultipleChoice,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    MPNetConfig,
)

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, InputError, SweetError, TrainingSetupError, UnsupportedModelError
from itrex_sweet.training import attach, attachment_of, detach, plain_state_dict
from itrex_sweet.training.multi_model import truncate
from tests.tiny_models import FAMILY_CONFIGS, tiny_batch, tiny_config, tiny_model

EXITS = (1, 3, 4)
SWEET = SweetConfig(exits=EXITS, mode="sweet")


def gradients_of(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def hooks_of(model) -> int:
    return sum(
        len(module._forward_pre_hooks) + len(module._forward_hooks) + len(module._forward_pre_hooks_with_kwargs)
        for module in model.modules()
    )


# rejected models, settings and labels


@pytest.mark.parametrize(
    "exits, message",
    [
        ((1, 3, 14), "the model has 4 layers"),
        ((0, 4), "count encoder layers from 1"),
        ((3, 1, 4), "increase strictly"),
        ((1, 1, 4), "increase strictly"),
        ((1, 3), "the last exit is the model's own head"),
        ((), "at least one exit"),
    ],
)
def test_invalid_exits(exits, message):
    model = tiny_model()
    with pytest.raises(ConfigError, match=message):
        attach(model, SweetConfig(exits=exits))
    assert attachment_of(model) is None and not hasattr(model.config, "sweet") and hooks_of(model) == 0


def test_default_exits():
    assert attach(tiny_model(num_layers=6)).exits == (1, 2, 4, 6)


def test_a_single_exit_is_the_plain_model():
    model, plain = tiny_model(), tiny_model()
    attach(model, SweetConfig(exits=(4,)))
    batch = tiny_batch()
    torch.testing.assert_close(model(**batch).loss, plain(**batch).loss)


MPNET = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 96}


@pytest.mark.parametrize(
    "config, message",
    [
        (
            AlbertConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2),
            "same weights in every layer",
        ),
        (GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=96), "gpt2.*bert, .*roberta"),
        (MPNetConfig(**MPNET, pad_token_id=0), "pad_token_id=0: mpnet computes with 1"),
        (MPNetConfig(**MPNET, relative_attention_num_buckets=40), "num_buckets=40: mpnet computes with 32"),
    ],
)
def test_families_without_exits(config, message):
    config.num_labels = 3
    with pytest.raises(UnsupportedModelError, match=message):
        attach(AutoModelForSequenceClassification.from_config(config))


def test_tasks_that_exits_do_not_support():
    config = tiny_config("bert")
    config.problem_type = "regression"
    with pytest.raises(SweetError, match="regression of one value"):
        attach(AutoModelForSequenceClassification.from_config(config))
    config.num_labels = 1
    with pytest.raises(ConfigError, match="a regression with one exit"):
        attach(AutoModelForSequenceClassification.from_config(config), SweetConfig(exits=(4,)))
    config.num_labels, config.problem_type = 3, "single_label_classification"
    model = AutoModelForSequenceClassification.from_config(config)
    model.config.problem_type = "ranking"
    with pytest.raises(SweetError, match="ranking"):
        attach(model)


@pytest.mark.parametrize("kind", [BertModel, BertForTokenClassification, BertForMultipleChoice])
def test_models_without_a_classification_head(kind):
    with pytest.raises(UnsupportedModelError, match="AutoModelForSequenceClassification"):
        attach(kind(tiny_config("bert")))


def test_a_replaced_head_is_rejected():
    model = tiny_model()
    model.classifier = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 3))
    with pytest.raises(UnsupportedModelError, match="Sequential at 'classifier'"):
        attach(model)
    model.classifier = nn.Linear(32, 7)
    with pytest.raises(UnsupportedModelError, match=r"\(7, 32\)"):
        attach(model)


def test_attaching_twice_is_rejected():
    model = tiny_model()
    attach(model, SWEET)
    with pytest.raises(TrainingSetupError, match="detach"):
        attach(model, SWEET)
    detach(model)
    attach(model, SWEET)
    with pytest.raises(TrainingSetupError, match="no exits"):
        detach(tiny_model())


@pytest.mark.parametrize("family", ["bert", "deberta-v3"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_invalid_labels(family, mode):
    model = getattr(tiny_model(family), mode)()
    attach(model, SWEET)
    batch = tiny_batch()
    for labels, message in [
        (torch.tensor([0, 3, 1, 2]), "label 3 in row 1.*num_labels=3"),
        (torch.tensor([0, 1, 1, -1]), "label -1 in row 3"),
        (torch.tensor([0.0, 1.0, 1.0, 2.0]), "float32"),
        (torch.eye(4, 3, dtype=torch.long), r"\(4, 3\)"),
    ]:
        with pytest.raises(InputError, match=message):
            model(**{**batch, "labels": labels})
    assert model.config.problem_type is None, "the rejected labels reached the model"
    as_int32 = model(**{**batch, "labels": batch["labels"].int()}).loss
    assert torch.equal(as_int32, model(**batch).loss)


def test_rows_without_a_label_are_left_out():
    model = tiny_model()
    attach(model, SWEET)
    batch = tiny_batch()
    batch["labels"][2:] = -100
    loss = model(**batch).loss
    torch.testing.assert_close(loss, model(**{key: value[:2] for key, value in batch.items()}).loss)
    batch["labels"][:] = -100
    assert model(**batch).loss.item() == 0.0


def test_labels_by_position():
    model = tiny_model()
    attach(model, SWEET)
    batch = tiny_batch()
    by_position = [batch["input_ids"], batch["attention_mask"], None, None, None, batch["labels"]]
    if "head_mask" in BertConfig().to_dict() or "head_mask" in type(model).forward.__code__.co_varnames:
        by_position.insert(4, None)
    assert torch.equal(model(*by_position).loss, model(**batch).loss)
    by_position[-1] = batch["labels"].int()
    assert torch.equal(model(*by_position).loss, model(**batch).loss)


def test_training_without_labels():
    model = tiny_model()
    attach(model, SWEET)
    batch = tiny_batch()
    del batch["labels"]
    with pytest.raises(TrainingSetupError, match="compute_loss_func"):
        model(**batch)
    model.eval()
    assert model(**batch).loss is None


def test_state_is_reset_after_a_forward_that_raised():
    model = tiny_model()
    attachment = attach(model, SWEET)
    batch = tiny_batch()
    expected = model(**batch).loss
    with pytest.raises((IndexError, RuntimeError)):  # IPEX, once imported, raises the latter
        model(**{**batch, "input_ids": batch["input_ids"] + 1000})
    assert attachment.exit_logits == {}
    assert torch.equal(model(**batch).loss, expected)
    del batch["labels"]
    model.bert(**batch)  # the backbone alone, outside the model's forward
    assert len(attachment.exit_logits) == 3


# detaching, copying


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_detaching_restores_the_model(family):
    model, plain = tiny_model(family), tiny_model(family)
    before, attributes = model.config.to_dict(), set(vars(model))
    attach(model, SWEET)
    assert model.config.sweet["exits"] == [1, 3, 4]
    detach(model)
    assert model.config.to_dict() == before
    assert set(vars(model)) == attributes and hooks_of(model) == 0
    assert list(model.state_dict()) == list(plain.state_dict())
    batch = tiny_batch()
    ours, theirs = model(**batch), plain(**batch)
    assert torch.equal(ours.loss, theirs.loss)
    ours.loss.backward()
    theirs.loss.backward()
    ours, theirs = gradients_of(model), gradients_of(plain)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_attaching_draws_no_random_numbers():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    attach(tiny_model(), SWEET)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("mode", ["sweet", "paper"])
def test_a_copy_is_independent(mode):
    model = tiny_model()
    attachment = attach(model, SweetConfig(exits=EXITS, mode=mode))
    batch = tiny_batch()
    model(**batch)
    logits = dict(attachment.exit_logits)
    twin = copy.deepcopy(model)
    other = attachment_of(twin)
    assert other is not attachment and other.model is twin
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    twin(**batch).loss.backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(attachment.exit_logits[k], logits[k]) for k in EXITS)
    assert not any(torch.equal(other.exit_logits[k], logits[k]) for k in EXITS)
    expected = gradients_of(twin)
    detach(model)
    twin.zero_grad()
    twin(**batch).loss.backward()
    assert all(torch.equal(value, expected[name]) for name, value in gradients_of(twin).items())
    detach(twin)
    assert hooks_of(twin) == 0


def test_paper_heads_share_no_tensor():
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS, mode="paper"))
    pointers = [value.data_ptr() for value in model.state_dict().values()]
    assert len(pointers) == len(set(pointers))


# gradient checkpointing, precision


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"mode": "sweet"}, {"mode": "sweet", "gradient_scale": 0.3}, {"mode": "paper"}, {"mode": "joint"}],
)
def test_gradient_checkpointing_changes_no_gradient(family, reentrant, settings):
    model = tiny_model(family)
    if not model.supports_gradient_checkpointing:
        pytest.skip(f"{family} has no gradient checkpointing in transformers")
    attachment = attach(model, SweetConfig(exits=EXITS, **settings))
    batch = tiny_batch()
    model(**batch).loss.backward()
    expected = gradients_of(model)
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant and family in (
        "deberta-v3",
        "deberta-v2-conv",
    ):  # plain transformers fails later, with an unclear message
        with pytest.raises(TrainingSetupError, match="use_reentrant"):
            model(**batch)
        return
    calls = []
    model.sweet_exits["1"].register_forward_hook(lambda *_: calls.append(1))
    model(**batch).loss.backward()
    found = gradients_of(model)
    assert found.keys() == expected.keys() and len(calls) == 1
    assert attachment._hidden_states == {}, "tensors of the recomputation were kept"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_heads_have_the_dtype_of_the_model_and_the_loss_is_float32(dtype):
    model = tiny_model().to(dtype)
    attach(model, SWEET)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model(**tiny_batch()).loss.dtype == torch.float32


def test_autocast_covers_the_heads():
    model = tiny_model()
    attachment = attach(model, SWEET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**tiny_batch()).loss
    assert {value.dtype for value in attachment.exit_logits.values()} == {torch.bfloat16}
    assert loss.dtype == torch.float32


# saving and loading


@pytest.fixture
def saved(tmp_path):
    """Returns a model with exits and changed heads, and the folder it was saved in."""
    model = tiny_model()
    attachment = attach(model, SWEET)
    with torch.no_grad():
        for _, parameter in attachment.head_parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "saved")
    return model, tmp_path / "saved"


def load(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder)


def test_the_saved_folder_is_the_plain_model(saved):
    model, folder = saved
    plain = load(folder)
    batch = tiny_batch()
    assert torch.equal(plain.eval()(**batch).logits, model.eval()(**batch).logits)
    assert not hasattr(plain, "sweet_exits") and plain.config.sweet["exits"] == [1, 3, 4]


def test_heads_are_restored_from_the_folder_the_model_was_loaded_from(saved, caplog):
    model, folder = saved
    caplog.set_level(logging.INFO, logger="itrex_sweet.training.attaching")
    for config in (
        None,
        SweetConfig(mode="sweet"),
        SweetConfig(mode="joint"),
    ):  # by default the exits of the folder
        again = load(folder)
        attachment = attach(again, config)
        assert attachment.exits == EXITS
        expected = model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    assert str(folder) in caplog.text
    assert attachment.config.mode == "joint" and again.config.sweet["mode"] == "joint"


def test_heads_are_restored_from_shards(saved, tmp_path):
    model, _ = saved
    folder = tmp_path / "shards"
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    again = load(folder)
    attach(again)
    assert torch.equal(again.sweet_exits["3"].dense.weight, model.sweet_exits["3"].dense.weight)
    next(iter(sorted(folder.glob("*.safetensors")))).unlink()
    detach(again)
    again.config.sweet = SWEET.to_dict()
    with pytest.raises(TrainingSetupError, match="does not exist"):
        attach(again)


def test_missing_saved_heads_raise(saved, tmp_path):
    model, folder = saved
    elsewhere = load(folder)
    elsewhere.config._name_or_path = "someone/some-model"
    with pytest.raises(TrainingSetupError, match=r"someone/some-model.*heads_from"):
        attach(elsewhere)
    attach(elsewhere, heads_from=folder)
    assert torch.equal(elsewhere.sweet_exits["1"].dense.weight, model.sweet_exits["1"].dense.weight)

    fresh = load(folder)
    del fresh.config.sweet
    attach(fresh, SWEET)
    assert torch.equal(fresh.sweet_exits["1"].dense.weight, fresh.bert.pooler.dense.weight)


@pytest.mark.parametrize("config", [SweetConfig((1, 2, 4), "sweet"), SweetConfig(EXITS, "paper"), SweetConfig(EXITS)])
def test_settings_that_do_not_fit_the_saved_heads(saved, config):
    _, folder = saved
    with pytest.raises(TrainingSetupError, match=r"del model\.config\.sweet"):
        attach(load(folder), config)


def test_incomplete_saved_head(saved):
    _, folder = saved
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["sweet_exits.3.classifier.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(TrainingSetupError, match=r"(?s)exit 3.*classifier\.bias"):
        attach(load(folder))


@pytest.mark.parametrize("mode", ["sweet", "paper"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_state_dict_is_ready_for_safetensors(mode, dtype, tmp_path):
    model = tiny_model().to(dtype)
    attach(model, SweetConfig(exits=EXITS, mode=mode))
    tensors = plain_state_dict(model)
    save_file(tensors, tmp_path / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert {name for name in model.state_dict() if "position_ids" not in name} == set(tensors)
    assert ("sweet_exits.1.dense.weight" in tensors) == (mode == "sweet")
    tensors["classifier.weight"].zero_()
    assert model.classifier.weight.abs().sum() > 0, "the copy shares memory with the model"


@pytest.mark.parametrize(
    "changes",
    [
        {"pad_token_id": -5},
        {"layer_norm_eps": 0.0},
        {"pruned_heads": {0: [1]}},
        {"id2label": {0: "a", 2: "b", 5: "c"}},
        {"max_position_embeddings": 1 << 21},
    ],
    ids=str,
)
def test_a_config_that_cannot_be_loaded_again_is_refused_before_training(changes):
    """Saving would refuse it after training."""
    model = tiny_model()
    for name, value in changes.items():
        setattr(model.config, name, value)
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}.*Correct model.config"):
        attach(model)
    assert attachment_of(model) is None and not hasattr(model, "sweet_exits")
    with pytest.raises(ConfigError, match=r"Correct model\.config"):
        truncate(model, 2)
