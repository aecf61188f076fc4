"""Tests of `SweetModelForSequenceClassification`."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import reading
from itrex_sweet.errors import (
    ArtifactError,
    BackendUnavailable,
    ConfigError,
    InputError,
    NonFiniteLogitsError,
)
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import tiny_artifact, tiny_cascade, tiny_tokenizer

TEXTS = ["the soup was good", "never again", "a slow phone but a great room", "awful", "not bad"]
LABELS = {"LABEL_0", "LABEL_1", "LABEL_2"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact")
    tiny_artifact(path, tokenizer=tiny_tokenizer(), policy=Policy.uniform(3, 0.5))
    return path


@pytest.fixture(scope="module")
def model(directory):
    return SweetModelForSequenceClassification.from_pretrained(directory)


def test_predict_equals_forward(model):
    encoded = model.tokenizer(TEXTS, return_tensors="pt", padding=True)
    output = model(**encoded)
    predictions = model.predict(TEXTS)
    assert [row["exit_layer"] for row in predictions] == output.exit_layer.tolist()
    assert [row["label"] for row in predictions] == [f"LABEL_{best}" for best in output.logits.argmax(-1).tolist()]
    np.testing.assert_allclose([row["score"] for row in predictions], output.confidence.numpy(), rtol=1e-5)
    assert set(output.exit_layer.tolist()) <= {1, 2, 4}


def test_transformers_pipeline(model):
    classify = pipeline("text-classification", model=model, tokenizer=model.tokenizer)
    answers = classify(TEXTS, batch_size=3)
    expected = model.predict(TEXTS)
    assert [row["label"] for row in answers] == [row["label"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in answers], [row["score"] for row in expected], rtol=1e-4)


def test_thresholds_at_load_and_per_call(directory, model):
    everywhere = SweetModelForSequenceClassification.from_pretrained(directory, threshold=1.0)
    assert {row["exit_layer"] for row in everywhere.predict(TEXTS)} == {4}
    assert {row["exit_layer"] for row in everywhere.predict(TEXTS, threshold=0.0)} == {1}
    assert {row["exit_layer"] for row in model.predict(TEXTS, threshold=[1.0, 0.0])} == {2}
    encoded = model.tokenizer(TEXTS, return_tensors="pt", padding=True)
    assert set(model(**encoded, threshold=0.0).exit_layer.tolist()) == {1}
    with pytest.raises(ConfigError, match=r"threshold 1.5"):
        model.predict(TEXTS, threshold=1.5)
    with pytest.raises(ConfigError, match="1 thresholds for 3 exits"):
        model.predict(TEXTS, threshold=[0.5])


def test_score_uses_the_temperature_of_the_exit(directory):
    model = SweetModelForSequenceClassification.from_pretrained(directory, threshold=0.0)
    cold = model.predict(TEXTS)
    model.policy = Policy((0.0, 0.0), (4.0, 1.0, 1.0))
    warm = model.predict(TEXTS)
    for before, after in zip(cold, warm, strict=True):
        assert before["label"] == after["label"] and before["score"] > after["score"]


def test_loss_and_return_dict(model):
    encoded = model.tokenizer(TEXTS, return_tensors="pt", padding=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    output = model(**encoded, labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    loss, logits, *_ = model(**encoded, labels=labels, return_dict=False)
    torch.testing.assert_close((loss, logits), (output.loss, output.logits))
    with pytest.raises(InputError, match="label 3: labels go from 0 to 2"):
        model(**encoded, labels=torch.tensor([0, 1, 3, 0, 1]))


def test_pairs_and_single_texts(model):
    rows = model.predict([("the soup was good", "never again"), "awful", ["the room", "not bad"]])
    assert [set(row) for row in rows] == [{"label", "score", "exit_layer", "stopped_by"}] * 3
    alone = model.predict([("the soup was good", "never again")])
    assert alone[0]["label"] == rows[0]["label"]
    assert alone[0]["score"] == pytest.approx(rows[0]["score"], rel=1e-4)


def test_empty_input(model):
    assert model.predict([]) == []
    empty = torch.zeros(0, 4, dtype=torch.long)
    assert model(input_ids=empty).logits.shape == (0, 3)


def test_invalid_texts_raise_before_inference(model, monkeypatch):
    monkeypatch.setattr(model.executor, "run", lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match=r"2 of 4 texts.*row 1: the text is empty; row 3: int is not a text") as caught:
        model.predict(["good", " ", "bad", 7])
    assert caught.value.rows == (1, 3)
    with pytest.raises(InputError, match="takes a list"):
        model.predict("a lone text")


def test_invalid_rows_can_be_marked(model):
    rows = model.predict(["good", "", "bad", ("a", "b", "c"), None, "fine"], errors="mark")
    assert [row["label"] in LABELS for row in rows] == [True, False, True, False, False, True]
    assert [row.get("error") for row in rows][1::2][:2] == ["the text is empty", "3 texts; a row is one text or a pair"]
    good = model.predict(["good", "bad", "fine"])
    assert [rows[place]["label"] for place in (0, 2, 5)] == [row["label"] for row in good]


def test_truncation_of_long_texts(model, caplog):
    long = "the soup was good " * 30
    with caplog.at_level(logging.WARNING):
        rows = model.predict(["awful", long])
    assert "Cut 1 text of more than 32 tokens" in caplog.text
    assert rows[1]["label"] in LABELS
    with pytest.raises(InputError, match=r"row 1: 122 tokens, and the limit is 32"):
        model.predict(["awful", long], overlong="refuse")
    with pytest.raises(InputError, match=r"the limit is 3"):
        model.predict(["the soup"], overlong="refuse", max_length=3)
    with pytest.raises(ConfigError, match="overlong='drop'"):
        model.predict(["awful"], overlong="drop")


def test_invalid_token_ids(model):
    with pytest.raises(InputError, match=r"token id 5000 in rows \[1\]"):
        model(input_ids=torch.tensor([[2, 5, 3], [2, 5000, 3]]))
    with pytest.raises(InputError, match=r"token id -1 in rows \[0\]"):
        model(input_ids=torch.tensor([[2, -1, 3]]))
    too_long = torch.full((1, model.backend.max_tokens + 1), 5)
    with pytest.raises(InputError, match=r"rows \[0\] have up to"):
        model(input_ids=too_long)
    with pytest.raises(InputError, match="have no tokens"):
        model(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.zeros(1, 3))


def test_nan_logits_affect_their_row_only(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "check_tensors_of", lambda *_, **__: None)  # would refuse such weights
    tiny_artifact(tmp_path, tokenizer=tiny_tokenizer())
    tensors = load_file(tmp_path / "model.safetensors")
    tokenizer = tiny_tokenizer()
    tensors["bert.embeddings.word_embeddings.weight"][tokenizer.convert_tokens_to_ids("awful")] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path, verify=False, threshold=0.4)
    with pytest.raises(NonFiniteLogitsError, match=r"rows \[1\]") as caught:
        model.predict(["good", "awful", "bad"])
    marked = model.predict(["good", "awful", "bad"], errors="mark")
    assert caught.value.answers == marked
    assert [row["label"] in LABELS for row in marked] == [True, False, True]
    assert "not finite" in marked[1]["error"]


def test_save_pretrained_keeps_policy_and_tokenizer(model, tmp_path):
    model.save_pretrained(tmp_path / "copy")
    again = SweetModelForSequenceClassification.from_pretrained(tmp_path / "copy")
    assert again.policy == model.policy
    assert again.predict(TEXTS) == model.predict(TEXTS)


def test_push_to_hub_makes_one_commit(model, tmp_path, monkeypatch):
    import huggingface_hub

    calls = []
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, **options: calls.append(("create", options)))
    monkeypatch.setattr(
        huggingface_hub.HfApi, "upload_folder", lambda self, **options: calls.append(("upload", options)) or "commit"
    )
    assert model.save_pretrained(tmp_path / "up", push_to_hub=True, repository_id="me/mine", private=True) == "commit"
    assert [(name, options["repo_id"]) for name, options in calls] == [("create", "me/mine"), ("upload", "me/mine")]
    assert calls[1][1]["folder_path"] == tmp_path / "up"


def test_cascade_has_the_same_class(tmp_path):
    tiny_cascade(tmp_path, tokenizer=tiny_tokenizer())
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path, threshold=0.5)
    rows = model.predict(TEXTS)
    assert {row["exit_layer"] for row in rows} <= {1, 2, 4} and all(row["label"] in LABELS for row in rows)
    assert {row["exit_layer"] for row in model.predict(TEXTS, threshold=1.0)} == {4}


def test_unavailable_backend_raises(directory):
    with pytest.raises(BackendUnavailable, match="backend='cuda'"):
        SweetModelForSequenceClassification.from_pretrained(directory, backend="cuda")


def test_unknown_model_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtifactError, match="is not a folder here, and the download from the hub failed"):
        SweetModelForSequenceClassification.from_pretrained("nobody/nothing", local_files_only=True)
    with pytest.raises(ArtifactError, match="neither a folder here nor a repository name"):
        SweetModelForSequenceClassification.from_pretrained("no/such/folder/at/all")
    with pytest.raises(ArtifactError, match="has no sub-folder 'deep'"):
        SweetModelForSequenceClassification.from_pretrained(tmp_path, subfolder="deep")


def test_predict_without_tokenizer_raises(tmp_path):
    tiny_artifact(tmp_path)
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="has no tokenizer: write the artifact with one"):
        model.predict(["good"])
    assert model(input_ids=torch.tensor([[2, 5, 3]])).logits.shape == (1, 3)


def test_other_devices_are_rejected(model):
    assert model.to("cpu") is model
    with pytest.raises(ConfigError, match="'cuda'"):
        model.to("cuda")


def test_predictions_are_plain_json(model):
    assert json.loads(json.dumps(model.predict(TEXTS))) == model.predict(TEXTS)


def test_options_of_a_call(model):
    def layers(**stopping):
        return {row["exit_layer"] for row in model.predict(TEXTS, **stopping)}

    assert layers(policy=Policy((1.0, 0.0), (1.0,) * 3)) == {2}
    assert layers(threshold=1.0, max_exit=2) == {2} and layers(max_exit=1) == {1}
    shallow = Policy((1.0, 1.0), (1.0,) * 3, max_exit_index=0)
    assert layers(policy=shallow) == {1} and layers(policy=shallow, max_exit=4) == {1}  # it never goes deeper
    why = {row["stopped_by"] for row in model.predict(TEXTS, threshold=1.0, max_exit=2)}
    assert why == {"max_exit"}
    assert {row["stopped_by"] for row in model.predict(TEXTS, threshold=1.0)} == {"full_depth"}
    assert {row["stopped_by"] for row in model.predict(TEXTS, threshold=0.0)} == {"confidence"}
    hurried = model.predict(TEXTS, threshold=1.0, deadline_ms=1e-6)
    assert {(row["exit_layer"], row["stopped_by"]) for row in hurried} == {(1, "deadline")}
    assert model.predict(TEXTS, deadline_ms=1e6) == model.predict(TEXTS)
    encoded = model.tokenizer(TEXTS, return_tensors="pt", padding=True)
    output = model(**encoded, threshold=1.0, deadline_ms=1e-6)
    assert output.out_of_time.all() and output.exit_layer.tolist() == [1] * len(TEXTS)
    assert model(**encoded).out_of_time is None
    assert model.policy == Policy.uniform(3, 0.5)  # nothing of a call stays


def test_scores_use_the_temperatures_of_the_call(model):
    soft = Policy((0.0, 0.0), (100.0,) * 3)
    assert all(row["score"] < 0.4 for row in model.predict(TEXTS, policy=soft))


@pytest.mark.parametrize(
    ("stopping", "message"),
    [
        ({"threshold": 0.5, "policy": Policy.uniform(3)}, "threshold and policy exclude one another"),
        ({"policy": Policy.uniform(4)}, "a policy for 4 exits does not fit"),
        ({"policy": Policy((0.5, 0.5), (1.0,) * 3, "learned")}, "learn-to-exit"),
        ({"max_exit": 3}, r"max_exit=3: choose one of the exits \(1, 2, 4\)"),
        ({"deadline_ms": 0.0}, "deadline_ms=0.0: it is a positive number"),
        ({"quality": 0.5}, "is not calibrated"),
        ({"quality": 1.5}, r"quality=1\.5: it is a number between 0, the fastest"),
    ],
)
def test_invalid_options_of_a_call(model, stopping, message):
    with pytest.raises(ConfigError, match=message):
        model.predict(TEXTS, **stopping)


def test_quality_selects_a_calibrated_policy(directory, tmp_path):
    candidates = [
        {"thresholds": [1.0, 1.0], "mean_layers": 4.0, "milliseconds": 8.0},
        {"thresholds": [0.9, 0.8], "mean_layers": 3.0, "milliseconds": 5.0},
        {"thresholds": [0.6, 0.5], "mean_layers": 2.0, "milliseconds": 2.0},
    ]
    from itrex_sweet.artifact import copy_artifact, open_artifact
    from itrex_sweet.runtime.quality import policy_for_quality

    source = open_artifact(directory)
    calibrated = copy_artifact(source, tmp_path / "calibrated", calibration={"candidates": candidates})
    for quality, place in ((0.0, 2), (0.49, 2), (0.5, 1), (0.99, 1), (1.0, 0)):
        policy = policy_for_quality(calibrated, quality)
        assert list(policy.thresholds) == candidates[place]["thresholds"], quality
        assert policy.temperatures == source.policy.temperatures
    model = SweetModelForSequenceClassification.from_pretrained(calibrated.directory)
    assert {row["exit_layer"] for row in model.predict(TEXTS, quality=1.0)} == {4}
