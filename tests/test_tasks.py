"""Tasks: scores, decisions and agreement; policies and artifacts of multi-label and regression models."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from transformers import pipeline

import itrex_sweet
from itrex_sweet import SweetModelForSequenceClassification, criteria
from itrex_sweet.artifact import open_artifact
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, UnsupportedArtifactError
from itrex_sweet.policy import CRITERIA, Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS, task_of
from tests.tiny_artifacts import sign, tiny_artifact, tiny_tokenizer

TEXTS = ["the soup was good", "never again", "a slow phone but a great room", "awful", "not bad"]
BACKENDS = ["torch"] + ["native"] * (unavailable_reason("native") is None)
THRESHOLDS = (0.3, 0.5, 0.6)  # of labels
POLICIES = {
    MULTI_LABEL: Policy((0.665, 0.7), (2.0, 0.5, 1.5), task=MULTI_LABEL, label_thresholds=THRESHOLDS),
    REGRESSION: Policy((0.5, 0.4), (1.0,) * 3, "learned", task=REGRESSION, tolerance=0.25),
}
logits_strategy = arrays.arrays(np.float32, (4, 3), elements=st.floats(-30, 30, width=32))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    written = {}
    for task, policy in POLICIES.items():
        written[task] = tmp_path_factory.mktemp("task")
        tiny_artifact(written[task], tokenizer=tiny_tokenizer(), policy=policy, task=task, learn_to_exit=True)
    return written


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, SINGLE_LABEL),
        ({"num_labels": 1}, REGRESSION),
        ({"id2label": {"0": "LABEL_0"}}, REGRESSION),
        ({"num_labels": 4, "problem_type": None}, SINGLE_LABEL),
        ({"num_labels": 4, "problem_type": MULTI_LABEL}, MULTI_LABEL),
        ({"num_labels": 1, "problem_type": MULTI_LABEL}, MULTI_LABEL),
        ({"problem_type": "ranking"}, "unknown"),
        ({"num_labels": 3, "problem_type": REGRESSION}, "one value"),
        ({"num_labels": 1, "problem_type": SINGLE_LABEL}, "at least two labels"),
    ],
)
def test_task_of_a_config(config, expected):
    if expected in TASKS:
        assert task_of(config).name == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            task_of(config)


@given(logits_strategy, st.floats(0.1, 10), st.tuples(*[st.floats(0.05, 0.95)] * 3))
def test_multi_label_decisions_and_confidence(logits, temperature, thresholds):
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64) / temperature))
    task, thresholds = TASKS[MULTI_LABEL], np.asarray(thresholds)
    decisions = task.decisions(logits, temperature, thresholds)
    clear = np.abs(probabilities - thresholds) > 1e-5
    np.testing.assert_array_equal(decisions[clear], (probabilities > thresholds)[clear])
    policy = Policy((0.5,), (temperature,) * 2, task=MULTI_LABEL, label_thresholds=thresholds)
    got = {
        name: criteria.confidence(dataclasses.replace(policy, criterion=name), 0, logits)[0] for name in CRITERIA[:3]
    }
    distance = np.abs(logits.astype(np.float64) / temperature - np.log(thresholds / (1 - thresholds))).min(axis=1)
    certainty = 1 / (1 + np.exp(-distance))
    np.testing.assert_allclose(got["max_probability"], certainty, atol=1e-5)
    np.testing.assert_allclose(got["margin"], 2 * certainty - 1, atol=1e-5)
    rest = 1 - certainty
    bits = -(certainty * np.log2(certainty) + rest * np.log2(np.maximum(rest, 1e-300)))
    np.testing.assert_allclose(got["entropy"], 1 - bits, atol=1e-4)
    half = criteria.confidence(dataclasses.replace(policy, label_thresholds=None), 0, logits)[0]
    np.testing.assert_allclose(half, np.maximum(probabilities, 1 - probabilities).min(axis=1), atol=1e-5)


def test_rows_that_are_not_finite_agree_with_nothing():
    logits = np.array([[1.0, np.nan, 0.0], [1.0, 2.0, 3.0]], np.float32)
    for name, task in TASKS.items():
        given = logits[:, 1:2] if name == REGRESSION else logits
        decisions = task.decisions(given)
        assert task.agree(decisions, decisions, 0.0).tolist() == [False, True]
        assert np.isnan(task.scores(given)[0]).any()
    with pytest.raises(ConfigError, match="tolerance"):
        TASKS[REGRESSION].agree(np.zeros(1), np.zeros(1))
    assert TASKS[REGRESSION].agree(np.array([1.0, 2.0]), np.array([1.5, 2.6]), 0.5).tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(task="ranking"), "ranking"),
        (dict(task=REGRESSION), "max_probability.*regression.*learned"),
        (dict(task=REGRESSION, criterion="learned", temperatures=(1.0, 2.0)), "temperatures"),
        (dict(label_thresholds=(0.5,)), "label_thresholds"),
        (dict(task=MULTI_LABEL, label_thresholds=(0.5, 1.0)), "between 0 and 1"),
        (dict(task=MULTI_LABEL, tolerance=0.1), "tolerance"),
        (dict(task=REGRESSION, criterion="learned", tolerance=0.0), "tolerance"),
        (dict(task=MULTI_LABEL, target_label=1), "target_label"),
    ],
)
def test_policies_that_do_not_fit_a_task(changes, message):
    with pytest.raises(ConfigError, match=message):
        Policy(**{"thresholds": (0.5,), "temperatures": (1.0, 1.0), **changes})


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_policy_as_json(policy):
    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert "task" not in Policy.uniform(3).to_dict()


@pytest.mark.parametrize("backend", BACKENDS)
def test_multi_label_predictions(folders, backend):
    model = itrex_sweet.load(folders[MULTI_LABEL], backend=backend)
    answers = model.executor.run(model.read(TEXTS))
    assert len(set(answers.exit_index)) > 1
    logits = (
        torch.from_numpy(answers.logits) / torch.tensor(POLICIES[MULTI_LABEL].temperatures)[answers.exit_index, None]
    )
    scores = torch.sigmoid(logits).numpy()
    outputs = model.executor.outputs_at_every_exit(model.read(TEXTS))
    confidences = criteria.confidence_at_every_exit(model.policy, outputs[..., :3], outputs[..., 3])
    np.testing.assert_array_equal(answers.exit_index, criteria.leaving_exit(model.policy, confidences))
    taken = np.take_along_axis(confidences, answers.exit_index[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(answers.confidence, taken, rtol=1e-5)
    for row, prediction in enumerate(model.predict(TEXTS, top_k="all")):
        on = {f"LABEL_{label}": scores[row, label] for label in range(3) if scores[row, label] > THRESHOLDS[label]}
        assert {each["label"]: each["score"] for each in prediction["labels"]} == pytest.approx(on, rel=1e-5)
        assert [each["score"] for each in prediction["scores"]] == pytest.approx(sorted(scores[row])[::-1], rel=1e-5)
        assert prediction["exit_layer"] == (1, 2, 4)[answers.exit_index[row]] and "label" not in prediction
    marked = model.predict([TEXTS[0], ""], errors="mark")[1]
    assert marked["labels"] is None and "error" in marked


@pytest.mark.parametrize("backend", BACKENDS)
def test_regression_predictions(folders, backend):
    model = itrex_sweet.load(folders[REGRESSION], backend=backend)
    outputs = model.executor.outputs_at_every_exit(model.read(TEXTS))
    error = np.exp(-outputs[:, :-1, 1].astype(np.float64))
    may_leave = np.column_stack([1 / (1 + error) > POLICIES[REGRESSION].thresholds, np.ones(len(TEXTS), bool)])
    leaving = may_leave.argmax(axis=1)
    assert len(set(leaving)) > 1
    for row, prediction in enumerate(model.predict(TEXTS)):
        assert prediction["score"] == pytest.approx(outputs[row, leaving[row], 0], rel=1e-4, abs=1e-5)
        assert prediction["exit_layer"] == (1, 2, 4)[leaving[row]] and "label" not in prediction
    assert {answer["exit_layer"] for answer in model.predict(TEXTS, threshold=1.0)} == {4}
    with pytest.raises(ConfigError, match="criterion='entropy' does not fit regression"):
        model.predict(TEXTS, policy=Policy((0.5, 0.5), (1.0,) * 3, "entropy"))


def test_label_thresholds_of_the_stored_policy_hold_for_other_policies(folders):
    model = itrex_sweet.load(folders[MULTI_LABEL])
    assert model.predict(TEXTS, policy=Policy((1.0, 1.0), (2.0, 0.5, 1.5))) == model.predict(TEXTS, threshold=1.0)
    with pytest.raises(ConfigError, match="2 label thresholds for 3 labels"):
        model.predict(TEXTS, policy=Policy((0.5,) * 2, (1.0,) * 3, task=MULTI_LABEL, label_thresholds=(0.5, 0.5)))
    with pytest.raises(ConfigError, match="a policy for regression does not fit"):
        model.predict(TEXTS, policy=POLICIES[REGRESSION])


@pytest.mark.parametrize("task", [MULTI_LABEL, REGRESSION])
def test_loss_and_pipeline_are_those_of_transformers(folders, task):
    model = SweetModelForSequenceClassification.from_pretrained(folders[task])
    inputs = model.tokenizer(TEXTS, return_tensors="pt", padding=True)
    logits = model(**inputs).logits
    if task == MULTI_LABEL:
        labels = (torch.arange(15).reshape(5, 3) % 2).float()
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        scores, wrong = torch.sigmoid(logits), torch.tensor([0, 1, 2, 0, 1])
    else:
        labels = torch.linspace(-1, 1, 5)
        expected = torch.nn.functional.mse_loss(logits[:, 0], labels)
        scores, wrong = logits, torch.zeros(5, 2)
    torch.testing.assert_close(model(**inputs, labels=labels).loss, expected)
    with pytest.raises(InputError, match="labels have shape"):
        model(**inputs, labels=wrong)
    got = pipeline("text-classification", model=model, tokenizer=model.tokenizer)(TEXTS, top_k=None)
    for row, results in enumerate(got):
        assert {each["label"]: each["score"] for each in results} == pytest.approx(
            {f"LABEL_{place}": score for place, score in enumerate(scores[row].tolist())}, rel=1e-4
        )


def test_artifacts_that_do_not_fit_the_task(tmp_path):
    tiny_artifact(tmp_path / "one", exits=(4,), task=MULTI_LABEL)
    for name, changes, message in (
        ("thresholds", dict(label_thresholds=[0.5, 0.5]), "2 label thresholds for 3 labels"),
        ("range", dict(label_thresholds=[0.5, 2.0, 0.5]), "label_thresholds"),
        ("type", dict(label_thresholds=0.5), "label_thresholds"),
        ("task", dict(task="ranking"), "task"),
        ("other", dict(task=REGRESSION, criterion="learned"), "a policy for regression does not fit"),
        ("tolerance", dict(tolerance=-1), "tolerance"),
    ):
        artifact = tiny_artifact(tmp_path / name, task=MULTI_LABEL)
        sign(tmp_path / name, policy={**artifact.policy.to_dict(), **changes})
        with pytest.raises(ArtifactError, match=message):
            open_artifact(tmp_path / name)
    with pytest.raises(UnsupportedArtifactError, match="regression with one exit"):
        tiny_artifact(tmp_path / "regression", exits=(4,), task=REGRESSION)
