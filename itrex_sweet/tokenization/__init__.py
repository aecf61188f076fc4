"""Converts input texts to packed rows of token ids."""

from itrex_sweet.tokenization.reader import Reading, TextReader

__all__ = ["Reading", "TextReader"]
