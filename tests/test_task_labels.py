"""Labels of multi-label classification and regression in files."""

import json

import pytest

from itrex_sweet.data import read_rows
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION


def json_file(folder, *labels):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "soup", "label": label}) + "\n" for label in labels))
    return path


def csv_file(folder, *lines):
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_form_of_label_sets(tmp_path):
    expected, names = [[1, 0, 1], [0, 0, 0], [0, 1, 0]], ("a", "b", "c")
    files = [
        json_file(tmp_path, ["a", "c"], [], ["b"]),
        csv_file(tmp_path, "text,label", "x,a|c", "x,", "x, b "),
    ]
    for path in files:
        rows = read_rows(path, task=MULTI_LABEL)
        assert (rows.labels, rows.label_names, rows.num_labels) == (expected, names, 3)
    rows = read_rows(json_file(tmp_path, ["c"], ["a"]), task=MULTI_LABEL, label_names=("c", "b", "a"))
    assert rows.labels == [[1, 0, 0], [0, 0, 1]]
    table = csv_file(tmp_path, "text,a,b,c", "x,1,0,true", "y,0,0,0", "z,0.0,1.0,false")
    for columns in ("a,b,c", ["a", "b", "c"]):
        rows = read_rows(table, task=MULTI_LABEL, label_column=columns)
        assert (rows.labels, rows.label_names) == (expected, names)
    assert read_rows(table, task=MULTI_LABEL, label_column="a,b", label_names=("b", "a")).labels[0] == [0, 1]
    ids = read_rows(json_file(tmp_path, [0, 2], [1], []), task=MULTI_LABEL)
    assert ids.labels == [[1, 0, 1], [0, 1, 0], [0, 0, 0]] and ids.label_names == ("LABEL_0", "LABEL_1", "LABEL_2")
    vectors = read_rows(json_file(tmp_path, [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]), task=MULTI_LABEL)
    assert vectors.labels == [[0, 1, 1], [1, 0, 0]]
    named = read_rows(json_file(tmp_path, [0], [1, 0]), task=MULTI_LABEL, label_meanings=("bad", "good"))
    assert named.labels == [[1, 0], [1, 1]] and named.label_names == ("bad", "good")


@pytest.mark.parametrize(
    "labels, message",
    [
        ((["a"], "a|b"), r"rows.jsonl, line 2: the labels are a text, and in .* they are a list"),
        ((["a"], None), "line 2: no label; multi-label"),
        ((["a"], 1), "line 2: label 1; multi-label"),
        ((["a"], ["a", 1]), "line 2: the labels .* mix names and ids"),
        (([1, 0], [1], [0.5]), "line 3: label 0.5 in .* is neither a name nor an id"),
        (([], [1, 0, 0, 0], ["a"]), "line 3: the labels .* are names, and in .*line 2 they are numbers"),
        (([1, 0], [1, 0, 1]), "line 2: the labels .* repeat an id.* 3 entries, and the vector of another row 2"),
        (([1, 1, 0], [1, 0, 0, 1]), "line 1: the labels .* repeat an id.* 3 entries, and the vector of another row 4"),
        (([1, 0, 3], [1, -2]), "line 2: label -2; ids range from 0 to 3"),
        (([0], [2]), "no row has label 1"),
    ],
)
def test_label_sets_that_are_refused(tmp_path, labels, message):
    with pytest.raises(InputError, match=message):
        read_rows(json_file(tmp_path, *labels), task=MULTI_LABEL)


def test_unknown_labels_and_vectors_of_wrong_length(tmp_path):
    with pytest.raises(InputError, match=r"line 2: label 'd' is not one of a, b"):
        read_rows(json_file(tmp_path, ["a"], ["d"]), task=MULTI_LABEL, label_names=("a", "b"))
    with pytest.raises(InputError, match=r"line 1: label 3; ids range from 0 to 1 \(a, b\)"):
        read_rows(json_file(tmp_path, [1, 3, 0], [1]), task=MULTI_LABEL, label_names=("a", "b"))
    with pytest.raises(InputError, match=r"line 1: the labels .* repeat an id.* it has 3 entries: all vectors"):
        read_rows(json_file(tmp_path, [1, 1, 0], [0, 0, 1]), task=MULTI_LABEL, label_names=("a", "b"))
    with pytest.raises(InputError, match="line 3: '2' in the label column 'b'"):
        read_rows(csv_file(tmp_path, "text,a,b", "x,1,0", "x,1,2"), task=MULTI_LABEL, label_column="a,b")
    with pytest.raises(InputError, match=r"line 2: no value in the label column 'a'"):
        read_rows(csv_file(tmp_path, "text,a,b", "x,,0"), task=MULTI_LABEL, label_column="a,b")
    with pytest.raises(ConfigError, match="'toxic'"):
        read_rows(csv_file(tmp_path, "text,a,b", "x,1,0"), task=MULTI_LABEL, label_column="a,toxic")
    with pytest.raises(ConfigError, match="only multi-label"):
        read_rows(csv_file(tmp_path, "text,a,b", "x,1,0"), label_column=["a", "b"])


def test_regression_targets(tmp_path):
    assert read_rows(csv_file(tmp_path, "text,label", "x,1", "y,-2.5e1"), task=REGRESSION).labels == [1.0, -25.0]
    rows = read_rows(json_file(tmp_path, 0.5, 3), task=REGRESSION)
    assert rows.labels == [0.5, 3.0] and rows.label_names is None
    for wrong in (None, "high", True, [1.0], "nan", float("inf")):
        with pytest.raises(InputError, match=r"line 2: .*not a finite number") as found:
            read_rows(json_file(tmp_path, 1.0, wrong), task=REGRESSION)
        assert found.value.rows == (1,)


def test_labels_of_another_task_name_the_option(tmp_path):
    with pytest.raises(InputError, match="--task multi-label"):
        read_rows(json_file(tmp_path, ["a"], ["b"]))
    with pytest.raises(InputError, match="--task regression"):
        read_rows(json_file(tmp_path, 0.5, 1.25))
