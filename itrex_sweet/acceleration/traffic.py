"""Texts as they come to a deployed classifier, without labels: read, told apart, and dealt out for what they serve."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.arguments import integer
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import MIN_ROWS
from itrex_sweet.calibration.guarantees import guarantee_for
from itrex_sweet.calibration.selection import TUNING_SHARE
from itrex_sweet.data import Rows, Text, read_rows
from itrex_sweet.errors import InputError
from itrex_sweet.tokenization.inputs import listed, plain_texts

logger = logging.getLogger(__name__)

LEAST_TO_LEARN = 200  # rows that exits can learn anything from
MANY_UNKNOWN = 0.2  # share of unknown tokens in text that a model was not made for
_LOOKED_AT = 500
_SHARES = {"exits": 0.40, "quantization": 0.08, "calibration": 0.40, "report": 0.12}
_MOST = {"quantization": 1200, "calibration": 30_000, "report": 5000}
_LEAST = {"quantization": 100, "report": 100}


@dataclass(frozen=True)
class Traffic:
    """Different texts, or pairs of texts.

    Args:
        texts: in the order of their source, each once.
        source: of them, for messages and records.
        repeated: rows of the source left out because an equal text came before.
    """

    texts: list[Text]
    source: str
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def identity(self) -> str:
        """A hash of the texts."""
        return hashlib.sha256("\x00".join("\x01".join(_parts(text)) for text in self.texts).encode()).hexdigest()

    def rows(self, places: Sequence[int]) -> Rows:
        """Some of the texts."""
        return Rows([self.texts[place] for place in places], source=self.source)


def read_traffic(source: Any, limit: int | None = None, **columns: Any) -> Traffic:
    """Reads texts, whatever labels stand beside them.

    Args:
        source: a file or `datasets` name, a `datasets.Dataset`, or a list of texts or of pairs.
        limit: rows read at most.
        columns: `text_column`, `pair_column`, `split` and `dataset_config` of `itrex_sweet.data.read_rows`.

    Raises:
        InputError: not there, unreadable, or without rows.
        ConfigError: columns that are not there.
    """
    if isinstance(source, Traffic):
        return source
    if isinstance(source, Rows):
        rows = source
    elif isinstance(source, (str, bytes)) or hasattr(source, "__fspath__") or hasattr(source, "column_names"):
        rows = read_rows(source, label_column=None, limit=limit, **columns)
    else:
        rows = Rows(plain_texts(listed(source)), source="the texts given")
    if not len(rows):
        raise InputError(f"{rows.source or 'the traffic'}: there are no rows.")
    first = {_plain(text): text for text in reversed(rows.texts)}  # of equal texts, the first
    texts = list(reversed(first.values()))
    return Traffic(texts, rows.source or "the texts given", len(rows) - len(texts))


def refuse_too_few(traffic: Traffic, least: int, what: str) -> None:
    """Refuses traffic of fewer different texts.

    Raises:
        InputError: it says how many are needed.
    """
    if len(traffic) < least:
        repeated = f" ({traffic.repeated} others come twice)" if traffic.repeated else ""
        raise InputError(
            f"{traffic.source} has {len(traffic)} different texts{repeated}; {what} needs {least} at least, and "
            "several times as many do better."
        )


def min_rows(budget: Budget) -> int:
    """Different texts without which nothing could be certified."""
    calibration = max(guarantee_for(budget).min_rows() / (1 - TUNING_SHARE), MIN_ROWS)
    others = LEAST_TO_LEARN + sum(_LEAST.values())
    return math.ceil(max(calibration / _SHARES["calibration"], others / (1 - _SHARES["calibration"])))


def dealt(traffic: Traffic, seed: int) -> dict[str, Rows]:
    """The texts, dealt at random into parts that share none.

    Returns:
        `"exits"` learn from the first part; `"quantization"` observes ranges and judges exits, `"calibration"` chooses
        and tests policies, and figures are reported on `"report"`.
    """
    count = len(traffic)
    sizes = {
        part: min(max(round(share * count), _LEAST.get(part, 0)), _MOST.get(part, count))
        for part, share in _SHARES.items()
    }
    sizes["exits"] = count - sum(size for part, size in sizes.items() if part != "exits")
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum(list(sizes.values()))[:-1]
    return {part: traffic.rows(np.sort(places)) for part, places in zip(sizes, np.split(order, ends), strict=True)}


def warn_of_another_language(tokenizer: Any, texts: Sequence[Text], source: str) -> None:
    """Says aloud where a tokenizer knows few of the words, as of a language or script that it was not made for."""
    unknown = integer(getattr(tokenizer, "unk_token_id", None))
    if unknown is None:
        return
    special = {*tokenizer.all_special_ids} - {unknown}
    some = [parts for text in texts[:_LOOKED_AT] for parts in _parts(text)]
    ids = [token for row in tokenizer(some, truncation=True)["input_ids"] for token in row if token not in special]
    share = ids.count(unknown) / max(len(ids), 1)
    if share > MANY_UNKNOWN:
        logger.warning(
            "%.0f %% of the words in %s are unknown to the model's tokenizer: is this the language, and the kind of "
            "text, that the model was trained for?",
            100 * share,
            source,
        )


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _plain(text: Text) -> tuple[str, ...]:
    """A text with white space collapsed, in lower case: texts that differ in nothing else count as one."""
    return tuple(" ".join(part.split()).lower() for part in _parts(text))
