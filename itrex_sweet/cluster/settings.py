"""The settings of a folder of answers. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.arguments import choice, truth, whole_number

DEFAULT_ROWS_PER_PART = 10_000
JSON_LINES, PARQUET = "jsonl", "parquet"
OUTPUT_FORMATS = (JSON_LINES, PARQUET)  # also the suffixes of files


@dataclass(frozen=True)
class FolderSettings:
    """All settings that answers of a folder depend on, besides input and artifact.

    Args:
        format: of the input files; by default that of each suffix.
        text_column, pair_column: see `data.read_rows`.
        rows_per_part: maximum number of rows of a file of answers.
        output_format: `"jsonl"` or `"parquet"`.
        echo: repeat each text, and its column `id`, beside its answer.
        loading: options of `Classifier.load` that change answers.
        prediction: options of `Classifier.predict`.

    Raises:
        ConfigError: a value of a wrong type or out of range.
    """

    format: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    rows_per_part: int = DEFAULT_ROWS_PER_PART
    output_format: str = JSON_LINES
    echo: bool = False
    loading: dict[str, Any] = field(default_factory=dict)
    prediction: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choice("output_format", self.output_format, OUTPUT_FORMATS)
        object.__setattr__(self, "rows_per_part", whole_number("rows_per_part", self.rows_per_part, minimum=1))
        object.__setattr__(self, "echo", truth("echo", self.echo))
