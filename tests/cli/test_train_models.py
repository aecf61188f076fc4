"""Tests of the models that `itrex-sweet train` begins with: absent, damaged, in half precision, or without a head."""

import json
import shutil

import pytest

from tests.cli.training import argv


@pytest.fixture(scope="module")
def changed(pretrained, tmp_path_factory):
    """Returns a copy of the pretrained folder with a changed model: dtype, one weight that is NaN, or fewer "
    "embeddings."""
    import torch
    from transformers import AutoModelForSequenceClassification

    def change(dtype=None, spoiled=False, embeddings=None):
        folder = tmp_path_factory.mktemp("changed")
        shutil.copytree(pretrained, folder, dirs_exist_ok=True)
        model = AutoModelForSequenceClassification.from_pretrained(pretrained)
        if embeddings:
            model.resize_token_embeddings(embeddings)
        with torch.no_grad():
            if spoiled:
                model.bert.encoder.layer[1].output.dense.weight[3, 3] = float("nan")
        model.to(dtype).save_pretrained(folder)
        return folder

    return change


@pytest.mark.parametrize(("dtype", "mode"), [("float16", "sweet"), ("bfloat16", "sweet"), ("bfloat16", "multi-model")])
def test_half_precision_checkpoint_trains_in_float32(run, changed, corpus, tmp_path, dtype, mode):
    import torch
    from safetensors.torch import load_file

    half = getattr(torch, dtype)
    finished = run(*argv(changed(half), corpus, tmp_path / "out", "--exits", "4", "--mode", mode))
    assert finished.status == 0, finished.err
    folder = tmp_path / "out" / ("exit_4" if mode == "multi-model" else "")
    layers = {name: value for name, value in load_file(folder / "model.safetensors").items() if ".layer." in name}
    tables = [value for value in layers.values() if value.dim() == 2]
    assert tables and not any(torch.equal(table, table.to(half).float()) for table in tables)
    config = json.loads((folder / "config.json").read_text())
    assert {config.get("dtype"), config.get("torch_dtype")} <= {"float32", None}


def test_unavailable_models(run, corpus, tmp_path, untrained):
    (tmp_path / "empty").mkdir()
    finished = run(*argv(tmp_path / "empty", corpus, tmp_path / "out"))
    assert finished.status == 1 and "cannot be loaded" in finished.err and "empty" in finished.err


# field of config.json, wrong value → part of the error
DAMAGED = [
    ("num_hidden_layers", "x", "cannot be loaded"),
    ("num_hidden_layers", -1, "num_hidden_layers=-1"),
    ("id2label", ["a"], "cannot be loaded"),
    ("model_type", ["bert"], "cannot be loaded"),
    ("hidden_act", "unknown", "cannot be loaded"),
    ("type_vocab_size", -2, "cannot be loaded"),
    ("pad_token_id", 10**9, "cannot be loaded"),
    ("pad_token_id", -5, "pad_token_id=-5: a whole number from 0"),
    ("max_position_embeddings", 1, "position_embeddings.weight has another shape"),
    ("intermediate_size", 40, "has another shape"),
]


@pytest.mark.parametrize(("field", "value", "problem"), DAMAGED)
@pytest.mark.parametrize("mode", ["decoupled", "multi-model"])
def test_damaged_config_fails_before_training(
    run, pretrained, corpus, tmp_path, monkeypatch, mode, field, value, problem
):
    monkeypatch.setattr("transformers.Trainer.train", lambda *_, **__: pytest.fail("training began"))
    shutil.copytree(pretrained, tmp_path / "model")
    config = json.loads((pretrained / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, field: value}))
    finished = run(*argv(tmp_path / "model", corpus, tmp_path / "out", "--mode", mode))
    assert finished.status == 1 and problem in finished.err.splitlines()[-1], finished.err
    assert not (tmp_path / "out" / "config.json").exists()


def test_weights_that_are_missing_from_the_encoder(run, pretrained, corpus, tmp_path, untrained):
    """transformers gives them random values."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(pretrained, tmp_path / "model")
    weights = load_file(pretrained / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    finished = run(*argv(tmp_path / "model", corpus, tmp_path / "out"))
    assert finished.status == 1
    assert "bert.encoder.layer.1.output.dense.weight is missing from its weights" in finished.err


def test_a_teacher_has_a_head_for_the_labels(run, pretrained, corpus, tmp_path):
    """transformers would replace it by a random one."""
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(pretrained, tmp_path / "plain")
    AutoModelForSequenceClassification.from_pretrained(
        pretrained, num_labels=5, ignore_mismatched_sizes=True
    ).save_pretrained(tmp_path / "plain")
    more = ["--mode", "joint", "--distillation", 0.5, "--teacher", tmp_path / "plain"]
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *more))
    assert finished.status == 1 and "classifier.bias has another shape" in finished.err
    assert "Pass a fine-tuned classifier with the labels of the data" in finished.err


def test_checkpoint_with_weights_that_are_not_finite(run, changed, corpus, tmp_path):
    finished = run(*argv(changed(spoiled=True), corpus, tmp_path / "out"))
    assert finished.status == 1 and "'bert.encoder.layer.1.output.dense.weight'" in finished.err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_tokenizer_larger_than_the_embedding_table(run, changed, corpus, tmp_path, untrained):
    finished = run(*argv(changed(embeddings=12), corpus, tmp_path / "out"))
    assert finished.status == 1 and "the model 12 embeddings" in finished.err and "resize_token" in finished.err


def test_adapter_folder(run, pretrained, corpus, tmp_path, untrained):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    finished = run(*argv(adapter, corpus, tmp_path / "out"))
    assert finished.status == 1 and "PEFT adapter" in finished.err and "merge_and_unload" in finished.err
