"""Observes the classes of characters that `ByteLevel` and added tokens tell apart."""

from __future__ import annotations

from typing import Any

SETS = {
    "letters": "`\\p{L}` of the regular expression of `ByteLevel`",
    "numbers": "its `\\p{N}`",
    "spaces": "its `\\s`, that of `lstrip` and `rstrip`, of `Strip` and `WhitespaceSplit`",
    "words": "`\\w` of `single_word`",
}
MAPPINGS: dict[str, str] = {}

CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def observed() -> dict[str, Any]:
    """Returns the code points of each class, as the installed release tells them apart."""
    from tokenizers import AddedToken, Tokenizer, models
    from tokenizers.normalizers import Strip
    from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit

    pre_tokenizer = ByteLevel(add_prefix_space=False)

    def joined_to(character: str) -> list[int]:
        return [code for code in CODE_POINTS if len(pre_tokenizer.pre_tokenize_str(f"{character}{chr(code)}")) == 1]

    letters, numbers, others = map(joined_to, "a1!")
    spaces = sorted({*CODE_POINTS} - {*letters} - {*numbers} - {*others})
    assert len(letters) + len(numbers) + len(others) + len(spaces) == len(CODE_POINTS)

    split, strip = WhitespaceSplit().pre_tokenize_str, Strip().normalize_str
    assert spaces == [code for code in CODE_POINTS if len(split(f"a{chr(code)}b")) == 2]
    assert spaces == [code for code in CODE_POINTS if strip(f"{chr(code)}a{chr(code)}") == "a"]

    tokenizer = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tokenizer.add_tokens(
        [AddedToken("T", single_word=True), AddedToken("<", lstrip=True), AddedToken(">", rstrip=True)]
    )
    word = tokenizer.token_to_id("T")
    words = [ord("T")]
    for character in map(chr, CODE_POINTS):
        if character in "T<>":
            continue
        is_joined = word not in tokenizer.encode(f"{character}T").ids
        assert is_joined == (word not in tokenizer.encode(f"T{character}").ids)
        words += [ord(character)] * is_joined
        is_space = ord(character) in spaces
        assert tokenizer.encode(f"a{character}<").offsets[1][0] == (1 if is_space else 2)
        assert tokenizer.encode(f">{character}a").offsets[0][1] == (2 if is_space else 1)
    return {"letters": letters, "numbers": numbers, "spaces": spaces, "words": sorted(words)}
