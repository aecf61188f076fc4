"""Observes the compatibility decomposition of `NFKD`, and what `StripAccents` removes."""

from __future__ import annotations

from typing import Any

SETS = {"accents": "removed by `StripAccents`"}
MAPPINGS = {"compatible": "decompositions of NFKD, in full, where they are not those of NFD"}

CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def observed() -> dict[str, Any]:
    """Returns the data of both normalizers as the installed release has it."""
    from tokenizers.normalizers import NFD, NFKD, BertNormalizer, Lowercase, StripAccents

    strip = StripAccents().normalize_str
    stripped = {code: strip(f"a{chr(code)}b")[1:-1] for code in CODE_POINTS}
    assert all(text in ("", chr(code)) for code, text in stripped.items())
    # The table of `BertNormalizer` serves `Lowercase` as well.
    lower, bert = Lowercase().normalize_str, BertNormalizer(False, False, False, True).normalize_str
    assert all(lower(f"a{chr(code)}b") == bert(f"a{chr(code)}b") for code in CODE_POINTS)
    compatible, canonical = NFKD().normalize_str, NFD().normalize_str
    forms = {code: compatible(chr(code)) for code in CODE_POINTS}
    return {
        "accents": [code for code, text in stripped.items() if text == ""],
        "compatible": [(code, [*map(ord, text)]) for code, text in forms.items() if text != canonical(chr(code))],
    }
