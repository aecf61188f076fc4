"""Tests of text encoders: token ids equal those of the tokenizer, also with concurrent callers."""

import copy
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.errors import ConfigError
from itrex_sweet.tokenization import TextReader
from itrex_sweet.tokenization.encoders import FastEncoder, LockedEncoder, encoder_of, longest_first
from tests.tiny_artifacts import WORDS
from tests.tiny_tokenizers import BACKENDS, SlowTokenizer, fast_tokenizer

TOKENIZERS = {
    f"{kind}, {side}{', truncated file' if truncated else ''}": fast_tokenizer(kind, truncated, truncation_side=side)
    for kind in BACKENDS
    for side in ("right", "left")
    for truncated in (False, True)
}
TOKENIZERS["slow, right"] = SlowTokenizer()
TOKENIZERS["slow, left"] = SlowTokenizer(truncation_side="left")

words = st.lists(
    st.sampled_from([*WORDS, "[SEP]", "[CLS]", "nothing", "\u00e9\u4e2d", "\U0001f600"]), min_size=1, max_size=14
)
texts = words.map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(TOKENIZERS)),
    st.lists(texts | st.tuples(texts, texts), min_size=1, max_size=4),
    st.integers(4, 20) | st.none(),
)
def test_rows_equal_those_of_the_tokenizer(name, given_texts, limit):
    for row, text in zip(encoder_of(TOKENIZERS[name]).encode(given_texts, limit), given_texts, strict=True):
        parts = text if isinstance(text, tuple) else (text,)
        reference = copy.deepcopy(TOKENIZERS[name])
        whole = reference(*parts)
        cut = whole if limit is None else reference(*parts, truncation=True, max_length=limit)
        if ", truncated file" in name:  # without an argument, the file's settings would rule
            whole = reference(*parts, truncation=False, padding=False)
            cut = whole if limit is None else reference(*parts, truncation=True, max_length=limit, padding=False)
        assert (row.ids, row.types, row.length) == (cut["input_ids"], cut["token_type_ids"], len(whole["input_ids"]))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 15))
def test_pairs_are_truncated_to_the_available_length(first, second, length):
    kept = longest_first(first, second, length)
    assert sum(kept) == min(first + second, length)
    assert kept[0] <= first and kept[1] <= second
    assert longest_first(second, first, length) == kept[::-1] or first == second


def test_tokenizer_without_token_types():
    tokenizer = fast_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert encoder_of(tokenizer).encode(["good", ("a", "b")], None)[1].types is None


def test_special_tokens_in_a_text():
    tokenizer = fast_tokenizer("bert", split_special_tokens=True)
    expected = tokenizer("good [SEP] bad")["input_ids"]
    assert encoder_of(tokenizer).encode(["good [SEP] bad"], None)[0].ids == expected
    assert expected != fast_tokenizer("bert")("good [SEP] bad")["input_ids"]


def test_tokenizer_subclass_is_called():
    class Shouting(type(fast_tokenizer())):
        def __call__(self, text, *others, **options):
            return super().__call__(text.lower(), *others, **options)

    tokenizer = Shouting(tokenizer_object=BACKENDS["template"](), **fast_tokenizer().special_tokens_map)
    encoder = encoder_of(tokenizer)
    assert isinstance(encoder, LockedEncoder) and isinstance(encoder_of(fast_tokenizer()), FastEncoder)
    assert encoder.encode(["GOOD BAD"], 3)[0].ids == fast_tokenizer()("good")["input_ids"]


def test_tokenizer_with_python_parts_is_called_in_place():
    from tokenizers import NormalizedString, PreTokenizedString
    from tokenizers.pre_tokenizers import PreTokenizer

    class Halves:
        def split(self, _, text: NormalizedString) -> list[NormalizedString]:
            return text.split(" ", "removed")

        def pre_tokenize(self, text: PreTokenizedString) -> None:
            text.split(self.split)

    tokenizer = fast_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(Halves())
    encoder = encoder_of(tokenizer)
    assert isinstance(encoder, LockedEncoder)
    assert encoder.encode(["good bad", "bad"], 3)[0].ids == fast_tokenizer()("good")["input_ids"]


@pytest.mark.parametrize("make", [fast_tokenizer, SlowTokenizer])
def test_concurrent_calls_of_the_tokenizer(make):
    """Eight threads read by one reader while another calls the tokenizer with truncation and padding."""
    tokenizer = make()
    reader = TextReader(tokenizer, max_tokens=32, padding_idx=None)
    rows = [" ".join(WORDS[:count]) for count in (3, 20, 1, 12, 7)] + [
        ("a good room", "bad"),
        (WORDS[0], "the soup " * 9),
    ]
    lengths = [5, 9, None, 17, 6]
    expected = {length: _ids(reader, rows, length) for length in lengths}
    until = time.monotonic() + 1.5
    wrong, calls = [], [0]

    def read(first: int) -> None:
        try:
            while time.monotonic() < until:
                for length in lengths[first % 5 :] + lengths[: first % 5]:
                    if _ids(reader, rows, length) != expected[length]:
                        wrong.append(length)
                    calls[0] += 1
        except BaseException as error:
            wrong.append(repr(error))

    def disturb() -> None:
        while time.monotonic() < until:
            for options in ({"truncation": True, "max_length": 4}, {"padding": "max_length", "max_length": 40}):
                tokenizer(["the soup was good " * 3], **options)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
    if make is fast_tokenizer:  # one in Python has no state that a call writes
        threads.append(threading.Thread(target=disturb))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and calls[0] > 50


def _ids(reader, texts, length):
    return [row.tolist() for row in reader.read(texts, length, "truncate").batch.rows()]


def test_state_of_the_tokenizer_is_not_changed():
    tokenizer = fast_tokenizer(truncated=True)
    before = tokenizer.backend_tokenizer.to_str()
    reader = TextReader(tokenizer, 32, None)
    reader.read(["the soup was good and warm"], 4, "truncate")
    reader.read(["the soup was good and warm"], 4, "refuse")
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_during_tokenization_in_another_thread():
    encoder = LockedEncoder(SlowTokenizer())
    from itrex_sweet.tokenization import encoders as text_encoders

    with text_encoders._lock:  # as another thread would hold it
        child = os.fork()
        if child == 0:
            encoder.encode(["good"], None)
            os._exit(7)
    for _ in range(100):
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert finished and os.waitstatus_to_exitcode(status) == 7


@pytest.mark.parametrize(("length", "message"), [(1, "takes 3"), (2, "takes 3"), (0, "max_length=0"), ("8", "'8'")])
@pytest.mark.parametrize("make", [fast_tokenizer, SlowTokenizer])
def test_lengths_without_room_for_a_token(make, length, message):
    with pytest.raises(ConfigError, match=message):
        TextReader(make(), 32, None).read(["good"], length, "truncate")


def test_length_without_room_for_a_pair():
    reader = TextReader(fast_tokenizer(), 32, None)
    assert reader.read(["good bad"], 3, "truncate").batch.lengths.tolist() == [3]
    with pytest.raises(ConfigError, match="max_length=3: 3 tokens of every row are special"):
        reader.read(["good", ("good", "bad")], 3, "truncate")
    assert reader.read([("good", "bad")], 4, "truncate").batch.lengths.tolist() == [4]


def test_texts_that_the_tokenizer_rejects_are_named():
    reading = TextReader(SlowTokenizer(), 32, None).read(["good", "#fail", "bad", ("a", "#fail")], None, "truncate")
    assert reading.rows == [0, 2] and list(reading.errors) == [1, 3]
    assert "no token for #fail" in reading.errors[1]


def test_texts_without_tokens_are_named():
    reading = TextReader(fast_tokenizer("bytes alone"), 32, None).read(["good", "b"], None, "truncate")
    assert not reading.errors
    from tokenizers import pre_tokenizers

    tokenizer = fast_tokenizer("no special tokens")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("x")
    reading = TextReader(tokenizer, 32, None).read(["good", "x", "bad"], None, "truncate")
    assert reading.rows == [0, 2] and "no tokens" in reading.errors[1]
