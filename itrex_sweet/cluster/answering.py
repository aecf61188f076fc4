"""Answers rows of which some cannot be read: the reason takes the place of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from itrex_sweet.classifier import Classifier
from itrex_sweet.data import Text


def answer_rows(
    classifier: Classifier,
    texts: Sequence[Text | None],
    problems: Sequence[str | None],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Classifies the rows that have a text.

    Args:
        texts: a text or pair for each row without a problem.
        problems: reason why a row has no text, or `None`.
        settings: options of `Classifier.predict`.

    Returns:
        one dictionary per row as `Classifier.predict` returns it; only `error` for a row with a problem.
    """
    readable = [text for text, problem in zip(texts, problems, strict=True) if problem is None]
    predictions = iter(classifier.predict(readable, errors="mark", **settings) if readable else [])
    return [next(predictions) if problem is None else {"error": problem} for problem in problems]
