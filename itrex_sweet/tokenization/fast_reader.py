"""Chooses the fast reader of a tokenizer, if there is one that gives the same token ids."""

from __future__ import annotations

import logging
import os

from itrex_sweet.tokenization.encoders import FastEncoder, TextEncoder
from itrex_sweet.tokenization.model_description import UnsupportedTokenizer
from itrex_sweet.tokenization.native_library import LibraryUnavailable
from itrex_sweet.tokenization.native_reader import NativeReader
from itrex_sweet.tokenization.proof import difference
from itrex_sweet.warning_once import is_first

logger = logging.getLogger(__name__)

# The environment variable that turns fast readers off, and the value that does so.
READER_VARIABLE, WITHOUT = "ITREX_SWEET_READER", "tokenizers"


def fast_reader_of(encoder: TextEncoder) -> tuple[NativeReader | None, str | None]:
    """Returns the fast reader that replaces an encoder, or `None` and the reason why there is none."""
    if os.environ.get(READER_VARIABLE) == WITHOUT:
        return None, f"{READER_VARIABLE}={WITHOUT}"
    if not isinstance(encoder, FastEncoder):
        return None, "the tokenizer is one in Python, or cannot be copied"
    try:
        reader = NativeReader(encoder.backend, encoder.take_model_state)
        different = difference(reader, encoder)
    except (UnsupportedTokenizer, LibraryUnavailable) as error:
        return None, str(error)
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = f"the comparison with the tokenizers library failed ({type(error).__name__}: {error})"
        _warn(reason)
        return None, reason
    if different is not None:
        reason = f"{different} than the tokenizers library"
        _warn(reason)
        return None, reason
    return reader, None


def _warn(reason: str) -> None:
    if is_first(f"native tokenizer: {reason}"):
        logger.warning("The native tokenizer is not used: %s.", reason)
