"""Tests that the parser refuses numbers that a command cannot take, before the command starts."""

import argparse
import functools
import inspect
import itertools

import pytest

from itrex_sweet.calibration.budget import Budget
from itrex_sweet.cli import VERBS, build_parser
from itrex_sweet.commands import options, training_plan
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError
from itrex_sweet.serving.settings import Settings

NOT_NUMBERS = {options.label_names}
NEVER = ["nan", "NaN", "inf", "-inf", "-1", "-0.5", "1e400", "abc", "None", "0x10", "1;2", " ", "nan,0.5"]
REFUSED = {  # besides `NEVER`
    options.positive: ["0", "1.5", "9" * 5000, str(2**31)],
    options.positive_or_all: ["0", "1.5", "any"],
    options.count: ["1.5", str(2**31)],
    options.port: ["65536", "1.5"],
    options.share: ["1.0001", "2", "-0.0001"],
    options.open_share: ["0", "1", "1.5"],
    options.positive_number: ["0", "-0.0"],
    options.non_negative_number: ["-0.0001"],
    options.deadline: ["0", "1e10"],
    options.gradient_scale: ["1.5", "0.5,2", "0.5,", "cut"],
    options.class_weights: ["0", "1,0", "1,,2", "even"],
    options.threshold: ["1.5", "0.5,2", "0.5,"],
    options.layers: ["0", "0,6", "1.5", ",", "one"],
}
ACCEPTED = {
    options.positive: ["1", "32"],
    options.positive_or_all: ["3", "all"],
    options.count: ["0", "7"],
    options.port: ["0", "65535"],
    options.share: ["0", "1", "0.25"],
    options.open_share: ["0.01", "0.999"],
    options.positive_number: ["0.001", "1e9"],
    options.non_negative_number: ["0", "1.2"],
    options.deadline: ["0.5", "1e9"],
    options.gradient_scale: ["0", "0.1,0.3,1", "cut_first"],
    options.class_weights: ["balanced", "1,2.5"],
    options.threshold: ["0.9", "0.9,1"],
    options.layers: ["6", "1,4,6"],
}


def kind_of(action):
    """Returns the function that converts the value of an option; that of `Path` and of names is not one of numbers."""
    kind = action.type
    while isinstance(kind, functools.partial):
        kind = kind.keywords.get("kind")
    return kind


def parser_of(verb):
    found = next(each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return found.choices[verb]


NUMBERS = [
    (verb, action.option_strings[-1])
    for verb in VERBS
    for action in parser_of(verb)._actions
    if action.option_strings and kind_of(action) in REFUSED
]


def test_every_kind_is_known():
    """No option has a plain type of Python, which takes NaN, infinity and any sign."""
    for verb in VERBS:
        for action in parser_of(verb)._actions:
            kind = kind_of(action)
            assert kind not in (float, int, complex, bool), f"{verb} {action.dest}"
            if kind is not None and inspect.getmodule(kind) is options:
                assert kind in REFUSED or kind in NOT_NUMBERS, f"{verb} {action.dest}: {kind.__name__}"
    assert len(NUMBERS) > 70 and REFUSED.keys() == ACCEPTED.keys()


@pytest.mark.parametrize(("verb", "option"), NUMBERS)
def test_invalid_numbers_are_usage_errors(verb, option, capsys):
    parser = parser_of(verb)
    action = next(each for each in parser._actions if option in each.option_strings)
    for text in [*NEVER, *REFUSED[kind_of(action)]]:
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args([f"{option}={text}"])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and option in error.rpartition("error: argument ")[2], (option, text, error)
        assert len(error.splitlines()[-1]) < 400
    for text in ACCEPTED[kind_of(action)]:
        assert parser._get_value(action, text) is not None


def test_messages_name_the_option_the_value_and_the_rule(run):
    argv = ("accelerate", "MODEL", "--traffic", "FILE", "--output", "DIR")
    for option, value, rule in (
        ("--least-speedup", "nan", "nan: it is a number from 0."),
        ("--confidence", "1", "1.0: it is a number between 0 and 1, both excluded."),
        ("--epochs", "0", "0.0: it is a positive number."),
        ("--batch-size", "0", "0: an integer of at least 1 is needed."),
        ("--exits", "1,0", "0: an integer of at least 1 is needed."),
    ):
        finished = run(*argv, f"{option}={value}")
        assert finished.status == 2 and f"error: argument {option}: {rule}" in finished.err, finished.err


VALUES = ("-1", "0", "1e-9", "0.5", "1", "1.5", "7", "1e9", "1e10", "nan", "inf")


@pytest.mark.parametrize(
    ("verb", "names", "make"),
    [
        ("calibrate", ["max_accuracy_drop", "max_agreement_drop", "max_latency_ms", "max_layers"], Budget),
        ("calibrate", ["confidence", "tolerance"], functools.partial(Budget, max_layers=1)),
        ("serve", ["quality_floor", "target_ms", "read_seconds", "drain_seconds", "watch_seconds"], Settings),
        ("train", ["exit_lr_multiplier", "distillation"], SweetConfig),
    ],
)
def test_parser_and_settings_accept_the_same(verb, names, make):
    for name, text in itertools.product(names, VALUES):
        action = next(each for each in parser_of(verb)._actions if each.dest == name)
        assert accepts(action.type, text) == accepts(lambda value, name=name: make(**{name: value}), float(text)), (
            f"{name}={text}"
        )


def accepts(make, value) -> bool:
    try:
        make(value)
    except (ConfigError, argparse.ArgumentTypeError):
        return False
    return True


@pytest.mark.parametrize(
    "given",
    [
        "--learning-rate=nan", "--learning-rate=-1", "--learning_rate=-inf", "--num-train-epochs=inf",
        "--num-train-epochs=0", "--weight-decay=nan", "--max-grad-norm=-1", "--adam-beta1=1.5", "--seed=-1",
        "--seed=99999999999", "--label-smoothing-factor=3", "--gradient-accumulation-steps=0", "--eval-steps=nan",
        "--per-device-train-batch-size=0", "--dataloader-num-workers=-1", "--neftune-noise-alpha=inf",
    ],
)  # fmt: skip
def test_numbers_of_training_arguments(given, run, tmp_path):
    argv = ("train", "--model", "m", "--train-file", tmp_path / "absent.csv", "--output", tmp_path / "out")
    finished = run(*argv, given)
    option = given.partition("=")[0]
    assert finished.status == 2 and option in finished.err.rpartition("error: argument ")[2], finished.err
    assert not (tmp_path / "out").exists()


def test_every_float_of_training_arguments_is_finite():
    from transformers import HfArgumentParser, TrainingArguments

    kinds = {action.dest: action.type for action in HfArgumentParser(TrainingArguments)._actions}
    assert training_plan._RULES.keys() <= kinds.keys(), "a field was renamed"
    assert sum(kind is float for kind in kinds.values()) > 8, "they have plain types"
