"""Invalid numbers, labels and rows raise errors of this package that name the argument."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from itrex_sweet import Budget, SweetModelForSequenceClassification, SweetQuantizer, calibrate
from itrex_sweet.calibration.drift import drift
from itrex_sweet.calibration.temperature import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from itrex_sweet.data import Rows
from itrex_sweet.errors import ConfigError, InputError, SweetError
from itrex_sweet.evaluation.evaluation import evaluate
from tests.calibration.test_calibrate import TEXTS
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

COUNT = 90
LABELS = [place % 3 for place in range(COUNT)]
BUDGET = Budget(max_layers=3.9)
NAN, INF = float("nan"), float("inf")

NOT_INTEGERS = [-1, 2.5, NAN, INF, "3", None, True, [3], 3 + 0j]
NOT_NUMBERS = ["0.1", None, True, [0.1], np.array([0.1, 0.2]), 1j, 10**400]
BAD_LABELS = {
    "names": ["good"] * COUNT,
    "none": [None] * COUNT,
    "NaN": [NAN] * COUNT,
    "halves": [0.5] * COUNT,
    "negative": [-1] * COUNT,
    "too great": [3] * COUNT,
    "huge": [10**30] * COUNT,
    "nested": [[1]] * COUNT,
    "ragged": [[1], *[1, 2] * 44, 1],
    "too few": [1, 2],
    "one number": 3,
    "a mapping": {"a": 1},
    "complex": [1j] * COUNT,
}


@pytest.fixture(scope="module", params=["torch", "native"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_artifact(folder, tokenizer=tiny_tokenizer())
    try:
        return SweetModelForSequenceClassification.from_pretrained(folder, backend=request.param)
    except SweetError as error:
        pytest.skip(str(error))


def calibrated(model, rows=None, budget=BUDGET, **settings):
    rows = Rows(TEXTS[:COUNT], LABELS) if rows is None else rows
    return calibrate(model, rows, budget, **{"unit": "layers", **settings})


@pytest.mark.parametrize("name", ["max_accuracy_drop", "max_agreement_drop", "max_metric_drop", "confidence"])
@pytest.mark.parametrize("value", [*NOT_NUMBERS, NAN, INF, -INF, 0.0, 1.0, 1.5, -0.1], ids=repr)
def test_fractions_of_a_budget(name, value):
    settings = {"max_accuracy_drop": 0.1} if name == "confidence" else {}
    settings |= {"metric": "f1"} if name == "max_metric_drop" else {}
    if value is None and name != "confidence":
        pytest.skip("no budget at all")
    with pytest.raises(ConfigError, match=name):
        Budget(**{**settings, name: value})


@pytest.mark.parametrize("name", ["max_layers", "max_latency_ms"])
@pytest.mark.parametrize("value", [*NOT_NUMBERS, NAN, INF, 0, -1], ids=repr)
def test_limits_of_a_budget(name, value):
    with pytest.raises(ConfigError, match="a budget needs" if value is None else name):
        Budget(**{name: value})


@pytest.mark.parametrize("metric", [3, ["f1"], "", "accuracy", b"f1"])
def test_metrics_of_a_budget(metric):
    with pytest.raises(ConfigError, match="metric="):
        Budget(max_metric_drop=0.1, metric=metric)


def test_numpy_and_torch_numbers_are_accepted():
    assert Budget(max_accuracy_drop=np.float32(0.5)).epsilon == 0.5
    assert Budget(max_layers=np.int64(3)).to_dict() == {"confidence": 0.95, "max_layers": 3.0}
    assert Budget(max_agreement_drop=torch.tensor(0.25)).epsilon == 0.25


@pytest.mark.parametrize("name", ["batch_size", "max_length", "seed"])
@pytest.mark.parametrize("value", [value for value in NOT_INTEGERS if value is not None], ids=repr)
def test_integers_of_calibrate(model, name, value):
    with pytest.raises(ConfigError, match=f"{name}="):
        calibrated(model, **{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": None}, {"budget": {"max_layers": 3}}, {"costs": 3}, {"unit": None}, {"unit": "hours"},
        {"criterion": 3}, {"criterion": "luck"}, {"rows": 3}, {"rows": {"text": TEXTS}}, {"against": 3},
        {"colour": "red"},
    ],
    ids=repr,
)  # fmt: skip
def test_other_settings_of_calibrate(model, settings):
    with pytest.raises(ConfigError):
        calibrated(model, **settings)


def test_model_of_another_type():
    for model in (None, "folder", 3):
        with pytest.raises(ConfigError, match="model is of type"):
            calibrate(model, TEXTS[:COUNT], BUDGET)
        with pytest.raises(ConfigError, match="model is of type"):
            SweetQuantizer(model)


@pytest.mark.parametrize("labels", BAD_LABELS.values(), ids=BAD_LABELS)
def test_invalid_labels(model, tmp_path, labels):
    given = Rows(TEXTS[:COUNT], labels)
    for attempt in (
        lambda: calibrated(model, given),
        lambda: SweetQuantizer(model).quantize(given, tmp_path / "int8", "dynamic"),
        lambda: evaluate(model, TEXTS[:COUNT], labels, timed_rows=0),
    ):
        with pytest.raises(InputError, match="label"):
            attempt()
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("labels", [LABELS, np.array(LABELS, np.uint8), torch.tensor(LABELS), np.array(LABELS, float)])
def test_labels_as_any_integer_type(model, labels):
    assert evaluate(model, TEXTS[:COUNT], labels, timed_rows=0).report.rows == COUNT
    assert calibrated(model, Rows(TEXTS[:COUNT], labels)).rows == (30, 60)


FORMS = {
    "mappings": lambda texts: [{"text": text} for text in texts],
    "array": np.array,
    "column": lambda texts: Dataset.from_dict({"text": texts})["text"],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_texts_in_any_form_of_predict(model, form):
    texts, given = TEXTS[:COUNT], form(TEXTS[:COUNT])
    assert (
        calibrated(model, given).fingerprints.hashes.tolist() == calibrated(model, texts).fingerprints.hashes.tolist()
    )
    assert evaluate(model, given, LABELS, timed_rows=0).report == evaluate(model, texts, LABELS, timed_rows=0).report


@pytest.mark.parametrize("rows", [[], [1] * COUNT, [""] * COUNT, [("a",)] * COUNT, [None] * COUNT, TEXTS[:5], b"text"])
def test_invalid_texts(model, tmp_path, rows):
    with pytest.raises(SweetError):
        calibrated(model, rows)
    with pytest.raises(SweetError):
        SweetQuantizer(model).quantize(rows, tmp_path / "int8", "dynamic")


TOKENS = {
    "id too great": {"input_ids": [[2, 10**6, 3]] * COUNT},
    "id negative": {"input_ids": [[2, -1, 3]] * COUNT},
    "too long": {"input_ids": [[2, *[5] * 500, 3]] * COUNT},
    "a row without tokens": {"input_ids": [[2, 5, 3]] * (COUNT - 1) + [[]]},
    "a row that is none": {"input_ids": [[2, 5, 3]] * (COUNT - 1) + [None]},
    "text": {"input_ids": ["the room"] * COUNT},
    "floats": {"input_ids": [[2.5, 3.5]] * COUNT},
    "types too great": {"input_ids": [[2, 5, 3]] * COUNT, "token_type_ids": [[0, 99, 0]] * COUNT},
    "types negative": {"input_ids": [[2, 5, 3]] * COUNT, "token_type_ids": [[0, -1, 0]] * COUNT},
    "types too few": {"input_ids": [[2, 5, 3]] * COUNT, "token_type_ids": [[0]] * COUNT},
    "mask too short": {"input_ids": [[2, 5, 3]] * COUNT, "attention_mask": [[1]] * COUNT},
    "mask that is none": {"input_ids": [[2, 5, 3]] * COUNT, "attention_mask": [None] * COUNT},
    "mask of nothing": {"input_ids": [[2, 5, 3]] * COUNT, "attention_mask": [[0, 0, 0]] * COUNT},
    "no rows": {"input_ids": []},
    "labels by name": {"input_ids": [[2, 5, 3]] * COUNT, "labels": ["good"] * COUNT},
}


@pytest.mark.parametrize("columns", TOKENS.values(), ids=TOKENS)
def test_invalid_token_ids(model, tmp_path, columns):
    given = Dataset.from_dict(columns)
    with pytest.raises(InputError):
        calibrated(model, given)
    with pytest.raises(InputError):
        SweetQuantizer(model).quantize(given, tmp_path / "int8", "dynamic")
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("name", ["rows", "seed", "max_length"])
@pytest.mark.parametrize("value", [value for value in NOT_INTEGERS if value is not None], ids=repr)
def test_integers_of_quantize(model, tmp_path, name, value):
    with pytest.raises(ConfigError, match=f"{name}="):
        SweetQuantizer(model).quantize(TEXTS[:COUNT], tmp_path / "int8", "dynamic", **{name: value})


@pytest.mark.parametrize("name", ["max_drop", "max_moved", "max_changed", "smoothing_alpha"])
@pytest.mark.parametrize("value", [*NOT_NUMBERS, NAN, INF, -0.1, 1.1], ids=repr)
def test_fractions_of_quantize(model, tmp_path, name, value):
    with pytest.raises(ConfigError, match=f"{name}="):
        SweetQuantizer(model).quantize(TEXTS[:COUNT], tmp_path / "int8", "dynamic", **{name: value})


@pytest.mark.parametrize(
    "settings",
    [{"recipe": "int4"}, {"recipe": None}, {"recipe": ["static"]}, {"save_directory": None}, {"save_directory": 3},
     {"save_directory": "a\0b"}, {"rows": 0}],
    ids=repr,
)  # fmt: skip
def test_other_settings_of_quantize(model, tmp_path, settings):
    with pytest.raises(ConfigError):
        SweetQuantizer(model).quantize(TEXTS[:COUNT], **{"save_directory": tmp_path / "int8", **settings})


@pytest.mark.parametrize(
    "settings",
    [
        *[{name: value} for name in ("timed_rows", "repeats", "points", "timed_points", "max_length")
          for value in NOT_INTEGERS if value is not None or name not in ("max_length", "timed_rows")],
        {"repeats": 0}, {"points": 1}, {"metric": "accuracy"},
    ],
    ids=repr,
)  # fmt: skip
def test_settings_of_evaluate(model, settings):
    with pytest.raises(ConfigError):
        evaluate(model, TEXTS[:COUNT], LABELS, **{"timed_rows": 0, **settings})


@pytest.mark.parametrize("texts", ["the room", None, 3, []])
def test_invalid_texts_of_evaluate(model, texts):
    with pytest.raises(InputError):
        evaluate(model, texts, [], timed_rows=0)


@pytest.mark.parametrize("score", [negative_log_likelihood, expected_calibration_error, brier_score])
def test_invalid_arguments_of_calibration_errors(score):
    logits, labels = np.zeros((4, 3)), np.zeros(4, int)
    assert np.isfinite(score(logits, labels))
    for wrong in (np.zeros(3, int), np.full(4, 3), [NAN] * 4, ["a"] * 4):
        with pytest.raises(InputError, match="label"):
            score(logits, wrong)
        with pytest.raises(InputError, match="label"):
            fit_temperature(logits, wrong)
    for wrong in (np.zeros((0, 3)), np.full((4, 3), NAN)):
        with pytest.raises(InputError, match="no row"):
            score(wrong, labels[: len(wrong)])
        assert fit_temperature(wrong, labels[: len(wrong)]) == 1.0
    for wrong in ("a", [["x"]], np.zeros(4)):
        with pytest.raises(InputError, match="logits"):
            score(wrong, labels)
    for temperature in (0.0, -1.0, NAN, INF, "1", None):
        with pytest.raises(ConfigError, match="temperature="):
            score(logits, labels, temperature)
    with pytest.raises(ConfigError, match="bins="):
        expected_calibration_error(logits, labels, bins=0)


def test_drift_rejects_other_types(model, tmp_path):
    written = calibrated(model).write(model.artifact, tmp_path / "calibrated")
    for wrong in (None, 3, "text", {"label": "LABEL_0"}, [None] * 300, ["text"] * 300, [["a"]] * 300, []):
        with pytest.raises(InputError):
            drift(written, wrong)
