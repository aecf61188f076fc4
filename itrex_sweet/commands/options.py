"""Options shared by several commands, and the types of their values."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from itrex_sweet import arguments
from itrex_sweet.arguments import port_number
from itrex_sweet.config import BALANCED, CUT_FIRST
from itrex_sweet.data.columns import LABEL_COLUMN
from itrex_sweet.defaults import DEFAULT_BACKEND, DEFAULT_BATCH_SIZE, DTYPES
from itrex_sweet.errors import ConfigError
from itrex_sweet.serving.options import checked_deadline

Number = TypeVar("Number", int, float)

_MAX = 2**31 - 1  # for numbers of rows and tokens; a larger one does not fit a C int


def positive(text: str) -> int:
    """Parses a positive integer."""
    return _whole(text, 1)


def count(text: str) -> int:
    """Parses a non-negative integer."""
    return _whole(text, 0)


def port(text: str) -> int:
    """Parses a port of TCP; 0 is any free one."""
    return _checked(port_number, _whole(text, 0))


def positive_or_all(text: str) -> int | str:
    """Parses a positive integer or `all`."""
    return text if text == "all" else positive(text)


def share(text: str) -> float:
    """Parses a number in [0, 1]."""
    return _checked(arguments.fraction, _real(text))


def open_share(text: str) -> float:
    """Parses a number between 0 and 1, both excluded."""
    return _checked(arguments.open_fraction, _real(text))


def positive_number(text: str) -> float:
    """Parses a positive finite number."""
    return _checked(arguments.positive_number, _real(text))


def non_negative_number(text: str) -> float:
    """Parses a finite number from 0."""
    return _checked(arguments.non_negative_number, _real(text))


def finite_number(text: str) -> float:
    """Parses a finite number."""
    return _checked(arguments.finite_number, _real(text))


def deadline(text: str) -> float:
    """Parses milliseconds of a server's requests."""
    return _checked(checked_deadline, _real(text))


def gradient_scale(text: str) -> float | str | tuple[float, ...]:
    """Parses `cut_first`, a number in [0, 1], or one number per cut, such as `0.1,0.3,1`."""
    return text if text == CUT_FIRST else _one_or_several(share, text)


def class_weights(text: str) -> str | tuple[float, ...]:
    """Parses `balanced`, or one positive number per label, such as `1,2.5,1`."""
    if text == BALANCED:
        return text
    try:
        return tuple(map(positive_number, text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error} Pass a weight per label, or {BALANCED}.") from None


def threshold(text: str) -> float | tuple[float, ...]:
    """Parses one threshold for all exits, or one per exit but the last, such as `0.9,0.8,0.95`."""
    return _one_or_several(share, text)


def layers(text: str) -> list[int]:
    """Parses numbers of layers separated by commas, such as `6` or `1,4,6,12`."""
    found = [positive(part) for part in text.split(",") if part.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} has no number of layers")
    return found


def label_names(text: str) -> tuple[str, ...] | dict[str, str]:
    """Parses names in the order of ids, `negative,positive`, or one name per value, `1=negative,2=positive`."""
    parts = [part.strip() for part in text.split(",")]
    pairs = [tuple(map(str.strip, part.split("=", 1))) for part in parts if "=" in part]
    if len(parts) < 2 or not all(parts) or (pairs and len(pairs) < len(parts)) or not all(map(all, pairs)):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME,NAME,... or VALUE=NAME,VALUE=NAME,...")
    keys = [value for value, _ in pairs] or parts
    if len(set(keys)) < len(keys):
        raise argparse.ArgumentTypeError(f"{text!r}: {next(key for key in keys if keys.count(key) > 1)} is repeated")
    return dict(pairs) if pairs else tuple(parts)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Adds the options of running a model: `--threshold`, `--batch-size`, `--backend`, `--dtype`, `--threads`."""
    group = parser.add_argument_group("running")
    group.add_argument(
        "--threshold",
        type=threshold,
        metavar="T",
        help="exit at the first exit with a confidence above it, in [0, 1]; one for all exits, or "
        "one for each exit but the last, separated by commas (default: the stored thresholds)",
    )
    group.add_argument(
        "--batch-size",
        type=positive,
        default=DEFAULT_BATCH_SIZE,
        metavar="N",
        help="texts per batch (default: %(default)s)",
    )
    group.add_argument(
        "--backend", default=DEFAULT_BACKEND, metavar="NAME", help="name of a backend (default: the fastest available)"
    )
    group.add_argument(
        "--dtype", choices=DTYPES, help="data type for float artifacts (bfloat16: native, ipex and openvino only)"
    )
    add_threads(group)


def add_threads(group: argparse._ActionsContainer) -> None:
    """Adds `--threads`."""
    group.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="maximum number of threads (default: the available cores or fewer; see itrex-sweet info)",
    )


def add_stopping(parser: argparse.ArgumentParser) -> None:
    """Adds options that limit the computation of a call: `--quality`, `--max-exit`, `--deadline-ms`."""
    group = parser.add_argument_group("stopping")
    group.add_argument(
        "--quality",
        type=share,
        metavar="Q",
        help="point of the calibrated curve, from 0, the fastest, to 1, full depth",
    )
    group.add_argument(
        "--max-exit",
        type=positive,
        metavar="LAYERS",
        help="last exit to compute; every text that reaches it exits there",
    )
    group.add_argument(
        "--deadline-ms",
        type=positive_number,
        metavar="MS",
        help="time limit per batch; after it, texts get the prediction of the last exit computed",
    )


def add_named_dataset(parser: argparse.ArgumentParser) -> None:
    """Adds the options that select a part of a data set: `--dataset-config`, `--split`."""
    parser.add_argument("--dataset-config", metavar="NAME", help="configuration of a data set, such as sst2 of glue")
    parser.add_argument("--split", help="split of a data set; train[6000:6300] selects rows of it")


def add_against(parser: argparse._ActionsContainer) -> None:
    """Adds `--against`, the model to compare with."""
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="compare with this model instead of full depth: a plain Hugging Face classifier, an artifact (at full "
        "depth), or the output of predict for the same rows; labels are matched by name",
    )


def add_tolerance(parser: argparse._ActionsContainer) -> None:
    """Adds `--tolerance`, up to which the values of a regression agree."""
    parser.add_argument(
        "--tolerance",
        type=positive_number,
        metavar="DIFFERENCE",
        help="of a regression: values that differ by at most this count as equal, in the unit of the labels",
    )


def add_columns(parser: argparse.ArgumentParser, labels: bool = True) -> None:
    """Adds the options that name columns: `--text-column`, `--pair-column`, `--label-column`."""
    group = parser.add_argument_group(
        "columns", "by default those with common names (text, sentence1 + sentence2, ...)"
    )
    group.add_argument("--text-column", metavar="NAME", help="of the text, or of the first text of a pair")
    group.add_argument("--pair-column", metavar="NAME", help="of the second text of a pair")
    if labels:
        group.add_argument("--label-column", default=LABEL_COLUMN, metavar="NAME", help="(default: %(default)s)")
        group.add_argument(
            "--label-names",
            type=label_names,
            metavar="NAMES",
            help="names of the labels in the data: NAME,NAME,... of 0, 1, ..., or VALUE=NAME,VALUE=NAME,...",
        )


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number") from None
    if number > _MAX:
        raise argparse.ArgumentTypeError(f"{text[:40]} is above {_MAX}")
    return _checked(functools.partial(arguments.whole_number, minimum=least), number)


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number") from None


def _checked(rule: Callable[[str, Any], Number], number: Any) -> Number:
    """Applies a rule of `itrex_sweet.arguments`; argparse adds the name of the option to the message."""
    try:
        return rule("", number)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("=")) from None


def _one_or_several(parse: Callable[[str], float], text: str) -> float | tuple[float, ...]:
    values = tuple(map(parse, text.split(",")))
    return values[0] if len(values) == 1 else values
