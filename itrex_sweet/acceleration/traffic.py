"""Unlabelled texts of a deployed classifier: reads them, removes duplicates, and splits them."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.arguments import integer, whole_number
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import MIN_ROWS
from itrex_sweet.calibration.guarantees import guarantee_for
from itrex_sweet.calibration.selection import TUNING_SHARE
from itrex_sweet.data import Rows, Text, read_rows
from itrex_sweet.data.invalid_rows import warn_of_invalid_rows
from itrex_sweet.errors import InputError
from itrex_sweet.tokenization.inputs import listed, text_or_reason

logger = logging.getLogger(__name__)

MIN_TRAINING_TEXTS = 200
MAX_UNKNOWN_SHARE = 0.2  # of unknown tokens; more suggest another language
_CHECKED_TEXTS = 500
_SHARES = {"exits": 0.40, "quantization": 0.08, "calibration": 0.40, "report": 0.12}
_MAX_ROWS = {"quantization": 1200, "calibration": 30_000, "report": 5000}
_MIN_ROWS = {"quantization": 100, "report": 100}


@dataclass(frozen=True)
class Traffic:
    """Texts, or pairs of texts, without duplicates.

    Args:
        texts: in the order of their source.
        source: name of the source, for messages and records.
        repeated: number of duplicates that were removed.
    """

    texts: list[Text]
    source: str
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def identity(self) -> str:
        """Returns a hash of the texts."""
        return hashlib.sha256("\x00".join("\x01".join(_parts(text)) for text in self.texts).encode()).hexdigest()

    def rows(self, places: Sequence[int]) -> Rows:
        """Returns the texts at some indices."""
        return Rows([self.texts[place] for place in places], source=self.source)


def read_traffic(source: Any, limit: int | None = None, **columns: Any) -> Traffic:
    """Reads texts; labels are ignored, and a few rows without a text are skipped with a warning.

    Args:
        source: a file or `datasets` name, a `datasets.Dataset`, or a list of texts or of pairs.
        limit: maximum number of rows to read.
        columns: `text_column`, `pair_column`, `split` and `dataset_config` of `itrex_sweet.data.read_rows`.

    Raises:
        InputError: the source does not exist, cannot be read, has no rows, or many rows without a text.
        ConfigError: a column does not exist, or `limit` is not positive.
    """
    if isinstance(source, Traffic):
        return source
    limit = None if limit is None else whole_number("limit", limit, 1)
    if isinstance(source, Rows):
        rows = source
    elif isinstance(source, str) or hasattr(source, "__fspath__") or hasattr(source, "column_names"):
        rows = read_rows(source, label_column=None, limit=limit, skip_invalid=True, **columns)
    else:
        read = [text_or_reason(text) for text in listed(source)]
        invalid = [f"row {row}: {reason}" for row, (_, reason) in enumerate(read) if reason is not None]
        rows = Rows([text for text, _ in read if text is not None], source="the given texts")
        warn_of_invalid_rows(invalid, len(rows), rows.source)
    if limit is not None:
        rows = Rows(rows.texts[:limit], source=rows.source)
    if not len(rows):
        raise InputError(f"{rows.source or 'the traffic'}: there are no rows.")
    first = {_normalized(text): text for text in reversed(rows.texts)}  # keeps the first of equal texts
    texts = list(reversed(first.values()))
    return Traffic(texts, rows.source or "the given texts", len(rows) - len(texts))


def check_enough_texts(traffic: Traffic, minimum: int, purpose: str) -> None:
    """Checks that there are enough different texts.

    Raises:
        InputError: there are too few; the message has the number that is needed.
    """
    if len(traffic) < minimum:
        repeated = f" ({traffic.repeated} duplicates removed)" if traffic.repeated else ""
        raise InputError(
            f"{traffic.source}: {purpose} needs at least {minimum} different texts; there are {len(traffic)}{repeated}."
            " Several times as many give better results."
        )


def min_rows(budget: Budget) -> int:
    """Returns the number of different texts that `accelerate` needs to certify a budget."""
    calibration = max(guarantee_for(budget).min_rows() / (1 - TUNING_SHARE), MIN_ROWS)
    others = MIN_TRAINING_TEXTS + sum(_MIN_ROWS.values())
    return math.ceil(max(calibration / _SHARES["calibration"], others / (1 - _SHARES["calibration"])))


def split_traffic(traffic: Traffic, seed: int) -> dict[str, Rows]:
    """Splits the texts at random into disjoint parts.

    Returns:
        `"exits"` for training them; `"quantization"` for quantization and pruning; `"calibration"` for choosing and
        certifying a policy; `"report"` for the final measurement.
    """
    count = len(traffic)
    sizes = {
        part: min(max(round(share * count), _MIN_ROWS.get(part, 0)), _MAX_ROWS.get(part, count))
        for part, share in _SHARES.items()
    }
    sizes["exits"] = count - sum(size for part, size in sizes.items() if part != "exits")
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum(list(sizes.values()))[:-1]
    return {part: traffic.rows(np.sort(places)) for part, places in zip(sizes, np.split(order, ends), strict=True)}


def warn_of_unknown_tokens(tokenizer: Any, texts: Sequence[Text], source: str) -> None:
    """Warns if the tokenizer maps many words to the unknown token, as for another language or script."""
    unknown = integer(getattr(tokenizer, "unk_token_id", None))
    if unknown is None:
        return
    special = {*tokenizer.all_special_ids} - {unknown}
    texts_to_check = [parts for text in texts[:_CHECKED_TEXTS] for parts in _parts(text)]
    ids = [
        token
        for row in tokenizer(texts_to_check, truncation=True)["input_ids"]
        for token in row
        if token not in special
    ]
    share = ids.count(unknown) / max(len(ids), 1)
    if share > MAX_UNKNOWN_SHARE:
        logger.warning(
            "%.0f %% of the words in %s are unknown to the model's tokenizer: check that the texts are in the language "
            "that the model was trained for.",
            100 * share,
            source,
        )


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _normalized(text: Text) -> tuple[str, ...]:
    """Returns a text in lower case with white space collapsed, for the comparison of texts."""
    return tuple(" ".join(part.split()).lower() for part in _parts(text))
