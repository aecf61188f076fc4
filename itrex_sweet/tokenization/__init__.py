"""From texts, as people pass them, to packed rows of token ids."""

from itrex_sweet.tokenization.reader import Reading, TextReader

__all__ = ["Reading", "TextReader"]
