"""Tests that defaults and choices of options have one address: the Python function or setting that takes the value."""

import argparse
import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from itrex_sweet import commands, defaults
from itrex_sweet.cli import VERBS, build_parser

COMMANDS = Path(commands.__file__).parent
OTHER_NAME = {  # option of a command → parameter of the same meaning
    ("serve", "hostname"): "host",
    ("serve", "ssl_certfile"): "certificate",
    ("serve", "ssl_keyfile"): "key",
    ("serve", "ssl_keyfile_password"): "key_password",
    ("serve", "deadline_ms"): "default_deadline_ms",
    ("serve", "otlp_service_name"): "service_name",
    ("calibrate", "label_names"): "label_meanings",
}
OF_THE_COMMAND = {  # options without a counterpart in Python
    ("train", "train_split"),
    ("train", "validation_split"),
    ("bench", "batch_size"),  # several
    ("bench", "rows"),  # a number, which an evaluation chooses by the speed of the models
    ("bench", "repeats"),  # more than in an evaluation, which also times points of a curve
    ("drift", "predictions"),
    ("demo", "output"),
}


FOUND_LATER = {  # options that are only passed on if they were given
    ("train", "gradient_scale"),
    ("train", "task"),
    ("predict", "output_format"),
    ("predict", "rows_per_part"),
}


def takers(verb):
    """Returns the functions and dataclasses that take the options of a command."""
    from itrex_sweet import acceleration, evaluation
    from itrex_sweet.calibration.budget import Budget
    from itrex_sweet.calibration.calibrate import calibrate
    from itrex_sweet.calibration.pruning import find_useful_exits, prune_exits
    from itrex_sweet.classifier import Classifier
    from itrex_sweet.cluster.settings import FolderSettings
    from itrex_sweet.config import SweetConfig
    from itrex_sweet.data import read_rows
    from itrex_sweet.export.subgraphs import export_subgraphs
    from itrex_sweet.modeling import SweetModelForSequenceClassification
    from itrex_sweet.quantization import SweetQuantizer
    from itrex_sweet.serving.settings import Address, Settings
    from itrex_sweet.serving.tracing import Tracing

    loading = SweetModelForSequenceClassification.from_pretrained
    return {
        "train": [SweetConfig, read_rows],
        "add-exits": [acceleration.add_exits],
        "accelerate": [acceleration.accelerate],
        "predict": [Classifier.load, Classifier.predict, FolderSettings],
        "serve": [Settings, Address, Classifier.load, Tracing.to],
        "evaluate": [evaluation.evaluate_models, loading, read_rows],
        "bench": [evaluation.evaluate_models],
        "quantize": [SweetQuantizer.quantize],
        "prune-exits": [prune_exits, find_useful_exits],
        "calibrate": [calibrate, Budget, loading, read_rows],
        "export": [export_subgraphs],
    }.get(verb, [])


def default_values(taker):
    """Returns the default values of a function, or of the fields of a dataclass, by name."""
    if dataclasses.is_dataclass(taker):
        return {
            field.name: field.default
            for field in dataclasses.fields(taker)
            if field.default is not dataclasses.MISSING and field.init
        }
    parameters = inspect.signature(taker).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def options_of(verb):
    commands_of = next(each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return [action for action in commands_of.choices[verb]._actions if action.dest not in ("help", "debug")]


@pytest.mark.parametrize("verb", VERBS)
def test_defaults_are_those_of_the_python_function(verb):
    for action in options_of(verb):
        name = OTHER_NAME.get((verb, action.dest), action.dest)
        found = [default_values(taker)[name] for taker in takers(verb) if name in default_values(taker)]
        if action.default is None or action.default is argparse.SUPPRESS:
            assert not found or None in found or (verb, action.dest) in FOUND_LATER, f"{verb} --{action.dest}: {found}"
        elif (verb, action.dest) not in OF_THE_COMMAND and (found or action.default is not False):
            assert found, f"{verb} --{action.dest}: name the function that takes it, or add it to OF_THE_COMMAND"
            values = [value for value in found if value is not None]  # None: that of another function
            assert values and all(value == action.default for value in values), f"{verb} --{action.dest}: {found}"


def test_every_taker_is_compared():
    """A renamed parameter does not end the comparison."""
    compared = dict.fromkeys(VERBS, 0)
    for verb in VERBS:
        names = {name for taker in takers(verb) for name in default_values(taker)}
        compared[verb] = sum(OTHER_NAME.get((verb, action.dest), action.dest) in names for action in options_of(verb))
    assert compared["serve"] >= 24 and compared["accelerate"] >= 10 and compared["calibrate"] >= 14
    stale = {
        (verb, dest) for verb, dest in {*OTHER_NAME, *OF_THE_COMMAND} if dest not in {a.dest for a in options_of(verb)}
    }
    assert not stale


def calls():
    """Yields the calls in the modules of commands that add an option."""
    for path in sorted(COMMANDS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and any(keyword.arg == "help" for keyword in node.keywords):
                yield f"{path.name}:{node.lineno}", {keyword.arg: keyword.value for keyword in node.keywords}


def literals(node):
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]


def test_no_default_or_choice_is_a_literal():
    """A number or a word beside `default=`, `choices=` or in "(default: 32)" is a second address."""
    seen = 0
    for place, given in calls():
        if "default" in given and not isinstance(given["default"], (ast.Name, ast.Attribute)):
            assert ast.unparse(given["default"]) in ALLOWED, f"{place}: default={ast.unparse(given['default'])}"
        if "choices" in given and isinstance(given["choices"], (ast.Tuple, ast.List)):
            assert not literals(given["choices"]), f"{place}: choices={ast.unparse(given['choices'])}"
        for text in literals(given["help"]):
            assert not re.search(r"default:? -?\d|, the default|(?<!%)\(default\)", str(text)), f"{place}: {text}"
        seen += 1
    assert seen > 100


ALLOWED = {
    "None", "argparse.SUPPRESS", "'-'", "SweetConfig().mode", "EMBEDDINGS[0]", 
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_help_states_the_default(verb):
    """Every number or choice that an option has by default is in its help."""
    for action in options_of(verb):
        if action.choices and action.default is not None:
            assert f"default: {action.default})" in action.help % {"default": action.default}, action.dest
        if type(action.default) in (int, float):
            shown = action.help % {"default": action.default}
            assert re.search(rf"(?<![\d.]){re.escape(f'{action.default:g}')}|{action.default}", shown), action.dest


def test_choices_agree_with_what_is_accepted():
    """Words that heavy modules know are those of the light module of defaults."""
    from itrex_sweet.artifact import FLOAT32, INT8
    from itrex_sweet.metrics import METRICS
    from itrex_sweet.quantization import recipe_search

    assert tuple(METRICS) == defaults.METRIC_NAMES and set(defaults.MEANS) < set(METRICS)
    assert defaults.EMBEDDINGS == (INT8, FLOAT32)
    assert recipe_search.RECIPES is defaults.RECIPES
