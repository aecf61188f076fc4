"""Observes the canonical decomposition and composition of the normalizer `NFC`."""

from __future__ import annotations

import unicodedata
from typing import Any

SETS = {"active": "may change, or change a neighbour, under NFC; Hangul jamo among them"}
MAPPINGS = {
    "decompositions": "canonical, in full, without Hangul syllables",
    "classes": "canonical combining classes other than 0, of characters that do not decompose",
    "compositions": "to this code point from these two, without Hangul syllables",
}

CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # decomposed and composed by arithmetic
HANGUL_PARTS = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))  # vowels and last consonants
LOWEST_MARK, HIGHEST_MARK = "\u0334", "\u0345"  # by their combining classes


def observed() -> dict[str, Any]:
    """Returns the data of NFC as the installed release has it."""
    from tokenizers.normalizers import NFC, NFD

    decompose, compose = NFD().normalize_str, NFC().normalize_str
    decomposed = {code: decompose(chr(code)) for code in CODE_POINTS}
    decompositions = {code: form for code, form in decomposed.items() if form != chr(code) and code not in HANGUL}
    for code in HANGUL:
        assert decomposed[code] == unicodedata.normalize("NFD", chr(code)) and compose(decomposed[code]) == chr(code)

    def moves(first: str, second: str) -> bool:
        return decompose(f"a{first}{second}") != f"a{first}{second}"

    def is_mark(mark: str) -> bool:
        return moves(mark, LOWEST_MARK) or moves(HIGHEST_MARK, mark)

    # A character of each class that the release knows.
    marks: dict[int, str] = {}
    for mark in map(chr, CODE_POINTS):
        order = unicodedata.combining(mark)
        if order and order not in marks and is_mark(mark):
            marks[order] = mark
    classes = {}
    for code in CODE_POINTS:
        mark = chr(code)
        if decomposed[code] == mark and is_mark(mark):
            same = [order for order, other in marks.items() if not moves(mark, other) and not moves(other, mark)]
            assert len(same) == 1, hex(code)
            classes[code] = same[0]
    compositions = {}
    for code, form in decompositions.items():
        if len(form) > 1 and compose(form) == chr(code):
            first, second = compose(form[:-1]), form[-1]
            assert len(first) == 1 and compose(first + second) == chr(code)
            compositions[code] = [ord(first), ord(second)]
    seconds = {second for _, second in compositions.values()}
    active = [
        code
        for code in CODE_POINTS
        if compose(chr(code)) != chr(code)
        or code in HANGUL_PARTS
        or {code, ord(decomposed[code][0])} & (classes.keys() | seconds)
    ]
    return {
        "active": active,
        "decompositions": [(code, [*map(ord, form)]) for code, form in decompositions.items()],
        "classes": [(code, [order]) for code, order in classes.items()],
        "compositions": list(compositions.items()),
    }
