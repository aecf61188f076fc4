"""Parts of input files: consecutive rows that one worker answers in one call, and their answers as bytes of a file."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itrex_sweet.cluster.answering import answer_rows
from itrex_sweet.cluster.columns import AnswerColumns
from itrex_sweet.cluster.input_files import InputFile
from itrex_sweet.cluster.loading import load_for_worker
from itrex_sweet.cluster.settings import JSON_LINES, PARQUET
from itrex_sweet.data import Text, TextRow, batches
from itrex_sweet.data.json_lines import json_line
from itrex_sweet.extras import naming_extras

_DIGITS = 12  # of the numbers of rows in names, so that the order of names is that of rows


@dataclass(frozen=True)
class Part:
    """Consecutive rows of an input file.

    Args:
        source: name of the file.
        first: number of the first row, from 0.
        rows: the rows.
    """

    source: str
    first: int
    rows: Sequence[TextRow]

    @property
    def name(self) -> str:
        """Name of the file of answers, without suffix: made of the file and of the first and last row."""
        return f"{self.source}.{self.first:0{_DIGITS}}-{self.first + len(self.rows) - 1:0{_DIGITS}}"

    def question(self, echo: bool) -> Question:
        """Returns what a worker needs to answer the part."""
        texts = [row.text for row in self.rows]
        echoes = [echoed(row) for row in self.rows] if echo else None
        return Question(self.first, texts, [row.problem for row in self.rows], echoes)


@dataclass(frozen=True)
class Question:
    """A part as it is sent to a worker: texts, and reasons why rows have none; see `Part` and `answer_rows`."""

    first: int
    texts: Sequence[Text | None]
    problems: Sequence[str | None]
    echoes: Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True)
class PartAnswers:
    """The answers of a part.

    Args:
        contents: bytes of the file of answers, of the rows that have one.
        problems: number of a row, from 0 in its file, and the reason why it has no answer.
    """

    contents: bytes
    problems: Sequence[tuple[int, str]]


def parts_of(file: InputFile, rows: Iterator[TextRow], rows_per_part: int) -> Iterator[Part]:
    """Yields the parts of a file; one has fewer rows if its texts are long, and at the end of the file.

    Raises:
        InputError: the file cannot be read to its end. The rows after the last whole part are in no part.
    """
    first = 0
    for batch in batches(rows, rows_per_part, live=False):
        yield Part(file.name, first, batch)
        first += len(batch)


class PartAnswerer:
    """Answers parts, in the process that reads the files or in a worker.

    Args:
        artifact, identity, threads: as of `load_for_worker`.
        loading: options of `Classifier.load`.
        settings: options of `Classifier.predict`.
        output_format: one of `settings.OUTPUT_FORMATS`.

    Raises:
        ConfigError, ArtifactError, BackendUnavailable, MissingExtraError: as `load_for_worker`.
    """

    def __init__(
        self,
        artifact: str,
        identity: str,
        threads: int | None,
        loading: Mapping[str, Any],
        settings: Mapping[str, Any],
        output_format: str = JSON_LINES,
    ):
        self.classifier = load_for_worker(artifact, identity=identity, threads=threads, **loading)
        self._settings = settings
        self._format = output_format
        self._columns = AnswerColumns(self.classifier.artifact.task.name, settings.get("top_k") is not None)
        self.classifier.predict([], **settings)  # checks them

    @property
    def engine(self) -> str:
        """Backend and instruction set, of which the last bits of scores may depend."""
        backend = self.classifier.backend
        return " ".join(filter(None, [backend.name, getattr(backend, "isa", None)]))

    def answer(self, question: Question) -> PartAnswers:
        """Returns the answers of a part; they depend on nothing but the part."""
        answers = answer_rows(self.classifier, question.texts, question.problems, self._settings)
        numbers = range(question.first, question.first + len(answers))
        problems = [(row, answer["error"]) for row, answer in zip(numbers, answers, strict=True) if "error" in answer]
        echoes = question.echoes or [{}] * len(answers)
        good = [
            (row, echo, answer)
            for row, echo, answer in zip(numbers, echoes, answers, strict=True)
            if "error" not in answer
        ]
        encoded = self._table(good, question.echoes is not None) if self._format == PARQUET else _lines(good)
        return PartAnswers(encoded, problems)

    def _table(self, rows: list[tuple[int, Mapping[str, Any], Mapping[str, Any]]], with_echo: bool) -> bytes:
        """Returns a Parquet file. Its columns do not depend on the rows, so that all parts have the same ones."""
        with naming_extras("writing a Parquet file"):
            import pyarrow as pa
            from pyarrow import parquet
        columns: dict[str, Any] = {"row": pa.array([row for row, _, _ in rows], type=pa.int64())}
        if with_echo:
            texts = [(echo["text"], None) if isinstance(echo["text"], str) else echo["text"] for _, echo, _ in rows]
            ids = [_as_string(echo.get("id")) for _, echo, _ in rows]
            first, second = ([text[place] for text in texts] for place in (0, 1))
            for name, values in (("id", ids), ("text", first), ("text_pair", second)):
                columns[name] = pa.array(values, type=pa.string())
        answers = self._columns.arrow_arrays([answer for _, _, answer in rows])
        columns |= {name: values for name, values in answers.items() if name != "error"}
        stream = io.BytesIO()
        parquet.write_table(pa.table(columns), stream, compression="zstd")
        return stream.getvalue()


def _lines(rows: list[tuple[int, Mapping[str, Any], Mapping[str, Any]]]) -> bytes:
    lines = (json_line({"row": row, **echo, **answer}) for row, echo, answer in rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def echoed(row: TextRow) -> dict[str, Any]:
    """Returns the text of a row, and the value of its column `id` if it has one, to be repeated beside the answer."""
    name = next((name for name in row.record if str(name).lower() == "id"), None)
    return {**({} if name is None else {"id": _as_json(row.record[name])}), "text": row.text}


def _as_json(value: Any) -> Any:
    """Returns a value that JSON can hold: dates, times, decimals and numbers that are not finite as strings."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    return str(value)


def _as_string(value: Any) -> str | None:
    """Returns a value of JSON as a string that UTF-8 can hold."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json_line(value)
    return text.encode("utf-8", "backslashreplace").decode()
