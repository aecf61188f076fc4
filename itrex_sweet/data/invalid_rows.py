"""Skips a few rows of unlabelled texts that have no text."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from itrex_sweet.errors import InputError

logger = logging.getLogger(__name__)

MAX_INVALID_SHARE = 0.1  # of the rows; more suggest another column or format


def warn_of_invalid_rows(problems: Sequence[str], valid: int, source: str) -> None:
    """Warns of rows that were skipped.

    Args:
        problems: one message per invalid row.
        valid: number of the other rows.
        source: name of the data.

    Raises:
        InputError: more than a tenth of the rows are invalid.
    """
    if not problems:
        return
    if len(problems) > MAX_INVALID_SHARE * (valid + len(problems)):
        raise InputError(
            f"{source}: {len(problems)} of {valid + len(problems)} rows have no text that can be read. The first is "
            f"{problems[0]}."
        )
    rows = "1 row" if len(problems) == 1 else f"{len(problems)} rows"
    logger.warning("%s: skipped %s without a text. The first is %s.", source, rows, problems[0])
