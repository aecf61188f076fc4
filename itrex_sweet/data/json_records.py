"""Reads JSON records: one object per line, or one document with all records."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain
from typing import Any

from itrex_sweet.data.line import Line

DATA_KEY = "data"  # of an object that holds the records of a document


def json_records(lines: Iterable[str], source: str) -> Iterator[Line]:
    """Yields the records of JSON lines, or of a document: an array of objects or of texts, also under the key `data`.

    The input is a document if its first line is an incomplete array or object.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if not _is_blank(line))
    first = next(numbered, None)
    if first is None:
        return
    value, problem = _parsed(first[1])
    if _begins_document(first[1], problem) or (problem is None and _items(value) is not None):
        if problem is not None:
            rest = list(numbered)
            yield from _document([first, *rest], source)
            return
        second = next(numbered, None)
        if second is None:
            yield from _document([first], source)
            return
        numbered = chain([second], numbered)
    yield _record(first, source)
    for each in numbered:
        yield _record(each, source)


def _record(numbered: tuple[int, str], source: str) -> Line:
    """Returns one line as a record."""
    number, line = numbered
    value, problem = _parsed(line)
    place = f"{source}, line {number}"
    return Line(place, {}, f"not a JSON object ({problem})") if problem is not None else _as_line(place, value)


def _as_line(place: str, value: Any) -> Line:
    if isinstance(value, dict):
        return Line(place, value)
    return Line(place, {}, f"a JSON {type(value).__name__}, not an object")


def _document(numbered: list[tuple[int, str]], source: str) -> Iterator[Line]:
    """Yields the records of a document, each with the line on which it starts."""
    numbers, lines = zip(*numbered, strict=True)
    starts = list(accumulate(map(len, lines), initial=0))
    text = "".join(lines)

    def line_of(position: int) -> str:
        return f"{source}, line {numbers[min(bisect_right(starts, position), len(numbers)) - 1]}"

    begin = _skip_space(text, 0)
    if text[begin : begin + 1] == "[":
        yield from _array(text, begin + 1, line_of)
        return
    try:
        value, end = _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError):
        # One object per line, of which the first is malformed.
        yield from (_record(each, source) for each in numbered)
        return
    items = _items(value)
    if items is not None and not text[end:].strip():
        yield from (_element(f"{source}, {DATA_KEY}[{row}]", item) for row, item in enumerate(items))
    else:
        yield from _objects(text, begin, line_of)


def _array(text: str, place: int, line_of: Callable[[int], str]) -> Iterator[Line]:
    """Yields the elements of an array, from the position after its opening bracket."""
    is_first = True
    while True:
        place = _skip_space(text, place)
        if text[place : place + 1] == "]":
            if text[place + 1 :].strip():
                yield Line(line_of(place), {}, "text after the JSON array; a file holds one array, or JSON lines")
            return
        if not is_first and text[place : place + 1] == ",":
            place = _skip_space(text, place + 1)
        elif not is_first and place < len(text):
            yield Line(
                line_of(place),
                {},
                "not JSON: a comma is missing between two elements; the rest of the file is not read",
            )
            return
        if place == len(text):
            yield Line(line_of(place), {}, "the JSON array is incomplete: its closing bracket is missing")
            return
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield Line(line_of(place), {}, f"not JSON ({_reason(error)}); the rest is not read")
            return
        yield _element(line_of(place), value)
        place, is_first = end, False


def _objects(text: str, place: int, line_of: Callable[[int], str]) -> Iterator[Line]:
    """Yields objects that are separated by white space, each over several lines."""
    while (place := _skip_space(text, place)) < len(text):
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield Line(line_of(place), {}, f"not JSON ({_reason(error)}); the rest is not read")
            return
        yield _as_line(line_of(place), value)
        place = end


def _element(place: str, value: Any) -> Line:
    """Returns an element of an array, an object or a text, as a record."""
    return Line(place, {"text": value}) if isinstance(value, str) else _as_line(place, value)


def _items(value: Any) -> list[Any] | None:
    """Returns the records of a document, or `None` if it is not a document of several records."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and isinstance(value.get(DATA_KEY), list) and "text" not in value:
        return value[DATA_KEY]
    return None


def _begins_document(line: str, problem: str | None) -> bool:
    """Returns whether a first line starts an array, or an object over several lines."""
    stripped = line.strip()
    return problem is not None and (stripped[0] == "[" or (stripped[0] == "{" and stripped[-1] in "{[,"))


def _parsed(line: str) -> tuple[Any, str | None]:
    """Returns the value of a line, or `None` and the reason why it cannot be parsed."""
    try:
        return _DECODER.decode(line), None
    except (ValueError, RecursionError) as error:
        return None, _reason(error)


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object; raises `ValueError` for a repeated key, of which one value would be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is repeated")
    return value


_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def _is_blank(line: str) -> bool:
    return not line.strip()


def _skip_space(text: str, place: int) -> int:
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]
