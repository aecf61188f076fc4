"""Texts and labels from CSV, JSON-lines and text files, or from a `datasets` name. Imports no torch."""

from itrex_sweet.data.columns import Text
from itrex_sweet.data.files import FORMATS
from itrex_sweet.data.rows import Rows, read_rows, read_texts, standard_input

__all__ = ["FORMATS", "Rows", "Text", "read_rows", "read_texts", "standard_input"]
