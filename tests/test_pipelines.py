"""Tests of the transformers pipeline: the same scores as `predict`, with the options of early exit."""

import logging
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, pipeline
from transformers.pipelines import TextClassificationPipeline
from transformers.pipelines.pt_utils import KeyDataset

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.modeling.pipelines import SweetTextClassificationPipeline
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

TEXTS = ["the soup was good", "never again", "a slow phone but a great room", "awful", "not bad"]
PAIRS = [{"text": "the soup", "text_pair": "good"}, {"text": "never"}]
# Temperatures far from 1: at most one of two numbers can be the calibrated one.
POLICY = Policy((0.45, 0.6), (3.0, 0.4, 2.0))
STOPPING = [{}, {"threshold": 0.1}, {"threshold": 1.0}, {"threshold": [1.0, 0.0]}, {"max_exit": 2}]
STOPPING += [{"policy": Policy((0.5, 0.5), (9.0, 9.0, 9.0))}, {"deadline_ms": 1e-6}]
PARTS = {"label", "score", "exit_layer", "confidence", "stopped_by"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact")
    tiny_artifact(path, tokenizer=tiny_tokenizer(), policy=POLICY)
    return path


@pytest.fixture(scope="module")
def model(directory):
    return SweetModelForSequenceClassification.from_pretrained(directory)


@pytest.fixture(scope="module", params=["pipeline", "sentiment", "class", "method"])
def classify(request, model):
    return {
        "pipeline": lambda: pipeline("text-classification", model=model, tokenizer=model.tokenizer),
        "sentiment": lambda: pipeline("sentiment-analysis", model=model, tokenizer=model.tokenizer, device=-1),
        "class": lambda: SweetTextClassificationPipeline(model=model),
        "method": model.pipeline,
    }[request.param]()


def agree(answers, predictions):
    assert [set(answer) for answer in answers] == [PARTS] * len(predictions)
    for answer, prediction in zip(answers, predictions, strict=True):
        assert {name: answer[name] for name in ("label", "exit_layer", "stopped_by")} == {
            name: prediction[name] for name in ("label", "exit_layer", "stopped_by")
        }
        assert answer["score"] == pytest.approx(prediction["score"], rel=1e-5)
        assert answer["confidence"] == pytest.approx(prediction["score"], rel=1e-5)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 8])
@pytest.mark.parametrize("stopping", STOPPING)
def test_pipeline_equals_predict(classify, model, stopping, batch_size):
    options = {} if batch_size is None else {"batch_size": batch_size}
    agree(classify(TEXTS, **options, **stopping), model.predict(TEXTS, **stopping))


def test_options_set_at_creation(model):
    classify = pipeline("text-classification", model=model, tokenizer=model.tokenizer, threshold=0.0, batch_size=2)
    agree(classify(TEXTS), model.predict(TEXTS, threshold=0.0))
    agree(classify(TEXTS, threshold=1.0), model.predict(TEXTS, threshold=1.0))
    agree(classify(TEXTS), model.predict(TEXTS, threshold=0.0))
    assert model.policy == POLICY


def test_types_of_inputs(classify, model):
    expected = model.predict(TEXTS)
    agree(classify(TEXTS[0]), expected[:1])
    for texts in (tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS), Dataset.from_dict({"text": TEXTS})["text"]):
        agree(classify(texts), expected)
    for texts in ((text for text in TEXTS), KeyDataset(Dataset.from_dict({"text": TEXTS}), "text")):
        agree(list(classify(texts, batch_size=2)), expected)
    agree(classify(PAIRS), model.predict(PAIRS))
    agree([classify(PAIRS[0])], model.predict(PAIRS[:1]))
    agree(
        classify([("the soup", "good"), ["never", "again"]]), model.predict([("the soup", "good"), ("never", "again")])
    )
    assert classify([]) == []


@pytest.mark.parametrize("top_k", [1, 2, 3, 7, None, "all"])
def test_top_k(classify, model, top_k):
    expected = model.predict(TEXTS, top_k=top_k or "all")
    for options in ({}, {"batch_size": 2}):
        answers = classify(TEXTS, top_k=top_k, **options)
        for answer, prediction in zip(answers, expected, strict=True):
            assert [each["label"] for each in answer] == [each["label"] for each in prediction["labels"]]
            scores = [each["score"] for each in prediction["labels"]]
            assert [each["score"] for each in answer] == pytest.approx(scores, rel=1e-5)
            assert {each["exit_layer"] for each in answer} == {prediction["exit_layer"]}
    assert classify(TEXTS[0], top_k=top_k) == answers[0]


def test_truncation_equals_predict(classify, model, caplog):
    long = "the soup was good " * 30
    agree(classify([long]), model.predict([long]))
    agree(classify([long], max_length=6), model.predict([long], max_length=6))
    agree(classify([long], truncation=True, max_length=6, padding=True), model.predict([long], max_length=6))
    with pytest.raises(InputError, match="122 tokens, and the limit is 32"):
        classify([long], truncation=False)


def test_function_to_apply(classify, model):
    logits = model(**model.tokenizer(TEXTS[:1], return_tensors="pt")).logits[0]
    for name, expected in (("none", logits), ("sigmoid", logits.sigmoid()), ("softmax", logits.softmax(-1))):
        scores = {each["label"]: each["score"] for each in classify(TEXTS[0], top_k=None, function_to_apply=name)}
        assert [scores[f"LABEL_{label}"] for label in range(3)] == pytest.approx(expected.tolist(), rel=1e-5)


def test_function_to_apply_of_the_config_is_ignored(directory):
    model = SweetModelForSequenceClassification.from_pretrained(directory)
    model.config.problem_type = "multi_label_classification"
    agree(model.pipeline()(TEXTS), model.predict(TEXTS))


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ("", {}, InputError, "empty"),
        (["good", "bad \ud83d"], {}, InputError, "surrogate"),
        (["good", None], {}, InputError, "NoneType"),
        (3, {}, InputError, "not int"),
        (pd.DataFrame({"text": TEXTS}), {}, InputError, "is a table"),
        ({"label": 1}, {}, InputError, "a row holds 'text'"),
        ("good", {"threshold": "0.9"}, ConfigError, "threshold"),
        ("good", {"threshold": 1.5}, ConfigError, "threshold 1.5"),
        ("good", {"max_exit": 3}, ConfigError, "max_exit"),
        ("good", {"max_length": 0}, ConfigError, "max_length"),
        ("good", {"truncation": "only_second"}, ConfigError, "truncation"),
        ("good", {"top_k": 0}, ConfigError, "top_k"),
        ("good", {"function_to_apply": "relu"}, ConfigError, "function_to_apply"),
        ("good", {"treshold": 0.5}, TypeError, "treshold"),
    ],
)
def test_errors_equal_those_of_predict(classify, inputs, options, error, message):
    with pytest.raises(error, match=message):
        classify(inputs, **options)


def test_rows_without_answer_are_marked(tmp_path, monkeypatch):
    monkeypatch.setattr("itrex_sweet.artifact.reading.check_tensors_of", lambda *_, **__: None)  # would refuse them
    from safetensors.torch import load_file, save_file

    tiny_artifact(tmp_path, tokenizer=tiny_tokenizer())
    tensors = load_file(tmp_path / "model.safetensors")
    word = tiny_tokenizer().convert_tokens_to_ids("awful")
    tensors["bert.embeddings.word_embeddings.weight"][word] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path, verify=False)
    answers = model.pipeline()(["good", "awful", "bad"], batch_size=3)
    assert [answer["label"] is None for answer in answers] == [False, True, False]
    assert "not finite" in answers[1]["error"]
    assert "not finite" in model.pipeline()("awful", top_k=2)[0]["error"]


def test_no_warning_about_unsupported_models(model, caplog):
    with caplog.at_level(logging.INFO):
        for logger in ("transformers", "transformers.pipelines.base"):
            logging.getLogger(logger).propagate = True
        classify = pipeline("text-classification", model=model, tokenizer=model.tokenizer)
        classify(TEXTS, threshold=0.5)
    assert "not supported" not in caplog.text and "not recognized" not in caplog.text
    assert isinstance(classify, SweetTextClassificationPipeline) and "text" in repr(classify).lower()


def test_other_models_get_the_transformers_pipeline(directory, model):
    plain = AutoModelForSequenceClassification.from_pretrained(directory)
    classify = pipeline("text-classification", model=plain, tokenizer=model.tokenizer)
    assert type(classify) is TextClassificationPipeline
    assert set(classify(TEXTS)[0]) == {"label", "score"}


def test_pickled_pipeline(model):
    again = pickle.loads(pickle.dumps(model.pipeline(threshold=0.1)))
    agree(again(TEXTS), model.predict(TEXTS, threshold=0.1))


def test_no_gpu_is_selected(model, monkeypatch):
    monkeypatch.setattr("transformers.pipelines.base.is_torch_cuda_available", lambda: True)
    assert pipeline("text-classification", model=model, tokenizer=model.tokenizer).device.type == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["pipelines first", "pipelines last"])
def test_order_of_imports(directory, order):
    ours = "from itrex_sweet import SweetModelForSequenceClassification as Model"
    theirs = "from transformers import pipeline"
    load = "import sys; model = Model.from_pretrained(sys.argv[1])"
    # Importing pipelines takes as long as loading torch, and a server needs none.
    unneeded = (
        "early = 'transformers.pipelines' in sys.modules\nmodel.predict(['good'])\n"
        "assert early or 'transformers.pipelines' not in sys.modules\nmodel.pipeline()('good')"
    )
    parts = {
        "pipelines first": [theirs, ours, load],
        "pipelines last": [ours, load, unneeded, theirs],
    }[order]
    script = "\n".join(
        [
            *parts,
            "classify = pipeline('text-classification', model=model, tokenizer=model.tokenizer)",
            "assert classify('good', threshold=1.0)[0]['exit_layer'] == 4, classify('good', threshold=1.0)",
        ]
    )
    finished = subprocess.run([sys.executable, "-c", script, str(directory)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "not supported" not in finished.stderr
