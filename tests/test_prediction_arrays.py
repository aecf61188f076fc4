"""Tests of `predict(as_arrays=True)`, which returns the same answers as the dictionaries, and of repeated options."""

import dataclasses

import numpy as np
import pytest

from itrex_sweet.classifier import Classifier
from itrex_sweet.classifier.arrays import PredictionArrays
from itrex_sweet.errors import ConfigError, InputError, NonFiniteLogitsError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.request import RequestCache
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

TEXTS = ["the soup was good", "never again", "awful", "the phone is slow but fine", "a great room"] * 9
POLICY = Policy((0.4, 0.45), (1.5, 2.0, 0.7))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    loaded = {}

    def load(task: str, backend: str) -> Classifier:
        if (task, backend) not in loaded:
            folder = tmp_path_factory.mktemp("artifact")
            policy = POLICY if task == SINGLE_LABEL else None
            tiny_artifact(folder, tokenizer=tiny_tokenizer(), task=task, policy=policy)
            loaded[task, backend] = Classifier.load(folder, backend=backend)
        return loaded[task, backend]

    return load


@pytest.mark.parametrize(
    "options", [{}, {"threshold": 0.0}, {"threshold": 1.0}, {"max_exit": 2}, {"deadline_ms": 1e-3}], ids=str
)
@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_arrays_equal_the_dictionaries(models, task, backend, options):
    model = models(task, backend)
    texts = [*TEXTS, "", None]  # more than a batch
    arrays = model.predict(texts, as_arrays=True, errors="mark", **options)
    answers = model.predict(texts, errors="mark", **options)
    assert isinstance(arrays, PredictionArrays)
    assert len(arrays) == len(texts)
    assert dict(arrays.errors) == {row: answer["error"] for row, answer in enumerate(answers) if "error" in answer}
    assert list(arrays.errors) == [len(TEXTS), len(TEXTS) + 1]
    for row, answer in enumerate(answers):
        if "error" in answer:
            assert (arrays.exit_layers[row], arrays.stopped_by[row]) == (0, -1)
            assert np.isnan(arrays.scores[row]).all()
            assert arrays.labels is None or (arrays.labels[row] == -1).all()
            continue
        assert arrays.exit_layers[row] == answer["exit_layer"]
        assert arrays.STOPPED_BY[arrays.stopped_by[row]] == answer["stopped_by"]
        if task == MULTI_LABEL:
            on = {model.labels[label]: arrays.scores[row, label] for label in np.flatnonzero(arrays.labels[row])}
            assert on == {each["label"]: np.float32(each["score"]) for each in answer["labels"]}
        else:
            assert arrays.scores[row] == np.float32(answer["score"])
        if task == SINGLE_LABEL:
            assert model.labels[arrays.labels[row]] == answer["label"]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_answers_are_the_same_alone_and_together(models, task):
    model = models(task, "native")
    together = model.predict(TEXTS, top_k="all")
    assert together == [model.predict([text], top_k="all")[0] for text in TEXTS]
    assert together == model.predict(TEXTS, top_k="all", batch_size=len(TEXTS))
    if task == SINGLE_LABEL:
        assert all(each["labels"][0] == {"label": each["label"], "score": each["score"]} for each in together)
        plain = [{name: value for name, value in each.items() if name != "labels"} for each in together]
        assert plain == model.predict(TEXTS)


def test_no_texts(models):
    arrays = models(SINGLE_LABEL, "native").predict([], as_arrays=True)
    assert [len(part) for part in (arrays.labels, arrays.scores, arrays.exit_layers, arrays.stopped_by)] == [0] * 4


def test_invalid_calls(models):
    model = models(SINGLE_LABEL, "native")
    with pytest.raises(ConfigError, match="as_arrays and top_k exclude"):
        model.predict(TEXTS, as_arrays=True, top_k=2)
    with pytest.raises(InputError, match="row 1: the text is empty"):
        model.predict(["good", ""], as_arrays=True)


@pytest.mark.parametrize("as_arrays", [False, True])
def test_logits_that_are_not_finite(models, monkeypatch, as_arrays):
    model = models(SINGLE_LABEL, "torch")

    def broken(self, exit_index, hidden):
        logits = np.ones((len(hidden), 3), np.float32)
        logits[1] = np.nan
        return logits, None

    monkeypatch.setattr(Backend, "read_exit", broken)
    with pytest.raises(NonFiniteLogitsError, match=r"rows \[1\]") as raised:
        model.predict(TEXTS[:3], threshold=1.0, as_arrays=as_arrays)
    assert raised.value.rows == (1,)
    marked = model.predict(["", *TEXTS[:3]], threshold=1.0, as_arrays=as_arrays, errors="mark")
    if as_arrays:
        assert list(marked.errors) == [0, 2]
        assert marked.labels.tolist() == [-1, 0, -1, 0]
        assert marked.exit_layers.tolist() == [0, 4, 0, 4]
        assert marked.stopped_by.tolist() == [-1, 3, -1, 3]
    else:
        assert [row for row, answer in enumerate(marked) if "error" in answer] == [0, 2]


def test_calls_are_kept_by_the_value_of_options(models):
    artifact = models(SINGLE_LABEL, "native").artifact
    cache, other = RequestCache(), dataclasses.replace(POLICY, thresholds=(0.1, 0.2))

    def call(stored=POLICY, threshold=None, policy=None, quality=None, max_exit=None):
        return cache.of(artifact, stored, threshold, policy, quality, max_exit, None)

    assert call() is call()
    assert call().policy == POLICY
    assert call(threshold=0.3) is call(threshold=0.3) is not call(threshold=0.4)
    assert call(stored=other).policy == other
    assert call(policy=other).policy == call(stored=other).policy
    assert call(max_exit=2).policy.max_exit_index == 1
    assert call(max_exit=1).policy.max_exit_index == 0
    for wrong in (2.0, True):  # equal to an integer that is kept
        with pytest.raises(ConfigError, match="max_exit"):
            call(max_exit=wrong)
    for place in range(200):  # more than are kept
        assert call(threshold=place / 200).policy.thresholds == (place / 200,) * 2
    thresholds = [0.3, 0.4]
    assert call(threshold=thresholds).policy.thresholds == (0.3, 0.4)
    thresholds[0] = 0.5
    assert call(threshold=thresholds).policy.thresholds == (0.5, 0.4)
