"""Zero-shot classification with an NLI artifact: `Classifier.zero_shot` and transformers' pipeline."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

import itrex_sweet
from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import write_artifact
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import model_and_tensors, tiny_artifact, tiny_tokenizer

TEXTS = ["the soup was good", "never again", "a slow phone but a great room"]
LABELS = ["good", "bad", "slow", "warm soup"]
EXITS = (1, 2, 4)
FULL = {"threshold": 1.0}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("nli")
    plain, config, tensors = model_and_tensors("bert", EXITS)
    plain.config.id2label = config.id2label = {0: "contradiction", 1: "neutral", 2: "ENTAILMENT"}
    plain.config.label2id = {name: place for place, name in plain.config.id2label.items()}
    write_artifact(path, config=config, tensors=tensors, tokenizer=tiny_tokenizer())
    plain.save_pretrained(path / "plain")
    return path


@pytest.fixture(scope="module")
def plain_pipeline(directory):
    plain = AutoModelForSequenceClassification.from_pretrained(directory / "plain")
    return pipeline("zero-shot-classification", model=plain, tokenizer=tiny_tokenizer(), device="cpu")


@pytest.fixture(scope="module")
def model(directory):
    return SweetModelForSequenceClassification.from_pretrained(directory)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, ["good"]])
def test_scores_equal_those_of_transformers_at_full_depth(directory, plain_pipeline, multi_label, labels):
    expected = plain_pipeline(TEXTS, labels, multi_label=multi_label)
    answers = itrex_sweet.load(directory).zero_shot(TEXTS, labels, multi_label=multi_label, **FULL)
    for answer, other in zip(answers, expected, strict=True):
        assert answer["labels"] == other["labels"] and set(answer["exit_layers"]) == {4}
        np.testing.assert_allclose(answer["scores"], other["scores"], rtol=1e-4)


def test_pipeline_gives_the_answers_of_the_model(model):
    classify = pipeline("zero-shot-classification", model=model, tokenizer=model.tokenizer)
    settings = dict(hypothesis_template="the {} room", multi_label=True, threshold=0.985)
    expected = model.zero_shot(TEXTS, LABELS, **settings)
    assert {layer for answer in expected for layer in answer["exit_layers"]} > {1}
    assert classify(TEXTS, LABELS, **settings) == [
        {"sequence": text, **answer} for text, answer in zip(TEXTS, expected, strict=True)
    ]
    assert classify(TEXTS[0], candidate_labels="good, bad", **FULL)["sequence"] == TEXTS[0]
    assert list(classify(iter(TEXTS), LABELS, **settings)) == classify(TEXTS, LABELS, **settings)
    with pytest.raises(TypeError, match="has no parameter speed"):
        classify(TEXTS, LABELS, speed=1)


def test_pipeline_of_other_models_is_that_of_transformers(plain_pipeline):
    assert type(plain_pipeline).__module__.startswith("transformers.")


def test_a_pair_leaves_by_the_probability_of_entailment(model):
    threshold = 0.985
    batch = model.read([(text, f"This example is {label}.") for text in TEXTS for label in LABELS])
    probability = torch.softmax(torch.from_numpy(model.executor.logits_at_every_exit(batch)), -1)[..., 2].numpy()
    may_leave = np.maximum(probability, 1 - probability) > threshold
    may_leave[:, -1] = True
    expected = np.asarray(EXITS)[may_leave.argmax(1)].reshape(len(TEXTS), len(LABELS))
    assert len(np.unique(expected)) > 1
    for row, answer in zip(expected, model.zero_shot(TEXTS, LABELS, threshold=threshold), strict=True):
        assert dict(zip(answer["labels"], answer["exit_layers"], strict=True)) == dict(zip(LABELS, row, strict=True))


def test_bad_input_is_refused(model, tmp_path):
    assert model.zero_shot([], LABELS) == []
    for labels in ([], ["good", "good"], ["good", 3], [""], 7):
        with pytest.raises(InputError, match="label"):
            model.zero_shot(TEXTS, labels)
    for template in ("no place", "{other}", 3):
        with pytest.raises(ConfigError, match="hypothesis_template"):
            model.zero_shot(TEXTS, LABELS, hypothesis_template=template)
    with pytest.raises(InputError, match="row 1"):
        model.zero_shot(["good", 4], LABELS)
    with pytest.raises(InputError, match="row 1"):
        model.zero_shot(["good", ""], LABELS)
    with pytest.raises(ConfigError, match="target_label"):
        model.predict(TEXTS, policy=Policy((0.5, 0.5), (1.0,) * 3, target_label=9))
    tiny_artifact(tmp_path, tokenizer=tiny_tokenizer())
    with pytest.raises(ConfigError, match=r"'entail'.*LABEL_0, LABEL_1, LABEL_2"):
        itrex_sweet.load(tmp_path).zero_shot(TEXTS, LABELS)
