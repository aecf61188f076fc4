"""Tests of the native tokenizer: the same token ids as the `tokenizers` library, or the library itself."""

import ctypes
import json
import os
import random
import threading
import time

import numpy as np
import pytest
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from itrex_sweet.tokenization import TextReader, native_library, proof
from itrex_sweet.tokenization.encoders import FastEncoder
from itrex_sweet.tokenization.fast_reader import fast_reader_of
from itrex_sweet.tokenization.file_tokenizer import FileTokenizer
from itrex_sweet.tokenization.native_reader import NativeReader
from tests.fuzz.tokenization import KINDS, byte_level, compare, word_piece
from tests.tiny_tokenizers import fast_tokenizer

try:
    native_library.load()
except native_library.LibraryUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)


def encoder(backend=None, **settings):
    backend = backend or word_piece(True)
    return FastEncoder(FileTokenizer(backend, **settings), backend)


def text_reader(backend=None, limit=64, **settings):
    return TextReader(FileTokenizer(backend or word_piece(True), **settings), limit, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_random_texts(kind, seed):
    outcome = compare(kind, 400, seed)
    assert outcome.difference is None and outcome.texts == 400 and outcome.left < 200


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_pass_the_comparison_at_load(kind):
    reader, reason = fast_reader_of(encoder(KINDS[kind]()))
    assert reader is not None and reason is None


@pytest.mark.parametrize(
    ("lowercase", "strip", "spaced"), [(True, None, True), (False, None, False), (False, True, True)]
)
def test_normal_form_of_every_character(lowercase, strip, spaced):
    """Against the installed release of the library, over all planes."""
    backend = word_piece(lowercase, strip, spaced)
    reader = NativeReader(backend)
    known = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code not in range(0x20000, 0xE0000)]
    left = 0
    for first in range(0, len(known), 256):
        codes = known[first : first + 256]
        text = " ".join(f"a{chr(code)}b" for code in codes)
        if (form := reader.normalize(text)) is not None:
            assert form == backend.normalizer.normalize_str(text)
            continue
        for code in codes:
            if (form := reader.normalize(f"a{chr(code)}b")) is None:
                left += 1
            else:
                assert form == backend.normalizer.normalize_str(f"a{chr(code)}b"), hex(code)
    assert left < 400


def test_words_and_composition_of_every_character():
    """Against the installed release of the library, over all planes."""
    backend = byte_level(composes=True)
    reader, slow = NativeReader(backend), encoder(backend)
    known = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code not in range(0x20000, 0xE0000)]
    for first in range(0, len(known), 1024):
        codes = known[first : first + 1024]
        for text in ("".join(map(chr, codes)), " " + " ".join(f"a{c} 1{c} !{c} \u0323{c}" for c in map(chr, codes))):
            assert reader.normalize(text) == backend.normalizer.normalize_str(text)
        assert reader.words(text) == slow.words(text)


def test_marks_are_ordered_and_composed():
    backend = byte_level(composes=True)
    reader, choice = NativeReader(backend), random.Random(0)
    marks = "\u0300\u0301\u0302\u0323\u0331\u0345\u0334\u093c\u1161\u11a8\u05b0\u0f71\u0344\u0958"
    marks += "ae\u1100\uac00\u0915\u00e9\u1e69"
    for _ in range(3000):
        text = "".join(choice.choices(marks, k=choice.randrange(1, 12)))
        assert reader.normalize(text) == backend.normalizer.normalize_str(text), ascii(text)


@pytest.mark.parametrize("length", [47, 48, 49, 90, 255, 256, 257])
def test_long_words(length):
    """Short and long words are merged in two ways."""
    backend, choice = byte_level(splits=False), random.Random(length)
    reader = NativeReader(backend)
    for letters in (
        "o",
        "the good soup",
        "running ",
        ("the", " good", "er", "ing", " run", "un", "a", "t", "r", "n", " "),
    ):
        for _ in range(60):
            text = "".join(choice.choices(letters, k=length))
            assert reader.pack([text])[0].input_ids.tolist() == backend.encode(text).ids


def test_pairs_that_another_merge_has_taken():
    """(a, b) is gone when its turn comes, so that (bc, d) is merged before (a, bc)."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "bc", "ab", "bcd", "abc"]
    backend = byte_level(splits=False)
    merges = [("b", "c"), ("a", "b"), ("bc", "d"), ("a", "bc")]
    backend.model = models.BPE({piece: place for place, piece in enumerate(pieces)}, merges)
    reader = NativeReader(backend)
    for count in (1, 20):
        ids = reader.pack(["abcd" * count])[0].input_ids.tolist()
        assert ids == backend.encode("abcd" * count).ids and len(ids) == 2 * count + 2


def test_time_of_a_long_word_is_not_quadratic():
    reader = NativeReader(byte_level(splits=False))
    start = time.process_time()
    assert reader.pack(["o" * 1_000_000])[0].lengths[0] > 1000
    assert time.process_time() - start < 30  # a quadratic merge takes hours


def refused(backend) -> str:
    reader, reason = fast_reader_of(encoder(backend))
    assert reader is None
    return reason


def test_byte_level_tokenizers_that_are_left_to_the_library():
    assert "dropout=0.5" in refused(byte_level(dropout=0.5))
    backend = byte_level()
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    assert "NFC and Lowercase" in refused(backend)
    backend = byte_level()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
    assert "ByteLevel alone" in refused(backend)
    backend = byte_level()
    backend.model = models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    assert "lacks 241 bytes" in refused(backend)
    # A vocabulary without the bytes that no text has, such as that of GPT-NeoX.
    alphabet = [each for each in sorted(pre_tokenizers.ByteLevel.alphabet()) if each not in "\xc0\xc1"]
    backend.model = models.BPE({each: place for place, each in enumerate(alphabet)}, [])
    assert fast_reader_of(encoder(backend))[1] is None


def test_a_reader_with_other_merges_is_not_used():
    backend = byte_level()
    state = json.loads(backend.model.__getstate__())
    state["merges"] = state["merges"][::-1]
    reader = NativeReader(backend, lambda: state)
    assert "differently" in proof.difference(reader, encoder(byte_level()))


def test_other_tokenizers_are_left_to_the_library(caplog):
    backend = word_piece(True)
    backend.normalizer = normalizers.Lowercase()
    reader = text_reader(backend)
    assert reader.reader_name == "tokenizers" and "BertNormalizer" in reader.reader_reason
    assert reader.max_id is None and reader.pack(["good soup"]) is None
    assert reader.read(["Good soup"], None, "truncate").batch.input_ids.tolist() == backend.encode("good soup").ids
    assert not caplog.records

    backend = word_piece(True)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    assert "BertPreTokenizer" in text_reader(backend).reader_reason
    assert "WordLevel" in TextReader(fast_tokenizer(), 32, None).reader_reason


def test_variable_that_turns_the_native_tokenizer_off(monkeypatch):
    monkeypatch.setenv("ITREX_SWEET_READER", "tokenizers")
    assert text_reader().reader_reason == "ITREX_SWEET_READER=tokenizers"


def test_a_reader_that_differs_is_not_used(monkeypatch, caplog):
    """Each of these stands for an error of the native tokenizer; the comparison must find it."""
    pack, normalize = NativeReader.pack, NativeReader.normalize
    faults = {
        "normalizes": lambda: monkeypatch.setattr(NativeReader, "normalize", lambda *args: normalize(*args)[:-1]),
        "cut": lambda: monkeypatch.setattr(
            NativeReader, "pack", lambda self, texts, limit=None, *more, **options: pack(self, texts, limit, True)
        ),
        "types": lambda: monkeypatch.setattr(NativeReader, "pack", changed("token_type_ids")),
        "ids": lambda: monkeypatch.setattr(NativeReader, "pack", changed("input_ids")),
    }

    def changed(name):
        def wrong(self, *args, **options):
            packed = pack(self, *args, **options)
            if packed is not None and len(packed[0].input_ids) > 12:
                getattr(packed[0], name)[-3] += 1
            return packed

        return wrong

    for inject in faults.values():
        inject()
        reader = text_reader()
        monkeypatch.undo()
        assert reader.reader_name == "tokenizers" and "than the tokenizers library" in reader.reader_reason
        assert reader.reader_reason in caplog.text
        caplog.clear()
    assert text_reader().reader_name == "native WordPiece"


def test_comparison_finds_a_vocabulary_that_differs():
    other = encoder(word_piece(True, added=(AddedToken("soup", normalized=True),)))
    assert "differently" in proof.difference(NativeReader(word_piece(True)), other)


def test_special_tokens_that_are_read_as_text():
    backend = word_piece(True)
    split = encoder(backend, split_special_tokens=True)
    reader, _ = fast_reader_of(split)
    ids = reader.pack(["good [SEP] soup"])[0].input_ids.tolist()
    assert ids == split.encode(["good [SEP] soup"], None)[0].ids and ids.count(3) == 1
    assert text_reader().pack(["good [SEP] soup"]).input_ids.tolist().count(3) == 2


def test_marks_that_unicode_reorders():
    backend = word_piece(True)
    reader = NativeReader(backend)
    for text in proof._REORDERED:
        assert reader.normalize(text) in (None, backend.normalizer.normalize_str(text))


def test_added_tokens_that_take_spaces():
    backend = KINDS["uncased, added tokens that take spaces"]()
    reader = text_reader(backend)
    assert reader.reader_name == "native WordPiece"
    texts = ["good \u2003<new> soup", "covid\u00e9 <new>covid", "covid, \u00e9covid\n", "<new>  <new>"]
    assert reader.pack(texts).input_ids.tolist() == [token for text in texts for token in backend.encode(text).ids]


@pytest.mark.parametrize(
    "texts",
    [["good", " "], [""], ["good", 3], [("good",)], [["good", "bad"]], ["\ud800"], ["good", "good " * 99], [None]],
)
def test_unusual_rows_are_left_to_read(texts):
    assert text_reader().pack(texts) is None


def test_packed_rows_equal_those_of_read(monkeypatch):
    texts = ["good soup", ("un", "affable"), "caf\u00e9 COVID", "a"]
    native = text_reader()
    monkeypatch.setenv("ITREX_SWEET_READER", "tokenizers")
    expected = text_reader().read(texts, None, "truncate").batch
    for batch in (native.pack(texts), native.read(texts, None, "truncate").batch):
        for name in ("input_ids", "token_type_ids", "position_ids", "cu_seqlens"):
            assert getattr(batch, name).dtype == np.int64
            assert getattr(batch, name).tolist() == getattr(expected, name).tolist()
    assert native.max_id >= batch.input_ids.max() and native.max_type == 1
    assert native.pack([]).cu_seqlens.tolist() == [0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_long_texts_are_cut_with_a_warning_or_refused(side, monkeypatch, caplog):
    texts = ["good " * 40, "soup", ("good " * 9, "soup " * 30), "the " * 17]
    native = text_reader(limit=16, truncation_side=side)
    monkeypatch.setenv("ITREX_SWEET_READER", "tokenizers")
    slow = text_reader(limit=16, truncation_side=side)
    assert native.pack(texts) is None
    for length in (None, 9):
        given, expected = native.read(texts, length, "truncate"), slow.read(texts, length, "truncate")
        assert given.batch.input_ids.tolist() == expected.batch.input_ids.tolist()
        assert caplog.messages[0] == caplog.messages[1] and "Cut " in caplog.text
        caplog.clear()
        assert native.read(texts, length, "refuse").errors == slow.read(texts, length, "refuse").errors


def test_token_types_of_a_tokenizer_without():
    reader = text_reader(model_input_names=("input_ids", "attention_mask"))
    assert not reader.pack([("good", "soup")]).token_type_ids.any()
    assert not reader.read([("good", "soup")], None, "truncate").batch.token_type_ids.any()


def test_large_and_hostile_texts():
    reader = text_reader(limit=None)
    batch = reader.pack(["x" * 3_000_000, "\u4e2d" * 300_000, "good \x00" * 50_000])
    assert batch.lengths.tolist() == [3, 300_002, 50_002]
    assert reader.pack(["a\u0301" * 200_000, "\U0010ffff" * 10 + "a"]).lengths.tolist() == [3, 3]


def test_library_refuses_invalid_arguments():
    reader = NativeReader(word_piece(True))
    output = (ctypes.c_int64 * 64)()
    lengths = (ctypes.c_int64 * 2)(1, 1)

    def encode(text, size=None, characters=None, is_pair=None, rows=1, limit=0, capacity=64):
        size = len(text) if size is None else size
        arguments = (text, size, characters, is_pair, rows, limit, 0, -1, output, capacity)
        return reader._library.encode(reader._handle, *arguments)

    assert encode(b"good") == 3
    for text in (
        b"\xff",
        b"good \xc3",
        b"\xe4\xb8",
        b"\xed\xa0",
        b"\xf5\x80\x80\x80",
        b"\xc0\x80",
        b"\x80a",
        b"\xf4\x90\x80\x80",
    ):
        assert encode(text) == -1
    assert encode(b"ab", characters=lengths, rows=2) == 6
    assert encode(b"abc", characters=lengths, rows=2) == -1  # bytes that belong to no text
    assert encode(b"a", characters=lengths, rows=2) == -1
    assert encode(b"ab", characters=(ctypes.c_int64 * 2)(-1, 3), rows=2) == -1
    assert encode(b"ab", rows=2) == -1 and encode(b"good", size=-1) == -1 and encode(b"good", limit=-1) == -1
    assert encode(b"good", capacity=7) == 3 and encode(b"good", capacity=0) == -1
    assert encode(b"good", capacity=6) == -5 and output[0] == 7
    assert encode(b" ") == -3
    assert reader._library.new(ctypes.byref(native_library.CTokenizer())) is None


def test_threads_and_forks():
    reader = text_reader()
    texts = [["good soup " * count, "caf\u00e9"] for count in range(1, 9)]
    expected = [reader.pack(each).input_ids.tolist() for each in texts]
    wrong = []

    def read():
        for _ in range(200):
            for each, ids in zip(texts, expected, strict=True):
                if reader.pack(each).input_ids.tolist() != ids:
                    wrong.append(each)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if reader.pack(texts[3]).input_ids.tolist() == expected[3] else 1)
    for thread in threads:
        thread.join()
    assert not wrong and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
