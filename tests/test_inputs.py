"""Tests of the types of input texts: ordered collections of texts are accepted, other types raise."""

import array
import collections
import contextlib
import itertools

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import InputError, SweetError
from itrex_sweet.policy import Policy
from itrex_sweet.tokenization.inputs import listed, text_or_reason
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer

TEXTS = ["the soup was good", "never again", "awful"]
PAIRS = [("the soup", "good"), ("never", "again"), ("a room", "awful")]
STRINGS = getattr(np.dtypes, "StringDType", None)  # of NumPy 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact")
    tiny_artifact(path, tokenizer=tiny_tokenizer(), policy=Policy((0.5, 0.6), (1.5, 2.0, 0.7)))
    return SweetModelForSequenceClassification.from_pretrained(path)


class Iterated:
    """An object that can only be iterated, such as a column of a stream."""

    def __iter__(self):
        return iter(TEXTS)


class PolarsLike:
    """Has the methods of a column of a library that is not installed."""

    def to_list(self):
        return list(TEXTS)


FORMS = {
    "list": lambda: TEXTS,
    "tuple": lambda: tuple(TEXTS),
    "deque": lambda: collections.deque(TEXTS),
    "generator": lambda: (text for text in TEXTS),
    "map": lambda: map(str, TEXTS),
    "values of a dict": lambda: dict(enumerate(TEXTS)).values(),
    "keys of a dict": lambda: dict.fromkeys(TEXTS).keys(),
    "iterable": Iterated,
    "polars": PolarsLike,
    "pandas": lambda: pd.Series(TEXTS),
    "pandas with an index": lambda: pd.Series(TEXTS, index=[9, 9, -1], name="text"),
    "pandas with names as index": lambda: pd.Series(TEXTS, index=["columns", "column_names", "tolist"]),
    "pandas of objects": lambda: pd.Series(TEXTS, dtype=object),
    "pandas of strings": lambda: pd.Series(TEXTS, dtype="string"),
    "pandas of categories": lambda: pd.Series(TEXTS, dtype="category"),
    "pandas of arrow": lambda: pd.Series(TEXTS, dtype=pd.ArrowDtype(pa.string())),
    "values of pandas": lambda: pd.Series(TEXTS).values,
    "index of pandas": lambda: pd.Index(TEXTS),
    "a column of a frame": lambda: pd.DataFrame({"text": TEXTS})["text"],
    "datasets": lambda: datasets.Dataset.from_dict({"text": TEXTS})["text"],
    "a stream of datasets": lambda: datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()["text"],
    "arrow": lambda: pa.array(TEXTS),
    "large arrow": lambda: pa.array(TEXTS, pa.large_string()),
    "arrow dictionary": lambda: pa.array(TEXTS).dictionary_encode(),
    "arrow chunks": lambda: pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "numpy": lambda: np.array(TEXTS),
    "numpy objects": lambda: np.array(TEXTS, dtype=object),
    "numpy strings": lambda: list(np.array(TEXTS)),
    "dicts": lambda: [{"text": text} for text in TEXTS],
    "dicts with no pair": lambda: [{"text": text, "text_pair": None} for text in TEXTS],
}
if STRINGS is not None:
    FORMS["numpy 2 strings"] = lambda: np.array(TEXTS, dtype=STRINGS())

PAIR_FORMS = {
    "tuples": lambda: PAIRS,
    "lists": lambda: list(map(list, PAIRS)),
    "dicts": lambda: [{"text": first, "text_pair": second} for first, second in PAIRS],
    "zip": lambda: zip(*zip(*PAIRS, strict=True), strict=True),
    "arrays": lambda: list(np.array(PAIRS)),
    "array": lambda: np.array(PAIRS),
    "array of objects": lambda: np.array(PAIRS, dtype=object),
    "pandas": lambda: pd.Series(PAIRS),
    "rows of a frame": lambda: pd.DataFrame(PAIRS).itertuples(index=False),
    "values of a frame": lambda: pd.DataFrame(PAIRS).values,
    "arrow": lambda: pa.array([{"text": first, "text_pair": second} for first, second in PAIRS]),
    "datasets": lambda: list(
        datasets.Dataset.from_dict(dict(zip(("text", "text_pair"), zip(*PAIRS, strict=True), strict=True)))
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_types_of_texts(model, form):
    if form == "a stream of datasets" and not hasattr(datasets, "IterableColumn"):
        pytest.skip("this version of datasets has no such columns")
    expected = model.predict(TEXTS)
    assert model.predict(FORMS[form]()) == expected
    assert [row.tolist() for row in model.read(FORMS[form]()).rows()] == [
        row.tolist() for row in model.read(TEXTS).rows()
    ]


@pytest.mark.parametrize("form", PAIR_FORMS)
def test_types_of_pairs(model, form):
    assert model.predict(PAIR_FORMS[form]()) == model.predict(PAIRS)


TABLE = {"label": [0, 1], "text": ["good", "bad"]}
REFUSED = {
    "one text": (lambda: "good", r"predict\(\[text\]\)"),
    "one text of numpy": (lambda: np.str_("good"), "takes a list"),
    "bytes": (lambda: b"good", "decode"),
    "bytearray": (lambda: bytearray(b"good"), "decode"),
    "memory": (lambda: memoryview(b"good"), "decode"),
    "frame": (lambda: pd.DataFrame(TABLE), r"pandas DataFrame is a table.*table\['text'\].*label, text"),
    "frame of one column": (lambda: pd.DataFrame({"review": ["a"]}), r"\['review'\]"),
    "empty frame": (lambda: pd.DataFrame(), "is a table"),
    "dict": (lambda: TABLE, r"dict is a table.*table\['text'\]"),
    "one row": (lambda: {"text": "good", "text_pair": "bad"}, r"one row; predict\(\[row\]\)"),
    "empty dict": (lambda: {}, "is a table"),
    "what a tokenizer returns": (lambda: tiny_tokenizer()(["good"]), r"model\(\*\*encoded\)"),
    "dataset": (lambda: datasets.Dataset.from_dict(TABLE), r"is a table.*table\['text'\]"),
    "datasets": (lambda: datasets.DatasetDict(train=datasets.Dataset.from_dict(TABLE)), "is a table.*train"),
    "stream": (lambda: datasets.Dataset.from_dict(TABLE).to_iterable_dataset(), "is a table"),
    "arrow table": (lambda: pa.table(TABLE), r"is a table.*label, text"),
    "arrow batch": (lambda: pa.record_batch(TABLE), "is a table"),
    "set": (lambda: {"good", "bad"}, "no order"),
    "frozen set": (lambda: frozenset(("good", "bad")), "no order"),
    "numbers": (lambda: np.array([1, 2]), r"int64.*model\(input_ids"),
    "numbers in rows": (lambda: np.array([[1, 2], [3, 4]]), r"int64.*model\(input_ids"),
    "bytes of numpy": (lambda: np.array([b"good"]), "decode"),
    "no dimension": (lambda: np.array("good"), r"shape \(rows,\)"),
    "triples": (lambda: np.array([["a", "b", "c"]]), r"not \(1, 3\)"),
    "a column of one": (lambda: np.array([["a"], ["b"]]), r"not \(2, 1\)"),
    "cubes": (lambda: np.array([[["a", "b"]]]), r"not \(1, 1, 2\)"),
    "tensor": (lambda: torch.tensor([[2, 5, 3]]), r"torch Tensor; token ids go to model\(input_ids"),
    "none": (lambda: None, "not NoneType"),
    "a number": (lambda: 3, "not int"),
    "a function": (lambda: len, "not builtin_function"),
}


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("method", ["predict", "read"])
def test_invalid_types_of_texts(model, monkeypatch, form, method):
    monkeypatch.setattr(model.executor, "run", lambda *_: pytest.fail("computed"))
    make, message = REFUSED[form]
    with pytest.raises(InputError, match=message):
        getattr(model, method)(make())
    if method == "predict":
        with pytest.raises(InputError, match=message):
            model.predict(make(), errors="mark")  # there are no rows to mark


BAD_ROWS = {
    "none": None,
    "nan": float("nan"),
    "numpy nan": np.float64("nan"),
    "missing in pandas": pd.NA,
    "not a time": pd.NaT,
    "int": 7,
    "bool": True,
    "empty": "",
    "blank": " \t\n\u2003",
    "bytes": b"good",
    "surrogate": "bad \ud83d",
    "lone low surrogate": "\udc00",
    "surrogate from the file system": b"caf\xe9".decode("utf-8", "surrogateescape"),
    "pair with a surrogate": ("good", "bad \udfff"),
    "pair that begins with one": ("\ud800", "good"),
    "dict with a surrogate": {"text": "\ud83d"},
    "pair with an empty part": ("good", ""),
    "pair with none": ("good", None),
    "pair with nan": ["good", float("nan")],
    "pair with bytes": ("good", b"bad"),
    "one": ["good"],
    "three": ("a", "b", "c"),
    "nothing": [],
    "nested": [["good", "bad"]],
    "dict of columns": {"label": 1, "text": "good"},
    "empty dict": {},
    "dict without text": {"text_pair": "good"},
    "dict of a number": {"text": 3},
    "set": {"good", "bad"},
    "array": np.array([["good", "bad"]]),
    "numbers": np.array([1, 2]),
    "object": object(),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_invalid_row_alone_and_among_others(model, kind):
    bad = BAD_ROWS[kind]
    good = model.predict(["good", ("a", "room"), "fine"])
    marked = model.predict(["good", bad, ("a", "room"), bad, "fine"], errors="mark")
    assert [marked[place] for place in (0, 2, 4)] == good
    for place in (1, 3):
        assert marked[place]["label"] is None and marked[place]["error"]
    assert [set(row) for row in model.predict([bad], errors="mark")] == [set(marked[1])]
    with pytest.raises(InputError, match=r"2 of 5 texts cannot be read: row 1: ") as caught:
        model.predict(["good", bad, ("a", "room"), bad, "fine"])
    assert caught.value.rows == (1, 3)
    with pytest.raises(InputError) as caught:
        model.read(["good", bad, "fine"])
    assert caught.value.rows == (1,)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters())  # surrogates included
    | st.binary()
    | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["text", "text_pair", "label"]), inner)
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(anything, max_size=6))
def test_every_row_is_answered_or_marked(model, rows):
    marked = model.predict(rows, errors="mark")
    assert len(marked) == len(rows)
    good = [row for row, answer in zip(rows, marked, strict=True) if "error" not in answer]
    bad = tuple(place for place, answer in enumerate(marked) if "error" in answer)
    assert model.predict(good) == [answer for answer in marked if "error" not in answer]
    if bad:
        with pytest.raises(InputError) as caught:
            model.predict(rows)
        assert caught.value.rows == bad


@settings(max_examples=150, deadline=None)
@given(anything)
def test_any_input_gives_answers_or_a_sweet_error(model, given_texts):
    with contextlib.suppress(SweetError):
        assert isinstance(model.predict(given_texts), list)


def test_empty_inputs(model):
    for empty in ([], (), iter(()), pd.Series([], dtype=object), np.array([], dtype=str), pa.array([], pa.string())):
        assert model.predict(empty) == []


def test_rows_of_a_number_array_are_rejected():
    assert text_or_reason(array.array("i", [1, 2]))[0] is None
    assert listed(itertools.repeat("a", 2)) == ["a", "a"]


def test_string_subclasses_become_str():
    class Loud(str):
        def __str__(self):
            return self.upper()

    for text in (np.str_("good"), Loud("good")):
        read, reason = text_or_reason(text)
        assert reason is None and type(read) is str and read == "good"
