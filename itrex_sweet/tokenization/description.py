"""Describes a tokenizer of the `tokenizers` library to the native one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from itrex_sweet.tokenization import byte_level_bpe, native_library, unigram, wordpiece
from itrex_sweet.tokenization.model_description import Arrays, ModelDescription, UnsupportedTokenizer
from itrex_sweet.tokenization.native_library import CTokenizer
from itrex_sweet.tokenization.parts import parts_of, state_of

_MAX_TOKEN_ID = (1 << 24) - 1

# Model of the `tokenizers` library → the function that describes it with its normalizer and pre-tokenizer.
_MODELS: dict[str, Callable[[Any, Callable[[], dict[str, Any]], Arrays], ModelDescription]] = {
    "WordPiece": wordpiece.describe,
    "BPE": byte_level_bpe.describe,
    "Unigram": unigram.describe,
}


def description_of(
    backend: Any, model_state: Callable[[], dict[str, Any]] | None, arrays: Arrays
) -> tuple[CTokenizer, str, int]:
    """Returns the description of a tokenizer for the library, the name of its kind, and the largest token id.

    Args:
        backend: a `tokenizers.Tokenizer`.
        model_state: returns its model as the library writes it, where that is known already.
        arrays: receives what the description points to.

    Raises:
        UnsupportedTokenizer: the library does not read this kind.
    """
    kind = type(backend.model).__name__
    if kind not in _MODELS:
        raise UnsupportedTokenizer(f"its model is {kind}, not {' or '.join(_MODELS)}")
    # The state is faster to read than `get_vocab`.
    model = _MODELS[kind](backend, model_state or (lambda: state_of(backend.model)), arrays)
    ids = list(model.vocabulary.values())
    if not ids:
        raise UnsupportedTokenizer("its vocabulary is empty")
    if max(ids) > _MAX_TOKEN_ID:
        raise UnsupportedTokenizer(f"its vocabulary has an id above {_MAX_TOKEN_ID}")
    single, pair = (template_of(backend, is_pair) for is_pair in (False, True))
    added = backend.get_added_tokens_decoder()
    description = CTokenizer(
        model_kind=model.kind,
        single_items=len(single),
        pair_items=len(pair),
        unused=0,
        model=arrays.pointer(model.structure),
        pieces=arrays.strings(model.vocabulary),
        ids=arrays.integers(ids),
        added=arrays.strings([token.content for token in added.values()]),
        added_ids=arrays.integers(list(added)),
        added_flags=arrays.integers([_flags(token, bool(backend.encode_special_tokens)) for token in added.values()]),
        single=arrays.integers(single),
        pair=arrays.integers(pair),
    )
    special = [token for kind, token, _ in (*single, *pair) if kind == native_library.SPECIAL_TOKEN]
    return description, model.name, max([*ids, *added, *special])


def _flags(token: Any, encode_special_tokens: bool) -> int:
    flags = {
        native_library.NORMALIZED: token.normalized,
        native_library.IS_TEXT: encode_special_tokens and token.special,
        native_library.TAKES_LEFT: token.lstrip,
        native_library.TAKES_RIGHT: token.rstrip,
        native_library.SINGLE_WORD: token.single_word,
    }
    return sum(flag for flag, is_set in flags.items() if is_set)


def template_of(backend: Any, is_pair: bool) -> list[tuple[int, int, int]]:
    """Returns the special tokens and texts of a row in order: kind, token id and token type.

    Raises:
        UnsupportedTokenizer: a post-processor that makes other rows.
    """
    # `ByteLevel` changes offsets only.
    states = [part for part in parts_of(state_of(backend.post_processor), "processors") if part["type"] != "ByteLevel"]
    first, second = (native_library.FIRST_TEXT, 0, 0), (native_library.SECOND_TEXT, 0, 1)
    if not states:
        return [first, second] if is_pair else [first]
    state = states[0]
    if len(states) > 1 or state["type"] not in _TEMPLATES:
        raise UnsupportedTokenizer(f"its post-processor is {' and '.join(part['type'] for part in states)}")
    row = _TEMPLATES[state["type"]](state, is_pair)
    texts = sorted(kind for kind, _, _ in row if kind != native_library.SPECIAL_TOKEN)
    if texts != ([native_library.FIRST_TEXT, native_library.SECOND_TEXT] if is_pair else [native_library.FIRST_TEXT]):
        raise UnsupportedTokenizer("its template repeats or leaves out a text")
    return row


def _bert(state: dict[str, Any], is_pair: bool) -> list[tuple[int, int, int]]:
    cls, sep = ((native_library.SPECIAL_TOKEN, state[name][1], 0) for name in ("cls", "sep"))
    row = [cls, (native_library.FIRST_TEXT, 0, 0), sep]
    return [*row, (native_library.SECOND_TEXT, 0, 1), (*sep[:2], 1)] if is_pair else row


def _roberta(state: dict[str, Any], is_pair: bool) -> list[tuple[int, int, int]]:
    cls, sep = ((native_library.SPECIAL_TOKEN, state[name][1], 0) for name in ("cls", "sep"))
    row = [cls, (native_library.FIRST_TEXT, 0, 0), sep]
    return [*row, sep, (native_library.SECOND_TEXT, 0, 0), sep] if is_pair else row


def _template(state: dict[str, Any], is_pair: bool) -> list[tuple[int, int, int]]:
    row = []
    for item in state["pair" if is_pair else "single"]:
        if "Sequence" in item:
            kind = native_library.FIRST_TEXT if item["Sequence"]["id"] == "A" else native_library.SECOND_TEXT
            row.append((kind, 0, item["Sequence"]["type_id"]))
        else:
            token = item["SpecialToken"]
            ids = state["special_tokens"][token["id"]]["ids"]
            row += [(native_library.SPECIAL_TOKEN, each, token["type_id"]) for each in ids]
    return row


_TEMPLATES = {"BertProcessing": _bert, "RobertaProcessing": _roberta, "TemplateProcessing": _template}
