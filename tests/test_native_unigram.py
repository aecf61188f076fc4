"""Tests of Unigram in the native tokenizer: the rules of the `tokenizers` library, or the library itself."""

import json
import random
import threading
import time

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from itrex_sweet.tokenization import TextReader, cluster_proof, native_library, proof
from itrex_sweet.tokenization.encoders import FastEncoder
from itrex_sweet.tokenization.fast_reader import fast_reader_of
from itrex_sweet.tokenization.file_tokenizer import FileTokenizer
from itrex_sweet.tokenization.native_reader import NativeReader
from tests.fuzz.unigram import (
    ADDED,
    SPACE,
    character_map,
    like_albert,
    like_deberta_v3,
    like_xlm_roberta,
    nfkc_map,
    unigram,
)

try:
    native_library.load()
except native_library.LibraryUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)

KNOWN = [code for code in range(1, 0x20000) if not 0xD800 <= code < 0xE000]
KNOWN += [*range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200), 0x10FFFF]


def encoder(backend):
    return FastEncoder(FileTokenizer(backend), backend)


def ids_of(reader, text):
    return reader.pack([text], allow_empty=True)[0].input_ids.tolist()


def bare(pieces, unknown=0, words=None, **settings):
    """Makes a tokenizer of the pieces alone, whose words are whole texts."""
    tokenizer = Tokenizer(models.Unigram(pieces, unknown, **settings))
    tokenizer.pre_tokenizer = words or pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    return tokenizer


def check(tokenizer, texts):
    """Compares the ids of texts; returns those of the last one."""
    reader = NativeReader(tokenizer)
    for text in texts:
        assert ids_of(reader, text) == tokenizer.encode(text).ids, ascii(text)
    return ids_of(reader, texts[-1])


def test_clusters_of_every_character():
    tokenizer = cluster_proof.tokenizer_of_clusters()
    reader, left = NativeReader(tokenizer), 0
    for code in KNOWN:
        text = cluster_proof.contexts(chr(code))
        form = reader.normalize(text)
        left += form is None
        assert form in (None, tokenizer.normalizer.normalize_str(text)), hex(code)
    assert left < 1600  # releases of the library differ there
    assert not cluster_proof.clusters_differ()


def test_random_clusters():
    tokenizer = cluster_proof.tokenizer_of_clusters()
    reader, choice, left = NativeReader(tokenizer), random.Random(0), 0
    characters = "a\u00a9\u00ae\u2122\U0001f600\u0301\u0308\u200d\ufe0f\u0903\u0600\u0d4e\u0915\u0958\u094d\u093c\u09cd"
    characters += "\u0995\u1000\u1039\u1100\u1161\u11a8\uac00\uac01\U0001f1e9\r\n\t\x00\u200b\U00011f02\U000110bd"
    for _ in range(30_000):
        text = "".join(choice.choices(characters, k=choice.randrange(1, 9)))
        form = reader.normalize(text)
        left += form is None
        assert form in (None, tokenizer.normalizer.normalize_str(text)), ascii(text)
    assert left < 3000


@pytest.mark.parametrize(
    "steps",
    [
        [normalizers.Precompiled(nfkc_map())],
        [normalizers.NFC()],
        [normalizers.NFD()],
        [normalizers.NFKC()],
        [normalizers.NFKD()],
        [normalizers.Lowercase()],
        [normalizers.StripAccents()],
        [normalizers.Strip()],
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Precompiled(nfkc_map())],
    ],
)
def test_normal_form_of_every_character(steps):
    backend = unigram(normalizers.Sequence(steps), added=())
    reader, normalize, left = NativeReader(backend), backend.normalizer.normalize_str, 0
    for first in range(0, len(KNOWN), 64):
        codes = KNOWN[first : first + 64]
        for text in ("".join(map(chr, codes)), *(f" e{chr(code)}\u0323\u0301 {chr(code)} " for code in codes)):
            form = reader.normalize(text)
            left += form is None
            assert form in (None, normalize(text)), ascii(text)
    assert left < 2200


def test_marks_are_ordered_and_composed():
    choice = random.Random(0)
    marks = "\u0300\u0301\u0302\u0323\u0331\u0345\u0334\u093c\u1161\u11a8\u05b0\u0f71\u0344\u0958\ufb01\u1e9b\u0385"
    marks += "ae\u1100\uac00\u0915\u00e9\u1e69\u00bd"
    for form in (normalizers.NFD(), normalizers.NFKD(), normalizers.NFKC(), normalizers.NFC()):
        backend = unigram(form, added=())
        reader = NativeReader(backend)
        for _ in range(2000):
            text = "".join(choice.choices(marks, k=choice.randrange(1, 12)))
            assert reader.normalize(text) == form.normalize_str(text), ascii(text)


def test_keys_of_several_characters():
    """The shortest key that a short cluster begins with replaces all of it; a long cluster has none but characters."""
    rules = {"a": "1", "a\u0301": "2", "\u0301": "3", "\u00e9": "4", "e\u0301": "5", "\r": "6", "\n": "7", "o": ""}
    backend = unigram(normalizers.Precompiled(character_map(rules)), added=())
    reader = NativeReader(backend)
    forms = {
        "a\u0301": "1",
        "e\u0301": "5",
        "e\u0301\u0301": "5",
        "e\u0301\u0301\u0301": "e333",
        "\r\n": "6",
        "\n\r": "76",
    }
    for text, form in {**forms, "a": "1", "\u0301a": "31", "oo": "", "xox": "xx", "": ""}.items():
        assert reader.normalize(text) == form == backend.normalizer.normalize_str(text), ascii(text)


@pytest.mark.parametrize("pattern", [" {2,}", r"\s{2,}|[\n\r\t]"])
def test_replaced_spaces(pattern):
    choice = random.Random(0)
    backend = unigram(normalizers.Replace(Regex(pattern), "+"), added=())
    reader = NativeReader(backend)
    for _ in range(3000):
        text = "".join(choice.choices("a  \t\n\r\x0b\u00a0\u3000\u00e9", k=choice.randrange(0, 9)))
        assert reader.normalize(text) == backend.normalizer.normalize_str(text), ascii(text)


def test_equal_scores_and_unknown_pieces():
    pieces = [("<u>", 0.0), ("a", -1.0), ("b", -1.0), ("ab", -2.0), ("ba", -2.0), ("bb", -2.5), ("aab", -3.0)]
    texts = ["ab", "aab", "abab", "bbab", "aabb" * 3, "xay", "x", "xyz", "a<u>b", "<u>x<u>"]
    check(bare(pieces), texts)
    # The unknown ones of a text make one, which may be a piece whose score is too low for it.
    assert check(bare([*pieces, ("xy", -50.0)]), [*texts, "xy"]) == [7]
    # Of equal pieces the last counts, but the lowest score of all.
    check(bare([*pieces, ("ab", -9.0), ("a", -0.5), ("x", -30.0), ("x", -1.0)]), texts)
    assert check(bare([("<u>", 0.0), ("a", 20.0), ("b", 20.0), ("ab", 50.0)]), ["xxab", "xab"]) == [0, 3]


def test_unknown_scores_are_the_lowest_less_ten():
    """A character is a piece of its own if that costs less than 10 above the lowest score."""
    for own in (-15.0, -14.9, -15.1, -5.0):
        check(bare([("<u>", 0.0), ("a", own), ("ab", -5.0), ("b", -5.0)]), ["a", "aa", "ax", "xa", "ab", "aab", "xb"])
    # "ab" against "a", which is unknown, and "b": their scores are -5 - 10 and 12.
    for whole, expected in ((-2.9, [1]), (-3.1, [0, 2])):
        assert check(bare([("<u>", -5.0), ("ab", whole), ("b", 12.0)]), ["ab"]) == expected


def test_text_without_a_piece_for_the_unknown():
    tokenizer = bare([("a", -1.0), (SPACE, -1.0)], unknown=None)
    reader = NativeReader(tokenizer)
    assert ids_of(reader, "a a") == tokenizer.encode("a a").ids
    assert reader.pack(["ab"]) is None and reader.pack(["a", "b"]) is None  # the library raises an error
    reading = TextReader(FileTokenizer(tokenizer), 16, None).read(["a", "ab"], None, "truncate")
    assert list(reading.rows) == [0] and "unk_id" in reading.errors[1]


def test_unknown_characters_as_bytes():
    pieces = [("<u>", 0.0), ("a", -1.0), *((f"<0x{byte:02X}>", -2.0) for byte in range(256) if byte != 0xA9)]
    tokenizer = bare(pieces, byte_fallback=True)
    texts = ["a\u00e8", "\u00e8a\u00e8b", "\u00e9", "\u00e8\u00e9", "a<0x41>", "<u>"]
    check(tokenizer, texts)
    assert check(tokenizer, ["\u00e8"]) == [tokenizer.token_to_id("<0xC3>"), tokenizer.token_to_id("<0xA8>")]
    assert check(bare(pieces), ["\u00e8"]) == [0]


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("replacement", [SPACE, "_"])
def test_metaspace(scheme, split, replacement):
    words = pre_tokenizers.Metaspace(replacement=replacement, prepend_scheme=scheme, split=split)
    pieces = [("<u>", 0.0), *((letter, -1.0) for letter in "ab_"), (SPACE, -1.0), ("_a", -1.5), (SPACE + "a", -1.5)]
    tokenizer = bare([*pieces, (SPACE + "a" + SPACE, -1.0), ("_a_", -1.0)], words=words)
    tokenizer.add_tokens([AddedToken("<m>", normalized=False, lstrip=True), AddedToken("<n>", normalized=True)])
    texts = [
        "a",
        " a",
        "a b",
        "a  b ",
        " ",
        f"{SPACE}a",
        "_a",
        "a<m>a",
        "<m>a",
        " <m>a",
        "<n>a <n> a",
        "a<n>a",
        f"<m> {SPACE}a",
    ]
    check(tokenizer, texts)


def test_a_word_that_is_one_token_and_one_that_is_none():
    """A piece whose parts have a greater score is no token of a word."""
    pieces = [("<u>", 0.0), (SPACE, -1.0), ("a", -1.0), ("b", -1.0), (SPACE + "a", -3.0), (SPACE + "b", -1.5)]
    assert check(bare(pieces, words=pre_tokenizers.Metaspace()), ["b", "ab", "a b"]) == [1, 2, 5]


def test_many_pieces():
    """The trie holds nodes of many children, and more than one block of them."""
    choice = random.Random(0)
    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xC0, 0x180), *range(0x4E00, 0x5200))]
    pieces = {"".join(choice.choices(letters, k=choice.randrange(1, 4))) for _ in range(60_000)}
    pieces |= {"".join(choice.choices("abc\u4e00", k=choice.randrange(1, 12))) for _ in range(20_000)}
    tokenizer = bare([("<u>", 0.0), *((piece, -choice.random() * 9) for piece in sorted(pieces))])
    check(tokenizer, ["".join(choice.choices([*letters, *"abcabc"], k=40)) for _ in range(500)])
    check(tokenizer, ["".join(choice.choices("abc\u4e00x\x00", k=60)) for _ in range(500)])


def test_normal_forms_that_are_much_longer_than_the_text():
    backend = unigram(normalizers.Replace("\ufdfa", "qzqzqzqz" * 8), added=(), more=(("q", -1.0), ("z", -1.0)))
    reader = NativeReader(backend)
    long = "\ufdfa" * 3000
    assert reader.pack([long])[0].lengths[0] > 20 * len(long.encode())
    for texts in ([long], ["good soup", long], ["\ufdfa" * 40], [("\ufdfa" * 40, "soup"), "good"]):
        batch, lengths, _ = reader.pack(texts)
        expected = [backend.encode(*(text if isinstance(text, tuple) else (text,))).ids for text in texts]
        assert batch.input_ids.tolist() == [token for ids in expected for token in ids]
        assert lengths.tolist() == [len(ids) for ids in expected]
    assert reader.pack([long], limit=8)[0].input_ids.tolist() == [*backend.encode(long).ids[:7], 2]
    assert ids_of(reader, "good") == backend.encode("good").ids  # the buffer that is kept is as before


@pytest.mark.parametrize(
    "text", ["a" * 1_000_000, "\u4e2d" * 400_000, "\u0301" * 500_000, " " * 1_000_000, "a\u0301 " * 300_000]
)
def test_time_and_memory_of_long_texts_grow_with_their_length(text):
    reader = NativeReader(like_albert(), None)
    start = time.process_time()
    assert reader.pack([text], allow_empty=True) is not None
    assert time.process_time() - start < 30


def refused(backend) -> str:
    reader, reason = fast_reader_of(encoder(backend))
    assert reader is None
    return reason


def test_tokenizers_that_are_left_to_the_library():
    assert "Nmt" in refused(unigram(normalizers.Nmt()))
    assert "replaces '[aeiou]'" in refused(unigram(normalizers.Replace(Regex("[aeiou]"), "x")))
    sequence = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace()])
    assert "Punctuation and Metaspace" in refused(unigram(words=sequence))
    first = pre_tokenizers.Metaspace(prepend_scheme="first")
    assert "prepend_scheme='first'" in refused(unigram(normalizers.NFC(), first))
    sequence = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), first])
    assert "prepend_scheme='first'" in refused(unigram(words=sequence, added=()))
    assert "1001 characters" in refused(unigram(more=(("x" * 1001, -1.0),)))
    assert "zero byte" in refused(unigram(more=(("a\x00", -1.0),)))
    assert "vocabulary is empty" in refused(bare([], unknown=None))


def test_a_map_that_leads_out_of_itself_is_left_to_the_library():
    blob = bytearray(character_map({"a": "x", "b": "y"}))
    units = int.from_bytes(blob[:4], "little") // 4
    for place in range(1, units):
        unit = int.from_bytes(blob[4 + 4 * place : 8 + 4 * place], "little")
        if unit & 0xFF == ord("a") and unit >> 31 == 0:
            blob[4 + 4 * place : 8 + 4 * place] = (unit | 0x1FFFFF << 10).to_bytes(4, "little")
    with pytest.raises(Exception, match="refuses"):  # the library fails at every "a"
        NativeReader(unigram(normalizers.Precompiled(bytes(blob)), added=()))


def test_readers_that_differ_are_not_used(monkeypatch):
    backend = like_deberta_v3()
    state = json.loads(backend.model.__getstate__())
    for change in (
        lambda vocabulary: [[piece, -score] for piece, score in vocabulary],
        lambda vocabulary: vocabulary[:4] + vocabulary[:3:-1],
    ):
        reader = NativeReader(backend, lambda change=change: {**state, "vocab": change(state["vocab"])})
        assert "differently" in proof.difference(reader, encoder(like_deberta_v3()))
    assert "differently" in proof.difference(NativeReader(backend), encoder(like_xlm_roberta()))
    monkeypatch.setattr(proof, "clusters_differ", lambda: True)
    assert "clusters" in refused(backend)
    assert fast_reader_of(encoder(unigram(normalizers.NFC())))[1] is None  # has no clusters


def test_threads_share_a_tokenizer():
    backend = like_xlm_roberta()
    reader = NativeReader(backend)
    texts = ["the good soup \u00bd\u0301 " * count for count in range(1, 30)]
    expected, wrong = [backend.encode(text).ids for text in texts], []

    def read():
        for _ in range(30):
            wrong.extend(text for text, ids in zip(texts, expected, strict=True) if ids_of(reader, text) != ids)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_added_tokens_are_normalized():
    assert any(token.content == "\uff23ovid" for token in ADDED)
    backend = like_xlm_roberta()
    covid = backend.token_to_id("\uff23ovid")
    ids = check(backend, ["the Covid \uff23ovid", "  <mask> a<mask>", "caf\u00e9 cafe\u0301", "Covid"])
    assert ids == [0, covid, 2]
