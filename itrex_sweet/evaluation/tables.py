"""Tables as aligned text or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from itrex_sweet.metrics import NUMBERS

MISSING = "–"


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns columns aligned with spaces: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> str:
    """Returns a Markdown table: the first column aligned left, the others right unless `words`."""
    rule = ["---" if place == 0 or words else "---:" for place in range(len(headings))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, rule, *rows))


def figure(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Formats a number; a dash for `None`."""
    return MISSING if value is None else f"{value:.{digits}f}{unit}"


def score(value: float | None, metric_name: str) -> str:
    """Formats a metric: a fraction as percent, a correlation or an error as a number."""
    return figure(value, 3) if metric_name in NUMBERS else percent(value)


def percent(share: float | None, digits: int = 1) -> str:
    """Formats a fraction in [0, 1] as percent; a dash for `None`."""
    return MISSING if share is None else f"{100 * share:.{digits}f} %"
