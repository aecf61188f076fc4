"""Texts and labels from CSV, JSON and text files, or from a `datasets` name. Imports no torch."""

from itrex_sweet.data.columns import Text
from itrex_sweet.data.files import FORMATS
from itrex_sweet.data.labels import label_ids
from itrex_sweet.data.lines import is_readable, standard_input, waits_for_texts
from itrex_sweet.data.rows import Rows, TextRow, read_rows, read_text_rows, read_texts

__all__ = [
    "FORMATS",
    "Rows",
    "Text",
    "TextRow",
    "is_readable",
    "label_ids",
    "read_rows",
    "read_text_rows",
    "read_texts",
    "standard_input",
    "waits_for_texts",
]
