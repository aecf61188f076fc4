"""Tests of `SweetPredictor` and `make_predict_fn`, as Ray Data and Spark call them, without these."""

import inspect
import json
import pickle

import numpy as np
import pytest

import itrex_sweet
from itrex_sweet.cluster import SweetPredictor, artifact_identity, make_predict_fn
from itrex_sweet.errors import ArtifactError, ConfigError, InputError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION
from tests.cluster.conftest import texts
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

TEXTS = [*texts(20), None, " ", "never again"]
GOOD = [row for row, text in enumerate(TEXTS) if text and text.strip()]
FIELDS = ["label", "score", "exit_layer", "stopped_by", "error"]

BATCHES = {
    "numpy": lambda: {"id": np.arange(len(TEXTS)), "text": np.array(TEXTS, dtype=object)},
    "pyarrow": lambda: pa.table({"id": list(range(len(TEXTS))), "text": TEXTS}),
    "pandas": lambda: pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS}),
}


def columns_of(batch) -> dict[str, list]:
    """Returns the columns of a batch of any type as lists, with `None` for missing values."""
    if isinstance(batch, pa.Table):
        return batch.to_pydict()
    columns = {name: list(batch[name]) for name in batch}
    return {
        name: [None if isinstance(value, (float, np.floating)) and np.isnan(value) else value for value in values]
        for name, values in columns.items()
    }


@pytest.mark.parametrize("kind", BATCHES)
def test_answers_are_those_of_the_classifier(artifact, kind):
    batch = BATCHES[kind]()
    answered = SweetPredictor(artifact)(batch)
    assert type(answered) is type(batch)
    columns = columns_of(answered)
    assert list(columns) == ["id", "text", *FIELDS] and columns["id"] == list(range(len(TEXTS)))
    expected = itrex_sweet.load(artifact).predict([TEXTS[row] for row in GOOD])
    found = [{name: columns[name][row] for name in FIELDS if name != "error"} for row in GOOD]
    assert found == expected
    assert [row for row, error in enumerate(columns["error"]) if error is not None] == [20, 21]
    assert "no value in column 'text'" in columns["error"][20] and "is empty" in columns["error"][21]
    assert [columns["label"][row] for row in (20, 21)] == [columns["score"][row] for row in (20, 21)] == [None, None]


def test_types_of_columns_do_not_depend_on_the_rows(artifact):
    predictor = SweetPredictor(artifact)
    schemas = {predictor(pa.table({"text": pa.array(rows, pa.string())})).schema for rows in (TEXTS, TEXTS[:3], [None])}
    assert len(schemas) == 1
    assert predictor(pa.table({"text": pa.array([], pa.string())})).schema in schemas


@pytest.mark.parametrize("task", [MULTI_LABEL, REGRESSION])
@pytest.mark.parametrize("top_k", [None, 2])
def test_tasks(tmp_path, task, top_k):
    tiny_artifact(tmp_path, tokenizer=tiny_tokenizer(), task=task)
    if task == REGRESSION and top_k:
        top_k = None
    columns = columns_of(SweetPredictor(tmp_path, top_k=top_k)(BATCHES["pyarrow"]()))
    for row, prediction in zip(
        GOOD, itrex_sweet.load(tmp_path).predict([TEXTS[row] for row in GOOD], top_k=top_k), strict=True
    ):
        assert {name: columns[name][row] for name in prediction} == prediction


def test_pairs_and_options(artifact):
    classifier = itrex_sweet.load(artifact, threshold=0.4)
    first, second = texts(10), texts(10, 1)
    predictor = SweetPredictor(artifact, "one", "two", threshold=0.4, max_exit=2, top_k="all", prefix="predicted_")
    columns = columns_of(predictor(pa.table({"one": first, "two": second, "label": ["gold"] * 10})))
    pairs = classifier.predict(list(zip(first, second, strict=True)), max_exit=2, top_k="all")
    assert columns["predicted_labels"] == [row["labels"] for row in pairs]
    assert columns["label"] == ["gold"] * 10 and "predicted_label" in columns


def test_wrong_batches_and_settings(artifact, other_artifact):
    predictor = SweetPredictor(artifact)
    with pytest.raises(ConfigError, match=r'columns named label already.*prefix="predicted_"'):
        predictor({"text": np.array(["a"]), "label": np.array([1])})
    with pytest.raises(ConfigError, match="no column has a common name"):
        predictor({"words": np.array(["a"])})
    with pytest.raises(InputError, match="a batch is a list"):
        predictor(["a"])
    with pytest.raises(ConfigError, match="max_exit=3"):
        SweetPredictor(artifact, max_exit=3)
    identity = artifact_identity(artifact)
    SweetPredictor(artifact, identity=identity)
    with pytest.raises(ArtifactError, match="another artifact"):
        SweetPredictor(other_artifact, identity=identity)


def test_long_texts_are_errors_on_request(artifact):
    batch = {"text": np.array(["the room", "the " * 100], dtype=object)}
    errors = SweetPredictor(artifact, overlong="refuse")(batch)["error"]
    assert errors[0] is None and "the limit is 32" in errors[1]


def test_spark_function(artifact):
    """Calls the function as `predict_batch_udf` does: one array of objects, in several batches."""
    function = make_predict_fn(artifact, threshold=0.4)()
    found = [function(np.array(TEXTS[start : start + 7], dtype=object)) for start in range(0, len(TEXTS), 7)]
    frame = pd.concat([pd.DataFrame(columns) for columns in found], ignore_index=True)
    expected = itrex_sweet.load(artifact, threshold=0.4).predict([TEXTS[row] for row in GOOD])
    assert frame["label"][GOOD].tolist() == [row["label"] for row in expected]
    assert frame["score"][GOOD].tolist() == [row["score"] for row in expected]
    assert [row for row, error in enumerate(frame["error"]) if isinstance(error, str)] == [20, 21]
    pairs = function(np.array([["a room", "a phone"]], dtype=object))
    assert pairs["label"][0] == itrex_sweet.load(artifact, threshold=0.4).predict([("a room", "a phone")])[0]["label"]
    with pytest.raises(InputError, match="3 columns"):
        function(np.array([["a", "b", "c"]]))


def test_spark_function_has_the_options_of_the_predictor(artifact):
    names = {"artifact", "text_column", "pair_column", "prefix"}
    options = {name: each.default for name, each in inspect.signature(SweetPredictor).parameters.items()}
    assert names < options.keys()
    make_predict_fn(artifact, **{name: value for name, value in options.items() if name not in names})
    with pytest.raises(ConfigError, match="max_exit=3"):  # of `SweetPredictor`, when the model is loaded
        make_predict_fn(artifact, max_exit=3)()
    for unknown in ("treshold", "prefix", "text_column"):
        with pytest.raises(TypeError, match=rf"make_predict_fn\(\).*{unknown}"):
            make_predict_fn(artifact, **{unknown: "text"})


def test_lists_of_labels_are_json_in_spark(artifact):
    found = make_predict_fn(artifact, top_k=2)()(np.array(TEXTS, dtype=object))["labels"]
    expected = itrex_sweet.load(artifact).predict([TEXTS[row] for row in GOOD], top_k=2)
    assert [json.loads(found[row]) for row in GOOD] == [row["labels"] for row in expected]
    assert found[20] is None


def test_spark_function_travels_without_the_model(artifact):
    cloudpickle = pytest.importorskip("cloudpickle")
    pickled = cloudpickle.dumps(make_predict_fn(artifact))
    assert len(pickled) < 10_000
    assert pickle.loads(pickled)()(np.array(["the room was good"]))["error"][0] is None


@pytest.mark.parametrize("kind", ["plain", "dictionary"])
def test_texts_that_are_not_utf8_are_bad_rows(artifact, kind):
    pa = pytest.importorskip("pyarrow")
    values = pa.array([b"the soup", b"caf\xe9"], type=pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, values.buffers())
    if kind == "dictionary":
        texts = pa.DictionaryArray.from_arrays(pa.array([0, 1]), texts)
    answered = SweetPredictor(artifact)(pa.table({"text": texts}))
    assert answered["label"].to_pylist()[1] is None and answered["label"].to_pylist()[0] is not None
    assert "not valid UTF-8" in answered["error"].to_pylist()[1]
