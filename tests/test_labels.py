"""Tests of label ids: labels are matched by name where names are given, and never by sorted order."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.data import label_ids, read_rows
from itrex_sweet.errors import ConfigError, InputError


def unnamed(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{place}" for place in range(count))


def ids(values, names=None, meanings=None, new=True):
    return label_ids(values, [f"d.csv, line {row + 2}" for row in range(len(values))], names, meanings, new_classes=new)


@given(st.integers(1, 50).flatmap(lambda count: st.tuples(st.just(count), st.permutations(range(count)))))
def test_generated_names_are_ids(drawn):
    count, order = drawn
    labels = [f"LABEL_{place}" for place in order]
    assert ids(labels, unnamed(count))[0] == list(order)
    assert ids(labels) == (list(order), None)  # a new model has the same
    assert ids([str(place) for place in order], unnamed(count))[0] == list(order)


@given(st.permutations(range(25)), st.sampled_from(["class{}", "{} stars", "grade-{}b", "v{}.{}"]))
def test_numbered_names_are_ordered_by_number(order, pattern):
    names = tuple(pattern.format(place, place) for place in range(25))
    assert ids([names[place] for place in order]) == (list(order), names)


@given(st.permutations(["red", "green", "blue", "grey"]), st.permutations(["red", "green", "blue", "grey"]))
def test_labels_are_matched_by_name(model, source):
    """A `ClassLabel` or `info.json` may list them in another order than the model."""
    assert ids([0, 1, 2, 3], tuple(model), source)[0] == [model.index(name) for name in source]
    assert ids(source, tuple(model))[0] == [model.index(name) for name in source]
    assert ids(source, unnamed(4), model)[0] == [model.index(name) for name in source]


MISSING = ["", " ", None, float("nan"), "NaN", "nan", "NA", "N/A", "#N/A", "None", "null", "NULL", "<NA>", "NaT"]


@pytest.mark.parametrize("names", [None, ("neg", "pos"), unnamed(2)])
@pytest.mark.parametrize("missing", MISSING)
def test_missing_labels_are_rejected(missing, names):
    values = ["pos", missing, "neg", missing] if names != unnamed(2) else [0, missing, 1, missing]
    with pytest.raises(
        InputError, match=r"line 3: no label.*2 of 4 rows have no label: d.csv, line 3, d.csv, line 5"
    ) as caught:
        ids(values, names)
    assert caught.value.rows == (1, 3)


def test_class_with_the_name_of_a_missing_value():
    assert ids(["NA", "EU"], ("EU", "NA"))[0] == [1, 0]
    assert ids(["NA", "EU"], None, ("EU", "NA")) == ([1, 0], ("EU", "NA"))
    with pytest.raises(InputError, match="no label"):
        ids([None, "EU"], ("EU", "None"))


@pytest.mark.parametrize(
    ("values", "problem", "rows"),
    [
        ([0, 1, 20231105], "line 4: label 20231105, but no row has 2 to 20231104", (2,)),
        ([0, 2147483648], "label 2147483648, but no row has 1 to", (1,)),
        (["LABEL_0", "LABEL_2147483648"], "label 2147483648, but no row has", (1,)),
        (["0", "9" * 400], "label", None),
        ([0, 1, 3], "line 4: label 3, but no row has 2", (2,)),
        ([1, 2, 3], r"labels range from 1 to 3, but ids start at 0\. .*1=NAME,2=NAME,3=NAME", (2,)),
        (["LABEL_1", "LABEL_2"], "labels range from 1 to 2", None),
        ([-1, 1], r"line 2: label -1; labels start at 0 .*--label-names=-1=NAME,1=NAME", (0,)),
        (["0.5", "1.0"], "line 2: label 0.5 is not an integer: .*regression", (0,)),
        ([3.25, 1.0, 2.75], "regression", (0,)),
        (["1e-3", "2"], "regression", (0,)),
        (list(range(100)), "100 different labels in 100 rows", ()),
        ([f"text {place} of it" for place in range(100)], "100 different labels in 100 rows", ()),
        (
            ["positive"] * 30 + ["negative"] * 30 + ["postive"],
            "line 62: label 'postive' .*'positive'.*typing error",
            (60,),
        ),
        (["positive"] * 30 + ["negative"] + ["psoitive"], "'psoitive' .*'positive'", (31,)),
        (
            ["positive"] * 30 + ["Positive"] * 3,
            r"line 32: label 'Positive' \(3 rows\).*in case or spaces",
            (30, 31, 32),
        ),
        (["very  good"] * 3 + ["very good"] * 30, "case or spaces", (0, 1, 2)),
        ([[0, 1]], "not a number or a string .*multi-label", (0,)),
        ([{"a": 1}], "not a number or a string", (0,)),
    ],
)
def test_invalid_classes_of_a_new_model(values, problem, rows):
    with pytest.raises(InputError, match=problem) as caught:
        ids(values)
    assert rows is None or caught.value.rows == rows


@pytest.mark.parametrize("values", [["cat"] * 30 + ["car"], ["class1"] * 30 + ["class2"], ["sport"] * 30 + ["econ"]])
def test_warning_about_a_class_with_one_row(values, caplog):
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        ids(values)
    assert values[-1] in caplog.text and "line 32" in caplog.text and "one row only" in caplog.text


@pytest.mark.parametrize(
    ("values", "names", "problem"),
    [
        (["good", "bad"], ("neg", "pos"), "label 'good' is not one of neg, pos; the labels here are bad, good"),
        (["Neg", "pos"], ("neg", "pos"), r"the labels here are Neg, pos\. Did you mean 'neg'\?"),
        (["not_ok", "ok"], ("not ok", "ok"), "Did you mean 'not ok'"),
        (["neg", "pos"], unnamed(2), "The model has no names for its labels: pass them with --label-names"),
        ([0, 2], unnamed(2), r"label 2; labels range from 0 to 1 \(LABEL_0, LABEL_1\)"),
        ([1, 2], ("neg", "pos"), r"labels range from 0 to 1 .*start at 1: .*--label-names 1=NAME"),
        (["LABEL_2"], unnamed(2), "label 2; labels range from 0 to 1"),
        (["LABEL_0", "LABEL_2"], ("a", "b"), "label 2; labels range from 0 to 1"),
        (["1", "4"], ("1", "2", "3"), "label '4' is not one of 1, 2, 3"),
        ([0.5], ("neg", "pos"), "label '0.5' is not one of neg, pos"),
        (["x" * 5000], ("neg", "pos"), r"label 'x{60}\.\.\.' is"),
    ],
)
def test_unknown_labels(values, names, problem):
    with pytest.raises(InputError, match=problem) as caught:
        ids(values, names)
    assert len(str(caught.value)) < 500


def test_unknown_label_names_of_the_source():
    with pytest.raises(InputError, match="label 'positive' is not one of neg, pos"):
        ids([0, 1], ("neg", "pos"), ("neg", "positive"))
    with pytest.raises(InputError, match="label 2; labels range from 0 to 1"):
        ids([0, 2], unnamed(2), ("a", "b", "c"))


def test_warning_about_generated_names_used_as_ids(caplog):
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        assert ids(["LABEL_1", "LABEL_0"], ("neg", "pos"))[0] == [1, 0]
    assert "used as the ids of neg, pos" in caplog.text


def test_warning_about_labels_that_may_start_at_1(caplog):
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        assert ids([1, 2, 1], unnamed(3))[0] == [1, 2, 1]
    assert "if the labels start at 1" in caplog.text


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([True, False], None, [1, 0]),
        ([True, False], ("False", "True"), [1, 0]),
        ([True, False], ("true", "false"), [0, 1]),
        (["1.0", " 0 "], unnamed(2), [1, 0]),
        (["+1", "00"], None, [1, 0]),
        ([3, 1], ("1", "2", "3"), [2, 0]),
        (["3.0", "1.0"], ("1", "2", "3"), [2, 0]),
        ([0, "LABEL_1"], unnamed(2), [0, 1]),
    ],
)
def test_spellings_of_a_label(values, names, expected):
    assert ids(values, names)[0] == expected


def test_label_names_argument(tmp_path):
    meanings = {"1": "neg", "2": "pos"}
    assert ids([2, 1], None, meanings) == ([1, 0], ("neg", "pos"))
    assert ids([2, 1], ("pos", "neg"), meanings)[0] == [0, 1]
    assert ids([2, 1], unnamed(2), meanings)[0] == [1, 0]
    assert ids([-1, 1], None, {"-1": "neg", "1": "pos"})[0] == [0, 1]
    assert ids([0, 3], None, ("a", "b", "c", "d")) == ([0, 3], ("a", "b", "c", "d"))
    with pytest.raises(InputError, match="label '3' is not one of 1, 2"):
        ids([3], None, meanings)
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": 1}\n')
    with pytest.raises(ConfigError, match="label_names"):
        read_rows(tmp_path / "d.jsonl", label_names=("a", "a"))


def test_names_from_info_json_and_data_sets_are_matched(tmp_path):
    (tmp_path / "info.json").write_text(json.dumps({"labels": ["pos", "neg"]}))
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    assert read_rows(tmp_path / "d.jsonl", label_names=("neg", "pos")).labels == [1, 0]
    for hostile in ("[" * 50_000, '{"labels": ["a", "a"]}', '{"labels": [1]}', "\xff"):
        (tmp_path / "info.json").write_bytes(hostile.encode("latin-1"))
        assert read_rows(tmp_path / "d.jsonl", label_names=("neg", "pos")).labels == [0, 1]
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "Label": datasets.ClassLabel(names=["pos", "neg"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "Label": [0, 1]}, features=features)
    assert read_rows(part, label_names=("neg", "pos")).labels == [1, 0]


def test_labels_are_not_read_if_not_needed(tmp_path):
    (tmp_path / "d.csv").write_text("text,label\na,0.5\nb,\n")
    assert read_rows(tmp_path / "d.csv", label_column=None).labels is None
