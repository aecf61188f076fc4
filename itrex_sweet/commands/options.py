"""Options that several verbs have, and the types of their values."""

from __future__ import annotations

import argparse
import math

from itrex_sweet.config import BALANCED, CUT_FIRST

_MOST = 2**31 - 1  # of rows, tokens and the like; what goes through C counts no further everywhere


def positive(text: str) -> int:
    """A whole number from 1."""
    return _at_least(1, text)


def count(text: str) -> int:
    """A whole number from 0."""
    return _at_least(0, text)


def positive_or_all(text: str) -> int | str:
    """A whole number from 1, or `all`."""
    return text if text == "all" else positive(text)


def share(text: str) -> float:
    """A number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text}: a share lies in [0, 1]")
    return value


def positive_number(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a positive, finite number")
    return value


def gradient_scale(text: str) -> float | str | tuple[float, ...]:
    """`cut_first`, one share for all cuts, or `0.1,0.3,1`: one for each."""
    if text == CUT_FIRST:
        return text
    values = tuple(share(part) for part in text.split(","))
    return values if len(values) > 1 else values[0]


def class_weights(text: str) -> str | tuple[float, ...]:
    """`balanced`, or `1,2.5,1`: one positive number for each label."""
    if text == BALANCED:
        return text
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither {BALANCED!r} nor numbers separated by commas") from None
    if not all(0.0 < value < math.inf for value in values):
        raise argparse.ArgumentTypeError(f"{text}: weights are positive and finite")
    return values


def threshold(text: str) -> float | tuple[float, ...]:
    """One threshold for all exits, or `0.9,0.8,0.95`: one for each but the last."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor numbers separated by commas") from None
    if not all(0.0 <= value <= 1.0 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: a threshold lies in [0, 1]; 1 lets no row leave early")
    return values[0] if len(values) == 1 else values


def whole_numbers(text: str) -> list[int]:
    """`6`, or `1,4,6,12`."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, nor several separated by commas") from None


def label_names(text: str) -> tuple[str, ...] | dict[str, str]:
    """`negative,positive`, the names of 0 and 1, or `1=negative,2=positive`: one for each value."""
    parts = [part.strip() for part in text.split(",")]
    pairs = [tuple(map(str.strip, part.split("=", 1))) for part in parts if "=" in part]
    if len(parts) < 2 or not all(parts) or (pairs and len(pairs) < len(parts)) or not all(map(all, pairs)):
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME,NAME,... or VALUE=NAME,VALUE=NAME,...")
    keys = [value for value, _ in pairs] or parts
    if len(set(keys)) < len(keys):
        raise argparse.ArgumentTypeError(f"{text!r}: {next(key for key in keys if keys.count(key) > 1)} comes twice")
    return dict(pairs) if pairs else tuple(parts)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Adds the options of running a model: `--threshold`, `--batch-size`, `--backend`, `--dtype`, `--threads`."""
    group = parser.add_argument_group("running")
    group.add_argument(
        "--threshold",
        type=threshold,
        metavar="T",
        help="leave at the first exit whose confidence is above it, in [0, 1]; one for all, or "
        "one for each exit but the last, separated by commas (default: as stored)",
    )
    group.add_argument("--batch-size", type=positive, default=32, metavar="N", help="rows together (default: 32)")
    group.add_argument("--backend", default="auto", metavar="NAME", help="name of a backend (default: the best here)")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="what a float artifact is computed in (bfloat16: native and ipex)",
    )
    add_threads(group)


def add_threads(group: argparse._ActionsContainer) -> None:
    """`--threads`."""
    group.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="to compute with at most (default: the cores that may be used, or fewer; itrex-sweet info says why)",
    )


def add_stopping(parser: argparse.ArgumentParser) -> None:
    """When a call stops, besides `--threshold`: `--quality`, `--max-exit`, `--deadline-ms`."""
    group = parser.add_argument_group("stopping")
    group.add_argument(
        "--quality", type=share, metavar="Q", help="step of the calibrated curve, from 0, the fastest, to 1, full depth"
    )
    group.add_argument("--max-exit", type=positive, metavar="LAYERS", help="exit that answers whoever reaches it")
    group.add_argument(
        "--deadline-ms", type=float, metavar="MS", help="per batch; then texts get the best exit reached so far"
    )


def add_named_dataset(parser: argparse.ArgumentParser) -> None:
    """Which part of a `datasets` name: `--dataset-config`, `--split`."""
    parser.add_argument(
        "--dataset-config", metavar="NAME", help="configuration of a datasets name, such as sst2 of glue"
    )
    parser.add_argument("--split", help="of a datasets name that has several; train[6000:6300] takes some of its rows")


def add_against(parser: argparse._ActionsContainer) -> None:
    """The model to compare with: `--against`."""
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="compare with this model instead of full depth: a plain Hugging Face classifier, an artifact (its full "
        "depth), or a file that predict wrote of the same rows; labels are matched by name",
    )


def add_columns(parser: argparse.ArgumentParser, labels: bool = True) -> None:
    """Adds the options `--text-column`, `--pair-column` and `--label-column`."""
    group = parser.add_argument_group("columns", "guessed from the common names (text, sentence1 + sentence2, ...)")
    group.add_argument("--text-column", metavar="NAME", help="of the text, or of the first text of a pair")
    group.add_argument("--pair-column", metavar="NAME", help="of the second text of a pair")
    if labels:
        group.add_argument("--label-column", default="label", metavar="NAME", help="(default: label)")
        group.add_argument(
            "--label-names",
            type=label_names,
            metavar="NAMES",
            help="that the data's labels stand for: NAME,NAME,... of 0, 1, ..., or VALUE=NAME,VALUE=NAME,...",
        )


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is below {least}")
    if number > _MOST:
        raise argparse.ArgumentTypeError(f"{text[:40]} is above {_MOST}")
    return number
