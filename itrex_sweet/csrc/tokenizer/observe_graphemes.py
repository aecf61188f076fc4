"""Observes the extended grapheme clusters that the normalizer `Precompiled` tells apart.

It replaces a cluster of less than six bytes as a whole, and the characters of a longer one by themselves. Properties
that no cluster of less than six bytes depends on, such as the pairs of regional indicators, are not observed.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

SETS = {
    "controls": "a cluster of its own, as CR and LF are; these two make one together",
    "prepended": "joined to what follows",
    "leads": "Hangul letters before vowels",
    "vowels": "Hangul vowels",
    "tails": "Hangul letters behind vowels",
    "pictographs": "joined to each other by U+200D",
    "consonants": "Indic, joined to each other by a linker",
    "joining": "joined to what is before",
    "between_pictographs": "may stand between a pictograph and U+200D",
    "between_consonants": "may stand between two consonants, beside a linker",
    "linkers": "joins two consonants",
}
MAPPINGS: dict[str, str] = {}

CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # told apart by arithmetic
# A mark of two bytes, and letters and signs that are joined to others.
MARK, LEAD, VOWEL, TAIL, SIGN, JOINER, CONSONANT, LINKER = "\u0301\u1100\u1161\u11a8\u00a9\u200d\u0915\u094d"


def observed() -> dict[str, Any]:
    """Returns the code points of each class, as the installed release tells them apart."""
    from tokenizers import normalizers

    # A map in which each byte but 0 is a key, and "x" stands for all: a cluster of less than six bytes becomes one "x".
    # Units: the root, that of the value, and one for each byte; a unit holds the distance to the next one.
    units = [256 << 10, *[0] * 255, *(1 << 8 | byte | (256 ^ byte ^ 1) << 10 for byte in range(256))]
    blob = struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + b"x\0"
    precompiled = normalizers.Precompiled(blob)
    assert json.loads(precompiled.__getstate__())["precompiled_charsmap"] == base64.b64encode(blob).decode()

    def replaced(*parts: str) -> int:
        text = "".join(parts)
        form = precompiled.normalize_str(text)
        assert {*form} <= {"x", "\0"}
        return len(form)

    assert replaced("\r\n") == 1 and replaced("\n\r") == 2 and replaced("ab") == 2
    found: dict[str, list[int]] = {name: [] for name in SETS}
    for code in CODE_POINTS:
        c = chr(code)
        size = len(c.encode())
        kinds = []
        if replaced("a", c) == 1:
            kinds.append("joining")
        if replaced(c, "a") == 1:
            kinds.append("prepended")
        if (replaced(c, MARK) == 2) if size < 4 else (replaced(c, MARK, MARK) == 2):
            kinds.append("controls")
        before_vowel, before_tail = replaced(c, VOWEL, MARK) == 3, replaced(c, TAIL, MARK) == 3
        if before_vowel and not before_tail:
            kinds.append("leads")
        elif before_vowel and "prepended" not in kinds:
            is_vowel = size == 4 or replaced(VOWEL, c, MARK) == 3
            assert is_vowel != (code in HANGUL and (code - HANGUL[0]) % 28 == 0)
            kinds += ["vowels"] * is_vowel
        elif before_tail and "prepended" not in kinds:
            is_tail = size == 4 or replaced(TAIL, c, MARK) == 3
            assert is_tail != (code in HANGUL and (code - HANGUL[0]) % 28 != 0)
            kinds += ["tails"] * is_tail
        if replaced(c, JOINER, SIGN, MARK) == 4 and replaced(c, JOINER, "a", MARK) < 4:
            kinds.append("pictographs")
        if "joining" not in kinds:
            assert ("pictographs" in kinds) == (replaced(SIGN, JOINER, c, MARK) == 4), hex(code)
        if replaced(c, LINKER, CONSONANT, MARK) == 4:
            kinds.append("consonants")
        assert len(kinds) < 2, (hex(code), kinds)
        if "joining" in kinds:
            if replaced(SIGN, c, JOINER, SIGN, MARK) == 5:
                kinds.append("between_pictographs")
            if replaced(CONSONANT, c, CONSONANT, MARK) == 4:
                kinds.append("linkers")
            if replaced(CONSONANT, LINKER, c, CONSONANT, MARK) == 5:
                kinds.append("between_consonants")
            assert "linkers" not in kinds or "between_consonants" in kinds
        for kind in kinds:
            found[kind].append(code)
    return found
