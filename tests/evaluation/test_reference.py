"""Reference models answer as with transformers, with labels matched by name; invalid sources are rejected."""

import json
import shutil

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForSequenceClassification

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, SweetError
from itrex_sweet.evaluation.reference import open_reference
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, TASKS
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer
from tests.tiny_models import tiny_model

NAMES = ("bad", "fair", "good")


def plain_folder(folder, names=NAMES, family="bert", seed=3, tokenizer=True):
    model = tiny_model(family, num_layers=2, num_labels=len(names), seed=seed).eval()
    if names is not None:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: place for place, name in enumerate(names)}
    model.save_pretrained(folder)
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def given():
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 40))) for _ in range(70)]  # some beyond 32 tokens
    return [*texts, (texts[0], texts[1])]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v3"])
def test_checkpoint_answers_as_with_transformers(tmp_path, given, family):
    folder = plain_folder(tmp_path / "plain", family=family)
    reference = open_reference(folder)
    answers = reference.answers(given, len(given), NAMES)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = tiny_tokenizer()
    for row, text in enumerate(given):
        parts = (text,) if isinstance(text, str) else text
        batch = tokenizer(*parts, truncation=True, max_length=32, return_tensors="pt")
        if family in ("roberta", "distilbert", "deberta-v3"):
            batch.pop("token_type_ids", None)
        with torch.no_grad():
            assert model(**batch).logits.argmax().item() == answers[row]
    assert (reference.name, reference.kind, len(reference.sha256)) == ("plain", "checkpoint", 64)


@pytest.mark.parametrize("ours", [("good", "fair", "bad"), (" Good", "FAIR", "bad ")])
def test_labels_are_matched_by_name(tmp_path, given, ours):
    reference = open_reference(plain_folder(tmp_path / "plain"))
    same, reordered = (reference.answers(given, len(given), names) for names in (NAMES, ours))
    np.testing.assert_array_equal(reordered, 2 - same)
    assert len(set(same.tolist())) > 1


@pytest.mark.parametrize(
    "ours", [("bad", "good"), ("bad", "fair", "best"), ("LABEL_0", "LABEL_1", "LABEL_2"), ("bad", "BAD", "good")]
)
def test_other_labels_are_rejected(tmp_path, given, ours):
    with pytest.raises(ConfigError, match="label"):
        open_reference(plain_folder(tmp_path / "plain")).answers(given, len(given), ours)


def test_artifact_answers_at_full_depth(tmp_path, given):
    tiny_artifact(tmp_path / "model", tokenizer=tiny_tokenizer())
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path / "model", threshold=1.0)
    reference = open_reference(tmp_path / "model")
    answers = reference.answers(given, len(given), model.artifact.label_names)
    assert [f"LABEL_{answer}" for answer in answers] == [row["label"] for row in model.predict(given)]
    assert reference.kind == "artifact" and reference.to_dict()["sha256"] == reference.sha256


def test_file_of_predictions(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"label": "good", "score": 0.5}\n\n{"label": "bad"}\n')
    reference = open_reference(path)
    np.testing.assert_array_equal(reference.answers(None, 2, NAMES), [2, 0])
    assert (reference.name, reference.kind) == ("answers.jsonl", "answers")
    with pytest.raises(InputError, match="holds 2 predictions for 3 rows"):
        reference.answers(None, 3, NAMES)
    with pytest.raises(ConfigError, match="label 'good' is not one of a, b"):
        reference.answers(None, 2, ("a", "b"))


def test_files_of_predictions_of_other_tasks(tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [
        {"labels": [{"label": "good", "score": 0.9}, {"label": "Bad", "score": 0.8}]},
        {"labels": []},
        {"labels": ["fair"]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = open_reference(path).answers(None, 3, NAMES, TASKS[MULTI_LABEL])
    assert answers.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(InputError, match=r"line 1 of .* is not a prediction of regression"):
        open_reference(path).answers(None, 3, NAMES, TASKS[REGRESSION])
    with pytest.raises(InputError, match="is not a prediction of single_label"):
        open_reference(path).answers(None, 3, NAMES)
    with pytest.raises(ConfigError, match=r"line 1 .*label .good. is not one of a, b"):
        open_reference(path).answers(None, 3, ("a", "b"), TASKS[MULTI_LABEL])
    path.write_text('{"score": 2.5, "exit_layer": 1}\n{"score": -1}\n')
    assert open_reference(path).answers(None, 2, ("LABEL_0",), TASKS[REGRESSION]).tolist() == [2.5, -1.0]
    path.write_text('{"score": 2.5}\n{"score": NaN}\n')
    with pytest.raises(InputError, match=r"line 2 of .* is not a prediction"):
        open_reference(path).answers(None, 2, ("LABEL_0",), TASKS[REGRESSION])


def test_a_regression_checkpoint_predicts_values(tmp_path, given):
    folder = plain_folder(tmp_path / "plain", names=("points",))
    answers = open_reference(folder).answers(given, len(given), ("LABEL_0",), TASKS[REGRESSION])
    assert answers.shape == (len(given),) and answers.dtype == np.float32 and np.isfinite(answers).all()


@pytest.mark.parametrize(
    "line", ["no json", "[]", "{}", '{"label": null, "error": "empty"}', '{"label": 1}', "\ud83d", "[" * 100_000, "3"]
)
def test_invalid_lines_are_named(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"label": "good"}\n' + line.encode("utf-8", "surrogatepass") + b"\n")
    with pytest.raises(InputError, match=r"line 2 of|cannot be read"):
        open_reference(path)


def test_remote_code_is_neither_run_nor_prompted_for(tmp_path, given, monkeypatch):
    folder = plain_folder(tmp_path / "plain")
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(ArtifactError, match="cannot be loaded as a classifier"):
        open_reference(folder).answers(given, len(given), NAMES)
    assert not marker.exists()


def pickled(folder):
    torch.save(AutoModelForSequenceClassification.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def headless(folder):
    AutoModelForSequenceClassification.from_pretrained(folder).bert.save_pretrained(folder)


def broken_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def infinite(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.classifier.bias.data[0] = float("nan")
    model.save_pretrained(folder)


def regression(folder):
    shutil.rmtree(folder)
    plain_folder(folder, names=("points",))


def tiny_tokenizer_with_more_words():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"word{place}" for place in range(100)] + ["[END]"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [END]", pair="[CLS] $A [END] $B:1 [END]:1",
        special_tokens=[("[CLS]", 2), ("[END]", tokenizer.convert_tokens_to_ids("[END]"))],
    )  # fmt: skip
    return tokenizer


DAMAGES = {
    "pickled": pickled,
    "headless": headless,
    "broken weights": broken_weights,
    "not finite": infinite,
    "regression": regression,
    "no tokenizer": lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
    "tokenizer of another": lambda folder: tiny_tokenizer_with_more_words().save_pretrained(folder),
    "damaged tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{"),
    "damaged config": lambda folder: (folder / "config.json").write_text('{"model_type": 3}'),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config is no json": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"),
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_invalid_folders_are_rejected(tmp_path, given, damage):
    damage(folder := plain_folder(tmp_path / "plain"))
    with pytest.raises(SweetError, match=r"plain|config"):
        open_reference(folder).answers(given, len(given), NAMES)


@pytest.mark.parametrize("source", [3, None, 2.5, ["a"], {"a": 1}])
def test_other_types_are_rejected(source):
    with pytest.raises(ConfigError, match="against is of type"):
        open_reference(source)


def test_token_ids_are_rejected(tmp_path):
    with pytest.raises(InputError, match="pass texts"):
        open_reference(plain_folder(tmp_path / "plain")).answers(None, 3, NAMES)
