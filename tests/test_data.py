"""Tests of reading texts and labels: formats, columns, and errors that name file and line."""

import gzip
import io
import json
from pathlib import Path

import pytest

from itrex_sweet.data import read_rows, read_texts
from itrex_sweet.errors import ConfigError, InputError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def write(path: Path, content: str, zipped: bool = False) -> Path:
    path.write_bytes(gzip.compress(content.encode()) if zipped else content.encode())
    return path


def jsonl(*records: dict) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


ROWS = [{"text": 'good, "really"', "label": "yes"}, {"text": "bad\nin two lines", "label": "no"}]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "ndjson"])
def test_formats_give_the_same_rows(tmp_path, suffix, zipped):
    content = 'text,label\r\n"good, ""really""",yes\r\n"bad\nin two lines",no\r\n'
    if suffix != "csv":
        content = jsonl(*ROWS)
    rows = read_rows(write(tmp_path / f"d.{suffix}{'.gz' * zipped}", content, zipped))
    assert rows.texts == [row["text"] for row in ROWS]
    assert rows.label_names == ("no", "yes") and rows.labels == [1, 0]
    assert rows.num_labels == 2 and len(rows) == 2


def test_tsv_keeps_bare_quotation_marks(tmp_path):
    rows = read_rows(write(tmp_path / "d.tsv", 'sentence\tlabel\nsay "no\t0\n"yes\t1\n'))
    assert rows.texts == ['say "no', '"yes'] and rows.labels == [0, 1]


def test_text_file(tmp_path):
    path = write(tmp_path / "d.txt", "\ufeffone, two\r\nthree\n")
    assert read_rows(path).texts == ["one, two", "three"]
    assert read_rows(path).labels is None
    with pytest.raises(ConfigError, match="no column 'label'"):
        read_rows(path, require_labels=True)


@pytest.mark.parametrize(
    "columns",
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence"), ("Text", "Text_Pair")],
)
def test_usual_names_of_pair_columns(tmp_path, columns):
    path = write(tmp_path / "d.jsonl", jsonl({columns[0]: "a", "other": 1, columns[1]: "b", "label": 1}))
    assert read_rows(path).texts == [("a", "b")]


def test_named_columns_have_precedence(tmp_path):
    path = write(tmp_path / "d.csv", "text,body,title,score\na,b,c,1\n")
    assert read_rows(path, text_column="body").texts == ["b"]
    rows = read_rows(path, text_column="title", pair_column="body", label_column="score")
    assert rows.texts == [("c", "b")] and rows.labels == [1]


def test_missing_columns(tmp_path):
    path = write(tmp_path / "d.csv", "body,stars\nb,1\n")
    with pytest.raises(ConfigError, match=r"It has: body, stars\. .*--text-column"):
        read_rows(path)
    with pytest.raises(ConfigError, match=r"no column 'review'; it has: body, stars"):
        read_rows(path, text_column="review")
    with pytest.raises(ConfigError, match=r"no column 'rank'; it has: body, stars.*--label-column"):
        read_rows(path, text_column="body", label_column="rank")
    with pytest.raises(ConfigError, match="needs text_column"):
        read_rows(path, pair_column="body")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("d.jsonl", '{"text": "a"}\n\n{"text": \n', r"d\.jsonl, line 3: not a JSON object"),
        ("d.jsonl", '{"text": "a"}\n["b"]\n', r"line 2: a JSON list, not an object"),
        ("d.jsonl", '{"text": "a"}\n{"txt": "b"}\n', r"line 2: no value in column 'text'"),
        ("d.jsonl", '{"text": "a"}\n{"text": 7}\n', r"line 2: column 'text' holds int"),
        ("d.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n', r"line 2: not valid UTF-8"),
        ("d.csv", "text,label\na,0\n,1\n", r"line 3: the text in column 'text' is empty"),
        ("d.csv", "text,label\na,0\nb,1,2\n", r"line 3: 3 fields, and the header has 2"),
        ("d.csv", 'text,label\na,0\n"b,1\n', r"line 3: unexpected end of data"),
        ("d.csv", "text,text\na,0\n", r"column names repeat"),
        ("d.csv", "text,label\na,\n", r"line 2: no label"),
        ("d.csv", "text,label\na,-1\n", r"line 2: label -1"),
        ("d.csv", "text,label\n", r"has no rows"),
        ("d.txt", "a\n\nb\n", r"line 2: the text is empty"),
        ("d.txt", "", r"has no rows"),
    ],
)
def test_malformed_rows(tmp_path, name, content, problem):
    with pytest.raises(InputError, match=problem):
        read_rows(write(tmp_path / name, content))


def test_invalid_utf8_affects_its_line_only(tmp_path):
    path = tmp_path / "d.txt"
    path.write_bytes(b"good\nb\xe4d\nfine\n")
    with pytest.raises(InputError, match=r"line 2: not valid UTF-8"):
        read_rows(path)
    assert [text for text, _ in read_texts(path)] == ["good", None, "fine"]


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        read_rows(tmp_path / "absent.csv")
    path = write(tmp_path / "d.jsonl.gz", jsonl(*ROWS) * 500, zipped=True)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"d\.jsonl\.gz cannot be read"):
        read_rows(path)
    with pytest.raises(InputError, match=r"cannot be read"):
        read_rows(write(tmp_path / "plain.csv.gz", "text\na\n"))


@pytest.mark.parametrize(
    ("raw", "names", "expected", "found"),
    [
        ([0, 2, 1], None, [0, 2, 1], None),
        (["0", "1.0", "1"], None, [0, 1, 1], None),
        ([True, False], None, [1, 0], None),
        (["pos", "neg"], None, [1, 0], ("neg", "pos")),
        (["pos", "neg"], ("pos", "neg"), [0, 1], ("pos", "neg")),
        (["10", "9"], ("9", "10"), [1, 0], ("9", "10")),  # names that look like numbers are names
        ([1, 0], ("neg", "pos"), [1, 0], ("neg", "pos")),
        (["a", 1], None, [1, 0], ("1", "a")),
    ],
)
def test_label_ids(tmp_path, raw, names, expected, found):
    path = write(tmp_path / "d.jsonl", jsonl(*({"text": "t", "label": label} for label in raw)))
    rows = read_rows(path, label_names=names)
    assert rows.labels == expected and rows.label_names == found


def test_unknown_labels(tmp_path):
    path = write(tmp_path / "d.jsonl", jsonl({"text": "a", "label": "pos"}, {"text": "b", "label": "odd"}))
    with pytest.raises(InputError, match=r"line 2: label 'odd' is not one of neg, pos") as caught:
        read_rows(path, label_names=("neg", "pos"))
    assert caught.value.rows == (1,)
    path = write(tmp_path / "e.jsonl", jsonl({"text": "a", "label": 2}))
    with pytest.raises(InputError, match=r"line 1: label 2; labels range from 0 to 1"):
        read_rows(path, label_names=("neg", "pos"))


def test_limit(tmp_path):
    path = write(tmp_path / "d.jsonl", jsonl({"text": "a"}, {"text": "b"}) + "broken\n")
    assert read_rows(path, limit=2).texts == ["a", "b"]
    with pytest.raises(ConfigError, match="limit=0"):
        read_rows(path, limit=0)


def test_label_names_from_info_json(tmp_path):
    (tmp_path / "info.json").write_text(json.dumps({"labels": ["negative", "positive"]}))
    path = write(tmp_path / "d.jsonl", jsonl({"text": "a", "label": 1}))
    assert read_rows(path).label_names == ("negative", "positive")


def test_reading_continues_after_an_invalid_row():
    stream = io.StringIO('{"text": "a"}\nbroken\n{"text": ""}\n{"text": "b"}\n')
    read = list(read_texts(stream, "jsonl"))
    assert [text for text, _ in read] == ["a", None, None, "b"]
    assert [problem is None for _, problem in read] == [True, False, False, True]


def test_texts_are_yielded_as_they_arrive():
    def lines():
        yield "first\n"
        raise AssertionError("read ahead")

    assert next(read_texts(lines())) == ("first", None)


def test_saved_datasets_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    part = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=features)
    datasets.DatasetDict(train=part, validation=part.select([0])).save_to_disk(tmp_path / "set")
    rows = read_rows(tmp_path / "set", "train")
    assert rows.texts == ["a", "b"] and rows.labels == [1, 0] and rows.label_names == ("no", "yes")
    assert read_rows(tmp_path / "set", "train", limit=1).texts == ["a"]
    slices = {"train[1:2]": ["b"], "train[:1]": ["a"], "train[1:]": ["b"], "train[0:9]": ["a", "b"]}
    for slice_, texts in slices.items():
        assert read_rows(tmp_path / "set", slice_).texts == texts
    with pytest.raises(InputError, match="no rows"):
        read_rows(tmp_path / "set", "train[5:9]")
    with pytest.raises(ConfigError, match="no split 'test'"):
        read_rows(tmp_path / "set", "test[:1]")
    with pytest.raises(ConfigError, match="several splits; choose one of train, validation"):
        read_rows(tmp_path / "set")
    with pytest.raises(ConfigError, match="no split 'test'"):
        read_rows(tmp_path / "set", "test")


def test_unknown_data_set(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def absent(*_args, **_options):
        raise FileNotFoundError("not on the hub\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    with pytest.raises(InputError, match=r"nobody/nothing is not a file .*: not on the hub$"):
        read_rows("nobody/nothing", "train")


@pytest.mark.data
@pytest.mark.parametrize("task", ["sst2", "cola", "rte", "qnli", "mnli", "ag_news"])
def test_the_research_data_is_readable(task):
    folder = SHARED / task
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the research data lies beside the checkout, in ../shared/data")
    info = json.loads((folder / "info.json").read_text())
    rows = read_rows(folder / "validation.jsonl.gz", require_labels=True)
    assert len(rows) == info["splits"]["validation"]["rows"]
    assert rows.label_names == tuple(info["labels"])
    assert [rows.labels.count(label) for label in range(rows.num_labels)] == info["splits"]["validation"]["labels"]
    assert all(isinstance(text, tuple) == ("sentence2" in info["columns"]) for text in rows.texts)


@pytest.mark.parametrize("suffix", ["csv", "txt", "jsonl"])
def test_a_few_rows_without_a_text_are_skipped_on_request(tmp_path, caplog, suffix):
    texts = [f"text {number}" for number in range(10)]
    texts[3:3] = [""]
    content = "\n".join([*(["text"] if suffix == "csv" else []), *(f'"{t}"' if suffix == "csv" else t for t in texts)])
    if suffix == "jsonl":
        content = jsonl(*({"text": text} for text in texts))
    path = write(tmp_path / f"d.{suffix}", content)
    with pytest.raises(InputError, match=f"line {5 if suffix == 'csv' else 4}"):
        read_rows(path)
    rows = read_rows(path, skip_invalid=True)
    assert rows.texts == [text for text in texts if text] and rows.labels is None
    assert "skipped 1 row without a text. The first is" in caplog.text
    path = write(tmp_path / f"bad.{suffix}", content.replace("text 1", " ").replace("text 2", " "))
    with pytest.raises(InputError, match="3 of 11 rows have no text that can be read"):
        read_rows(path, skip_invalid=True)


def test_a_folder_that_is_no_data_set_is_an_input_error(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    (tmp_path / "b.csv").write_text("other\nc\n")
    with pytest.raises(InputError, match="cannot be loaded as a data set: An error occurred"):
        read_rows(str(tmp_path))
