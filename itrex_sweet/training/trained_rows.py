"""Which rows a model was trained on, so that calibration can tell them from others later."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrex_sweet.artifact.fingerprints import Fingerprints

_TOKENS, _MASK = "input_ids", "attention_mask"


def fingerprints_of(dataloader: Any) -> Fingerprints | None:
    """Fingerprints of the rows behind a Trainer's dataloader; `None` unless it is a `datasets.Dataset` of token ids.

    Padding, as far as an attention mask tells it, is left out.
    """
    dataset = getattr(dataloader, "dataset", None)
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or _TOKENS not in columns or not hasattr(dataset, "with_format"):
        return None
    plain = dataset.select_columns([name for name in (_TOKENS, _MASK) if name in columns]).with_format(None)
    return Fingerprints.of(_unpadded(row) for row in plain)


def _unpadded(row: dict[str, Any]) -> np.ndarray:
    tokens = np.asarray(row[_TOKENS])
    return tokens[np.asarray(row[_MASK], dtype=bool)] if _MASK in row else tokens
