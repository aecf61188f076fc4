"""Parses the JSON files of an artifact safely."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from itrex_sweet.errors import ArtifactError

MAX_DEPTH = 32  # levels of lists and objects; an artifact needs 6


def parse_object(text: bytes, file: Path, unique_names: bool = False) -> dict[str, Any]:
    """Parses a JSON object; limits its depth, and rejects strings that cannot be encoded.

    Args:
        text: contents of the file, in UTF-8.
        file: path for error messages.
        unique_names: whether a duplicate name in an object is an error; otherwise the last one is used.

    Raises:
        ArtifactError: not UTF-8, not JSON, not an object, nested too deeply, or a string with a lone surrogate.
    """
    advice = "the folder is damaged: write the artifact again, or copy the whole folder again"
    try:
        contents = json.loads(text.decode("utf-8"), object_pairs_hook=_reject_duplicates if unique_names else None)
    except RecursionError:
        raise ArtifactError(f"{file} is nested deeper than {MAX_DEPTH} levels; {advice}.") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise ArtifactError(f"{file} cannot be read as JSON ({error}); {advice}.") from error
    if not isinstance(contents, dict):
        raise ArtifactError(f"{file} holds {type(contents).__name__}, not an object; {advice}.")
    level: list[Any] = [contents]
    for _ in range(MAX_DEPTH):
        level = [part for value in level for part in _parts(value, file)]
        if not level:
            return contents
    raise ArtifactError(f"{file} is nested deeper than {MAX_DEPTH} levels; {advice}.")


def _parts(value: Any, file: Path) -> Iterable[Any]:
    """Returns the elements of a container; none for other values."""
    if isinstance(value, str):
        if not _is_encodable(value):
            raise ArtifactError(f"{file} holds {value!r}, which is not valid Unicode; write the artifact again.")
        return ()
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    contents = dict(pairs)
    if len(contents) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{duplicate!r} is a duplicate name")
    return contents
