"""Tokenizers that feed engines with padded arrays: the fast path of `tokenizers`, and the reader of this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fine_tuning import MAX_LENGTH
from peers.base import padded

Padded = tuple[np.ndarray, np.ndarray, np.ndarray]  # token ids, attention mask, token types: (rows, columns) int64
PaddingTokenizer = Callable[[list[Any]], Padded]


def tokenizers_fast(folder: Path, multiple: int = 1) -> PaddingTokenizer:
    """Returns the tokenizer of a model as `tokenizers` runs it fastest: batches without offsets, on all threads.

    Args:
        folder: of the model.
        multiple: the longest row's length is rounded up to a multiple of this.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(pad_to_multiple_of=multiple)

    def tokenize(texts: list[Any]) -> Padded:
        rows = tokenizer.encode_batch_fast(texts)
        ids, mask, types = ([getattr(row, name) for row in rows] for name in ("ids", "attention_mask", "type_ids"))
        return np.array(ids, np.int64), np.array(mask, np.int64), np.array(types, np.int64)

    return tokenize


def own_reader(folder: Path, multiple: int = 1) -> PaddingTokenizer | None:
    """Returns the reader that the package's classifier uses, padded by NumPy; `None` without a native one.

    Args:
        folder, multiple: as of `tokenizers_fast`.
    """
    from transformers import AutoTokenizer

    from itrex_sweet.tokenization import TextReader

    reader = TextReader(AutoTokenizer.from_pretrained(folder), MAX_LENGTH, None)
    if not hasattr(reader, "pack") or reader.pack(["a text"]) is None:
        return None

    def tokenize(texts: list[Any]) -> Padded:
        batch = reader.pack(texts, MAX_LENGTH)
        return padded(reader.read(texts, MAX_LENGTH, "truncate").batch if batch is None else batch, multiple)

    return tokenize


TOKENIZERS = {"tokenizers": tokenizers_fast, "this package's reader": own_reader}
