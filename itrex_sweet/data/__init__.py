"""Reads texts and labels from CSV, TSV, JSON and text files, and from data sets of `datasets`. Imports no torch."""

from itrex_sweet.data.batching import batches
from itrex_sweet.data.columns import Text
from itrex_sweet.data.files import FORMATS, file_lines, stream_lines
from itrex_sweet.data.labels import label_ids
from itrex_sweet.data.lines import STDIN, is_readable, standard_input, waits_for_texts
from itrex_sweet.data.rows import Rows, TextRow, read_rows, read_text_rows, read_texts

__all__ = [
    "FORMATS",
    "STDIN",
    "Rows",
    "Text",
    "TextRow",
    "batches",
    "file_lines",
    "is_readable",
    "label_ids",
    "read_rows",
    "read_text_rows",
    "read_texts",
    "standard_input",
    "stream_lines",
    "waits_for_texts",
]
