"""Converts texts, token ids and labels from the types that users pass.

Columns and arrays of other libraries are recognized by their methods, without importing the libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from itrex_sweet.errors import InputError
from itrex_sweet.runtime.ragged import integers

Text = str | tuple[str, str]

TEXT, TEXT_PAIR = "text", "text_pair"
_TOKENS = "input_ids"


def listed(texts: Any) -> list[Any]:
    """Converts a collection of texts to a list, whose elements `text_or_reason` checks.

    Takes a list, a tuple or any other ordered iterable, a column of pandas, datasets, pyarrow or polars, and a NumPy
    array of (rows,) strings or (rows, 2) pairs of them.

    Raises:
        InputError: a single text, a table, a mapping, a set or another array; for a table the message names the column
            that may be meant.
    """
    if isinstance(texts, str):
        raise InputError("predict takes a list of texts: predict([text]) for one.")
    if isinstance(texts, (bytes, bytearray, memoryview)):
        raise InputError(f"predict takes a list of texts, not {type(texts).__name__}; decode it first.")
    if isinstance(texts, Mapping):
        raise InputError(_of_mapping(texts))
    for attribute in ("column_names", "columns"):
        if hasattr(type(texts), attribute):  # of the class: a pandas column has its index as attributes
            raise InputError(f"{_a(texts)} is a table; {_name_a_column(_names(getattr(texts, attribute)))}")
    if isinstance(texts, (set, frozenset)):
        raise InputError(f"{_a(texts)} has no order, and answers come in the order of the texts; pass a list.")
    if _is_tensor(texts):
        raise InputError(f"predict takes texts, not {_a(texts)}; token ids go to model(input_ids=...).")
    if isinstance(texts, np.ndarray):
        return _of_array(texts)
    for method in ("to_pylist", "tolist", "to_list"):  # pyarrow, pandas, polars
        if callable(getattr(texts, method, None)):
            values = getattr(texts, method)()
            if isinstance(values, list):
                return values
    if not isinstance(texts, Iterable):
        raise InputError(f"predict takes a list of texts, not {_a(texts)}.")
    return list(texts)


def text_or_reason(given: Any) -> tuple[Text | None, str | None]:
    """Checks one element; returns the text or pair of texts, or the reason why it is invalid.

    A pair is a tuple, a list or an array of two strings, or a mapping `{"text": ..., "text_pair": ...}`.
    """
    parts = given
    if isinstance(given, str):
        parts = (given,)
    elif isinstance(given, Mapping):
        unknown = [str(key) for key in given if key not in (TEXT, TEXT_PAIR)]
        if unknown or TEXT not in given:
            shown = ", ".join(map(str, given)) or "nothing"
            return None, f"a row holds {TEXT!r} and, for a pair, {TEXT_PAIR!r}; this one holds {shown}"
        parts = (given[TEXT],) if given.get(TEXT_PAIR) is None else (given[TEXT], given[TEXT_PAIR])
    elif isinstance(given, np.ndarray) and given.ndim == 1:
        parts = given.tolist()
    if not isinstance(parts, (tuple, list)) or not all(isinstance(part, str) for part in parts):
        return None, _not_a_text(given)
    if len(parts) not in (1, 2) or (len(parts) == 1 and not isinstance(given, (str, Mapping))):
        return None, f"{len(parts)} texts; a row is one text or a pair"
    for part in parts:
        if not part.strip():
            return None, "the text is empty"
        if not part.isascii() and (surrogate := _surrogate(part)) is not None:
            return None, f"character {surrogate} is half of a surrogate pair: decode the text again"
    # Subclasses, such as NumPy's, become plain strings.
    parts = tuple(part if type(part) is str else str.__str__(part) for part in parts)
    return parts if len(parts) == 2 else parts[0], None


def plain_texts(texts: Iterable[Any]) -> list[Text]:
    """Converts valid elements to strings and tuples of two strings.

    Raises:
        InputError: an element is invalid.
    """
    read = [text_or_reason(text) for text in texts]
    for row, (_, reason) in enumerate(read):
        if reason is not None:
            raise InputError(f"row {row}: {reason}", (row,))
    return [text for text, _ in read if text is not None]


def numbers_of(name: str, values: Any) -> np.ndarray | None:
    """Converts token ids, a mask or labels to an array, from a tensor on any device, an array, or nested lists.

    Raises:
        InputError: texts, rows of different lengths, or values that are not numbers.
    """
    if values is None:
        return None
    if isinstance(values, Mapping):
        raise InputError(f"{name} is {_a(values)}; pass what a tokenizer returns as model(**encoded).")
    if _is_tensor(values):
        try:
            return values.detach().cpu().numpy()
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{name} is a tensor of {values.dtype} that NumPy cannot hold ({error}).") from error
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{name} has rows of different lengths, or is nested unevenly; tokenizer(..., padding=True) fills them up."
        ) from error
    if array.dtype.kind in "USTO":
        raise InputError(f"{name} {_held(array) if array.ndim else f'is {_a(values)}, and not rows of integers'}.")
    if not array.size and not isinstance(values, np.ndarray):
        return array.astype(np.int64)  # an empty list has no type of its own
    return array


def labels_of(labels: Any, num_rows: int, num_labels: int) -> np.ndarray:
    """Converts labels to (rows,) int64; -100 stands for no label.

    Raises:
        InputError: the number of labels differs from that of rows, or a label is not an integer or out of range.
    """
    array = numbers_of("labels", labels)
    if array.shape != (num_rows,):
        raise InputError(f"labels have shape {array.shape}, and one for each of {num_rows} rows is needed.")
    array = integers("labels", array)
    bad = ((array < 0) & (array != -100)) | (array >= num_labels)
    if bad.any():
        raise InputError(f"label {array[bad][0]}: labels go from 0 to {num_labels - 1}.", _places(bad))
    return array


def label_vectors_of(labels: Any, num_rows: int, num_labels: int) -> np.ndarray:
    """Converts the labels of a multi-label task to (rows, labels) float32 of 0 and 1.

    Raises:
        InputError: another shape, or another number.
    """
    array = numbers_of("labels", labels)
    if array.shape != (num_rows, num_labels):
        raise InputError(
            f"labels have shape {array.shape}; a multi-label model needs a 0 or 1 for each of {num_labels} labels of "
            f"each of {num_rows} rows."
        )
    bad = ~((array == 0) | (array == 1)).all(axis=1)
    if bad.any():
        raise InputError(f"labels {array[bad][0].tolist()}: a multi-label row has a 0 or 1 per label.", _places(bad))
    return array.astype(np.float32)


def values_of(labels: Any, num_rows: int) -> np.ndarray:
    """Converts the labels of regression to (rows,) float32.

    Raises:
        InputError: the number of labels differs from that of rows, or one is not finite.
    """
    array = numbers_of("labels", labels)
    if array.shape not in ((num_rows,), (num_rows, 1)):
        raise InputError(f"labels have shape {array.shape}, and one value for each of {num_rows} rows is needed.")
    array = array.reshape(num_rows).astype(np.float32)
    bad = ~np.isfinite(array)
    if bad.any():
        raise InputError(f"label {array[bad][0]}: the labels of regression are finite numbers.", _places(bad))
    return array


def _places(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


def _of_array(texts: np.ndarray) -> list[Any]:
    if texts.dtype.kind not in "OUT":
        what = "bytes; decode them first" if texts.dtype.kind == "S" else "token ids? They go to model(input_ids=...)"
        raise InputError(f"predict takes texts, not an array of {texts.dtype}: {what}.")
    if texts.ndim == 1:
        return texts.tolist()
    if texts.ndim == 2 and texts.shape[1] == 2:
        return [tuple(row) for row in texts.tolist()]
    raise InputError(f"an array of texts has shape (rows,), or (rows, 2) for pairs, not {texts.shape}.")


def _of_mapping(texts: Mapping) -> str:
    if _TOKENS in texts:
        return "predict takes texts; what a tokenizer returns goes to model(**encoded)."
    if isinstance(texts.get(TEXT), str):
        return f"{_a(texts)} is one row; predict([row]) takes a list of them."
    return f"{_a(texts)} is a table; {_name_a_column(list(map(str, texts)))}"


def _names(columns: Any) -> list[str]:
    """Returns the column names; none if the attribute does not contain names."""
    names = list(() if columns is None else columns)
    return list(map(str, names)) if all(isinstance(name, (str, int, tuple)) for name in names) else []


def _name_a_column(names: list[str]) -> str:
    shown = f"Its columns are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}. " if names else ""
    likely = next((name for name in names if name in (TEXT, "sentence", "review", "content")), TEXT)
    return f"pass the column with the texts, such as predict(table[{likely!r}]) or its .tolist(). {shown}".strip()


def _not_a_text(given: Any) -> str:
    reason = f"{type(given).__name__} is not a text or a pair of texts"
    if isinstance(given, (bytes, bytearray)):
        return f"{reason}; decode it first"
    if isinstance(given, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in given[:3])
        return f"{reason}: it holds {kinds}"
    missing = given is None or type(given).__name__ == "NAType" or (isinstance(given, float) and given != given)
    return f"{reason}; the value is missing" if missing else reason


def _surrogate(text: str) -> int | None:
    """Returns the index of the first character that UTF-8 cannot encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _is_tensor(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("detach", "cpu", "dtype", "numpy"))


def _held(array: np.ndarray) -> str:
    """Describes the contents of an array that is not numeric."""
    if array.dtype.kind != "O":
        return "holds texts, and integers are needed; texts go to model.predict([text, ...])"
    others = [type(value).__name__ for value in array.flat if not isinstance(value, int)]
    return f"holds {others[0]}, and integers are needed" if others else "holds an integer beyond 64 bits"


def _a(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]} {kind.__name__}"
