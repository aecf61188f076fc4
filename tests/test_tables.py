"""Tests of CSV, TSV, JSON and text files, as other programs write them and damaged ones."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.data import read_rows, read_texts
from itrex_sweet.data.lines import as_text
from itrex_sweet.errors import ConfigError, InputError, SweetError

# Texts of all that quoting is about; a lone `\r` is no line end to the writers that do not quote it.
TEXTS = st.text(
    st.sampled_from([*"ab1é ", ",", ";", "\t", '"', "\n", "\u2028", "\x0c", "\x85", "'"]), min_size=1, max_size=12
).filter(str.strip)
COLUMNS = st.lists(TEXTS, min_size=1, max_size=5)


def texts_of(content: str | bytes, format: str) -> list[str | None]:
    """Returns the texts of a stream, read as a file is, with `None` for an invalid row."""
    raw = content.encode() if isinstance(content, str) else content
    return [text for text, _ in read_texts(as_text(io.BytesIO(raw), "d"), format)]


def problems_of(content: str, format: str) -> list[str]:
    return [problem for _, problem in read_texts(io.StringIO(content), format) if problem]


def written(texts, separator, quoting=csv.QUOTE_MINIMAL, end="\n") -> str:
    """Writes a table as `csv.writer` and pandas do: an index, the text, a word."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerow(["", "text", "word"])
    writer.writerows([[place, text, "yes"] for place, text in enumerate(texts)])
    return stream.getvalue()


@given(
    COLUMNS, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]), st.sampled_from(["\n", "\r\n"])
)
@settings(max_examples=150, deadline=None)
def test_round_trip_of_tables(texts, quoting, end):
    for format, separator in (("csv", ","), ("tsv", "\t")):
        assert texts_of(written(texts, separator, quoting, end), format) == texts


@given(COLUMNS)
@settings(max_examples=60, deadline=None)
def test_round_trip_of_a_single_column(texts):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["text"], *([text] for text in texts)])
    assert texts_of(stream.getvalue(), "csv") == texts


def test_files_written_by_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    texts = ['say "no"', "tab\tinside", "two\nlines", '"', 'a "b" c', "plain", '"whole"']
    frame = pandas.DataFrame({"text": texts, "label": [0, 1] * 3 + [0]})
    for name, separator in (("d.csv", ","), ("d.tsv", "\t")):
        frame.to_csv(tmp_path / name, sep=separator, index=False)
        assert read_rows(tmp_path / name).texts == texts
    for lines in (True, False):
        frame.to_json(tmp_path / "d.json", orient="records", lines=lines)
        assert read_rows(tmp_path / "d.json").texts == texts
    frame.to_json(tmp_path / "d.json")  # by columns
    with pytest.raises(InputError, match="column 'text' holds dict, not a text; write one object per text"):
        read_rows(tmp_path / "d.json")


# Sentences as corpora have them: marks pair up within a sentence, or do not, and are never doubled.
BARE = st.text(st.sampled_from([*"ab, ", '"']), min_size=1, max_size=8).filter(
    lambda text: text.strip() and '""' not in text
)


@given(st.lists(BARE, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_bare_quotation_marks_are_kept(texts):
    content = "sentence\tlabel\n" + "".join(f"{text}\t{place % 2}\n" for place, text in enumerate(texts))
    assert texts_of(content, "tsv") == texts


@given(st.lists(TEXTS.filter(lambda text: "\n" not in text), min_size=1, max_size=6), st.data())
@settings(max_examples=100, deadline=None)
def test_line_ends(texts, data):
    ends = data.draw(st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=len(texts), max_size=len(texts)))
    content = "".join(text + end for text, end in zip(texts, ends, strict=True))
    assert texts_of("\ufeff" + content, "text") == texts
    assert [text for text, _ in read_texts(io.StringIO("\ufeff" + content, newline=""), "text")] == texts
    records = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    assert texts_of("".join(map(str.__add__, records, ends)), "jsonl") == texts
    assert texts_of("\ufefftext\r" + "".join(f"w{place}" + end for place, end in enumerate(ends)), "csv") == [
        f"w{place}" for place in range(len(ends))
    ]


@given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from([None, 0, 2]), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_json_lines_and_documents(texts, indent, wrapped, plain):
    document = texts if plain else [{"text": text} for text in texts]
    content = json.dumps({"data": document} if wrapped else document, indent=indent)
    assert texts_of(content, "jsonl") == texts


@given(
    st.text(st.sampled_from('ab01,;\t"\n\r\\{}[]: \0\ufeff\ud800'), max_size=40),
    st.sampled_from(["text", "csv", "tsv", "jsonl"]),
)
@settings(max_examples=400, deadline=None)
def test_any_content_is_read_or_raises_an_input_error(content, format):
    for start in ("", "text\n", "text,label\n", "text\tlabel\n", '{"text": "a"}\n', "[", '{"data": ['):
        try:
            rows = list(read_texts(io.StringIO(start + content), format))
        except SweetError:
            continue
        assert all((text is None) == (problem is not None) for text, problem in rows)


LONG = "x" * 200_000


@pytest.mark.parametrize("content", [f"text,label\n{LONG},1\nb,0\n", f'text,label\n"{LONG}\n{LONG}",1\nb,0\n'])
def test_long_fields(content):
    before = csv.field_size_limit()
    first, second = texts_of(content, "csv")
    assert first.replace(LONG, "") in ("", "\n") and second == "b"
    assert csv.field_size_limit() == before


LINES = "\n".join(f"line {place}" for place in range(300))


@pytest.mark.parametrize("bad", ['"He said "no"', '"He said "no" and', '"a\nb "no", he said', '"a\nb\n"no" he said'])
@pytest.mark.parametrize(("header", "rest"), [("text,label", ",1"), ("text", ""), ("label,text", "")])
def test_quotation_mark_in_a_multiline_field_is_one_error(header, rest, bad):
    before = "1," if header == "label,text" else ""
    content = f'{header}\n{before}first{rest}\n{before}{bad}\n{LINES}"{rest}\n{before}last{rest}\n'
    assert texts_of(content, "csv") == ["first", None, "last"]
    (problem,) = problems_of(content, "csv")
    assert "line 3: a quotation mark inside a field that opens here is not doubled" in problem


ROWS = "".join(f"word{place},{place % 2}\n" for place in range(300))


@pytest.mark.parametrize("before", ["", "first,1\n"])
@pytest.mark.parametrize("end", ["", '"quoted, fine",1\n', 'a screen of 5",1\n', '"quoted ""too""",1\n'])
def test_stray_quotation_mark_affects_its_line_only(before, end):
    content = f'text,label\n{before}"stray,1\n{ROWS}{end}last,0\n'
    texts = texts_of(content, "csv")
    assert texts.count(None) == 1 and texts.index(None) == bool(before) and texts[-1] == "last"
    assert len(texts) == bool(before) + 1 + 300 + bool(end) + 1
    assert f"line {2 + bool(before)}: " in problems_of(content, "csv")[0]


def test_error_about_a_stray_quotation_mark_names_its_line():
    content = 'text\nfirst\n"stray\n' + "word\n" * 300
    assert texts_of(content, "csv") == ["first", None]
    assert "line 3: unexpected end of data: the quotation mark that opens here" in problems_of(content, "csv")[0]


@pytest.mark.parametrize(
    ("content", "format", "expected"),
    [
        ('text\tlabel\n"open\t1\nclose"\t0\n', "tsv", ['"open', 'close"']),  # each line alone is a row
        ('text\tlabel\n"a ""b""\tc"\t0\n"two\nlines"\t1\n', "tsv", ['a "b"\tc', "two\nlines"]),
        ('"text"\t"label"\n"a b"\t"1"\n', "tsv", ["a b"]),
        ('text\tlabel\n"whole sentence ."\t1\n', "tsv", ['"whole sentence ."']),
        ("text,label,,\na,1,,\n", "csv", ["a"]),  # columns without a name, from a spreadsheet
        (" Text , label \na,1\n", "csv", ["a"]),
        ("\n\ntext,label\n\na,1\n\n", "csv", ["a"]),
        ('text,label\n"a, ""b""\nc",1\n', "csv", ['a, "b"\nc']),
        ("a\u2028b\x0cc\x85d\x1ce\n", "text", ["a\u2028b\x0cc\x85d\x1ce"]),
        ('{"text": "a",\n{"text": "b"}\n', "jsonl", [None, "b"]),  # a broken first line begins no document
        ('{"text": "a"}\n{"text": "b", "text": "c"}\n', "jsonl", ["a", None]),
        ('{"text": "a"}\n{"text": "b", "text_pair": "c"}\n', "jsonl", ["a", ("b", "c")]),
        ('{"other": "a"}\n{"text": "b"}\n', "jsonl", [None, "b"]),
        ('[\n{"text": "a"},\n7,\n{"text": "b"}\n]', "jsonl", ["a", None, "b"]),
        ('[{"text": "a"}\n{"text": "b"}]', "jsonl", ["a", None]),
        ('[{"text": "a"},\n{"text": ', "jsonl", ["a", None]),
        ('{\n"text": "a"\n}\n{\n"text": "b"\n}', "jsonl", ["a", "b"]),
        ("a\0b\nc\n", "text", [None, "c"]),
        ("text,label\na\0b,1\nc,1\n", "csv", [None, "c"]),
    ],
)
def test_accepted_files(content, format, expected):
    assert texts_of(content, format) == expected


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        ("text;label\na;1\n", "d.csv", "line 1: the header 'text;label' holds semicolons and no commas"),
        ("text\tlabel\na\t1\n", "d.csv", "holds tabs and no commas.*as TSV"),
        ("text,label\na,1\n", "d.tsv", "holds commas and no tabs.*as CSV"),
        ("sep=;\ntext;label\na;1\n", "d.csv", "holds semicolons"),
        ('text,"label\na,1\n', "d.csv", "line 1: .*in the header"),
        ("text\na\n".encode("utf-16"), "d.csv", "is UTF-16; save it as UTF-8"),
        ("text\na\n".encode("utf-16-le"), "d.csv", "line 1: a NUL character in the header"),
        (b"\x1f\x8b\x08", "d.csv", "is compressed with gzip"),
        (b"PK\x03\x04...", "d.csv", "a spreadsheet"),
        ('[{"text": "a"}, {"text": "b"}, ', "d.json", "is incomplete"),
        ('{"text": ["a", "b"]}', "d.json", "holds list, not a text; write one object per text"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "d.json", "line 1: not a JSON object"),
        ("[" * 50_000, "d.json", "line 1: not JSON .nested too deeply"),
        ('{"a":' * 50_000, "d.jsonl", "line 1: not a JSON object .nested too deeply"),
        ('{"text": "a"}\n{"text": "b", "label": 1}\n', "d.jsonl", "line 1: no label"),
        (
            '{"text": "a"}\n{"text": "b", "text_pair": "c"}\n',
            "d.jsonl",
            "line 2: pairs of texts and single texts are mixed",
        ),
        ('text,label\na,1\n"b\nc,1\n', "d.csv", "line 3: unexpected end of data"),
    ],
)
def test_rejected_files(tmp_path, content, name, problem):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=problem):
        read_rows(tmp_path / name)


def test_warning_about_a_missing_header(tmp_path):
    (tmp_path / "d.csv").write_text("the room was good,1\nbad,0\n")
    with pytest.raises(ConfigError, match=r"the room was good, 1.*first line of a table is its header"):
        read_rows(tmp_path / "d.csv")


def test_lower_case_column_has_precedence(tmp_path):
    (tmp_path / "d.csv").write_text("Text,text,Label,label\na,b,0,1\n")
    rows = read_rows(tmp_path / "d.csv")
    assert rows.texts == ["b"] and rows.labels == [1]


def test_limit_of_line_length(monkeypatch):
    from itrex_sweet.data import lines

    monkeypatch.setattr(lines, "MAX_LINE", 100)
    rows = read_texts(as_text(io.BytesIO(b"a\n" + b"x" * 1000), "d"), "text")
    assert next(rows) == ("a", None)
    with pytest.raises(InputError, match="line 2: longer than 100 characters"):
        next(rows)
