"""Parquet files are read like other files of rows."""

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from itrex_sweet.data import read_rows, read_text_rows
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION

TEXTS = ["good soup", "bad phone", "a slow room", "fine"]


def written(folder, features=None, **columns):
    path = folder / "rows.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    return path


def test_label_names_are_those_of_the_file(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    path = written(tmp_path, features, text=TEXTS, label=[1, 0, 1, 1])
    (tmp_path / "info.json").write_text('{"labels": ["other", "names"]}')
    rows = read_rows(path, label_names=("yes", "no"))
    assert rows.texts == TEXTS and rows.labels == [0, 1, 0, 0]
    assert read_rows(str(path), limit=2).texts == TEXTS[:2]
    rows = read_rows(written(tmp_path, text=TEXTS, label=[1, 0, 1, 1]), label_names=("names", "other"))
    assert rows.labels == [0, 1, 0, 0], "without names of its own, those beside the file"


def test_sets_of_labels_and_values(tmp_path):
    path = written(tmp_path, sentence=TEXTS, label=[["b"], ["a", "b"], [], ["a"]])
    assert read_rows(path, task=MULTI_LABEL).labels == [[0, 1], [1, 1], [0, 0], [1, 0]]
    path = written(tmp_path, text=TEXTS, label=[0.5, 1.0, -2.0, 3.0])
    assert read_rows(path, task=REGRESSION).labels == [0.5, 1.0, -2.0, 3.0]
    path = written(tmp_path, text=TEXTS, a=[1, 0, 0, 1], b=[0, 0, 1, 1])
    assert read_rows(path, label_column="a,b", task=MULTI_LABEL).labels == [[1, 0], [0, 0], [0, 1], [1, 1]]


def test_texts_and_errors(tmp_path):
    path = written(tmp_path, text=[*TEXTS, None], label=[0] * 5)
    rows = list(read_text_rows(path))
    assert [row.text for row in rows[:4]] == TEXTS and rows[4].text is None and "row 4" in rows[4].problem
    with pytest.raises(InputError, match=r"rows\.parquet, row 4"):
        read_rows(path)
    with pytest.raises(ConfigError, match="content"):
        read_rows(path, text_column="content")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as a Parquet file"):
        read_rows(path)
    with pytest.raises(InputError, match="no such file"):
        read_rows(tmp_path / "absent.parquet")
    path.rename(tmp_path / "rows.csv")
    with pytest.raises(InputError, match=r"name it \.parquet"):
        read_rows(tmp_path / "rows.csv")


def not_utf8(count: int) -> pa.Array:
    """Returns strings of which the second is not UTF-8."""
    texts = [text.encode() for text in TEXTS]
    values = pa.array([texts[0], b"caf\xe9", *texts[2:]][:count], type=pa.binary())
    return pa.Array.from_buffers(pa.string(), count, values.buffers())


@pytest.mark.parametrize("kind", ["plain", "large"])
def test_values_that_python_lacks_do_not_end_the_reading(tmp_path, kind):
    texts = not_utf8(4)
    if kind == "large":
        texts = pa.Array.from_buffers(pa.large_binary(), 4, texts.cast(pa.large_binary()).buffers())
        texts = pa.Array.from_buffers(pa.large_string(), 4, texts.buffers())
    dates = pa.array([0, 2**31 - 1, -(2**31), None], type=pa.int32()).cast(pa.date32())
    parquet.write_table(pa.table({"text": texts, "id": dates}), tmp_path / "rows.parquet")
    rows = list(read_text_rows(tmp_path / "rows.parquet"))
    assert [row.text for row in rows] == [TEXTS[0], None, *TEXTS[2:]]
    assert "not valid UTF-8" in rows[1].problem
