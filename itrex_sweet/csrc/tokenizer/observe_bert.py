"""Observes the rules for characters of `BertNormalizer` and `BertPreTokenizer`."""

from __future__ import annotations

import unicodedata
from typing import Any

SETS = {
    "removed": "removed by `clean_text`",
    "spaces": "turned into a space by `clean_text`",
    "ideographs": "surrounded by spaces by `handle_chinese_chars`",
    "marks": "removed by `strip_accents`",
    "whitespace": "separates words",
    "punctuation": "a word of its own",
    "reordered": "order depends on neighbours under `strip_accents`",
}
MAPPINGS = {"decomposed": "by `strip_accents`, without Hangul syllables", "lowered": "by `lowercase`"}

CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic
# Characters of the canonical combining classes 216 and 224: one of them moves around any mark of another class.
MARKS_OF_TWO_CLASSES = ("\U0001d165", "\u302e")


def observed() -> dict[str, Any]:
    """Returns what the installed release does with each code point: sets as lists, mappings as (code, outputs)."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    def outputs(normalizer: Any) -> dict[int, str]:
        return {code: normalizer.normalize_str(f"a{chr(code)}b")[1:-1] for code in CODE_POINTS}

    def changed(found: dict[int, str]) -> list[tuple[int, list[int]]]:
        return [(code, [*map(ord, text)]) for code, text in found.items() if text not in ("", chr(code))]

    clean = outputs(BertNormalizer(True, False, False, False))
    chinese = outputs(BertNormalizer(False, True, False, False))
    strip = BertNormalizer(False, False, True, False)
    stripped = outputs(strip)
    lowered = outputs(BertNormalizer(False, False, False, True))
    assert all(text in ("", " ", chr(code)) for code, text in clean.items())
    assert all(text in (chr(code), f" {chr(code)} ") for code, text in chinese.items())
    assert "" not in lowered.values()
    for code in HANGUL:
        assert stripped[code] == unicodedata.normalize("NFD", chr(code))
    pre_tokenizer = BertPreTokenizer()
    pieces = {code: [piece for piece, _ in pre_tokenizer.pre_tokenize_str(f"a{chr(code)}b")] for code in CODE_POINTS}
    for code, found in pieces.items():
        assert found in (["a", "b"], ["a", chr(code), "b"], [f"a{chr(code)}b"])
    reordered = [
        code
        for code, text in stripped.items()
        if any(map(unicodedata.combining, text)) or (text and _moves(strip, chr(code), text))
    ]
    lengths = {code: len("".join(lowered[ord(each)] for each in text)) for code, text in stripped.items()}
    # The caller's capacity is one token per byte.
    assert all(max(lengths[code], len(lowered[code])) <= len(chr(code).encode()) for code in CODE_POINTS)
    return {
        "removed": [code for code, text in clean.items() if text == ""],
        "spaces": [code for code, text in clean.items() if text == " "],
        "ideographs": [code for code, text in chinese.items() if text != chr(code)],
        "marks": [code for code, text in stripped.items() if text == ""],
        "decomposed": [(code, text) for code, text in changed(stripped) if code not in HANGUL],
        "lowered": changed(lowered),
        "whitespace": [code for code, found in pieces.items() if len(found) == 2],
        "punctuation": [code for code, found in pieces.items() if len(found) == 3],
        "reordered": reordered,
    }


def _moves(strip: Any, character: str, stripped: str) -> bool:
    """Returns whether the canonical order moves a character around marks, which depends on its neighbours."""
    return any(
        strip.normalize_str(f"a{mark}{character}b") != f"a{mark}{stripped}b"
        or strip.normalize_str(f"a{character}{mark}b") != f"a{stripped}{mark}b"
        for mark in MARKS_OF_TWO_CLASSES
    )
