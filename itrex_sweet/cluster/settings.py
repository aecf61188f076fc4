"""The settings of a folder of answers. Imports the standard library and `errors` only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.errors import ConfigError

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
        if self.output_format not in OUTPUT_FORMATS:
            raise ConfigError(f"output_format={self.output_format!r}: choose one of {', '.join(OUTPUT_FORMATS)}.")
