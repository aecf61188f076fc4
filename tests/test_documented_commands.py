"""Compares the command lines, options and defaults that documentation, examples and messages name with the parsers.

Nothing is run here; `test_documentation.py` runs the blocks of the pages. This parses the command lines that no test
can run too, and those in prose, docstrings, messages, and files of containers and deployments.
"""

import argparse
import dataclasses
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from itrex_sweet.cli import VERBS, build_parser

ROOT = Path(__file__).resolve().parent.parent
TREES = ("docs", "examples", "docker", "deploy", "benchmarks", "itrex_sweet", ".github", ".ci")
TEXTS = (".md", ".py", ".ipynb", ".yaml", ".yml", ".sh", ".service", ".txt", ".html", "")
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")),
    *(
        path
        for tree in TREES
        for path in sorted((ROOT / tree).rglob("*"))
        if path.is_file() and (path.suffix in TEXTS or path.name.startswith("Dockerfile")) and path.stat().st_size < 1e6
    ),
]
PAGES = [path for path in FILES if path.suffix == ".md" and "benchmarks" not in path.parts]
SOURCES = [path for path in FILES if path.is_relative_to(ROOT / "itrex_sweet") and path.suffix == ".py"]
OTHER_PROGRAMS = {  # options of other programs that pages and messages name: docker, pip, gunicorn, git, ...
    *("--target", "--rm", "--user", "--cpus", "--cpuset-cpus", "--cpuset-mems", "--build-arg", "--set"),
    *("--extra-index-url", "--no-deps", "--no-binary", "--force-reinstall", "--preload", "--mixed_precision"),
    *("--help", "--version", "--force"),  # --force also of build_kernels.py
    *("--texts", "--artifacts", "--inputs"),  # of `make fuzz`
    *("--model-id",),  # of text-embeddings-inference
    *("--rows", "--data"),  # also of the examples
}
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*(,.*|=.*)?$|.*[{}$%<>].*|\.\.\.")
COMMAND = re.compile(r"(?<![\w/.-])itrex-sweet(?::[a-z]+)? +(?=[a-z-])([^`\n]*)")
END = re.compile(r" [|>&#;] ?|\s&$|\. |\.$|[)\"'](?: |$|,|\.)|, ")


@functools.cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    found = next(each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(found.choices)


@functools.cache
def options(verb: str) -> dict[str, argparse.Action | None]:
    """Returns the options of a command with their actions, those of TrainingArguments with `None`."""
    known: dict[str, argparse.Action | None] = {}
    if verb == "train":
        from transformers import TrainingArguments

        for field in dataclasses.fields(TrainingArguments):
            known |= dict.fromkeys((f"--{field.name}", f"--{field.name.replace('_', '-')}"))
    return known | {name: action for action in parsers()[verb]._actions for name in action.option_strings}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def command_lines(text: str) -> list[list[str]]:
    """Returns the words after `itrex-sweet` of each command line in a text, up to the end of the command."""
    found = []
    for rest in COMMAND.findall(text):
        rest = END.split(rest + " ")[0].replace('"', " ")
        words = rest.split()
        if words and words[0] in VERBS:
            found.append(words)
    return found


def wrong_options(words: list[str]) -> list[str]:
    """Returns the options of a command line that its parser does not have, and values that it does not accept."""
    verb, wrong = words[0], []
    for place, word in enumerate(words[1:], start=1):
        option, equals, value = word.partition("=")
        option = option.rstrip(".,:;)")
        if not re.fullmatch("--[a-z][a-z0-9_-]*", option):
            continue
        if option not in options(verb):
            wrong.append(f"{verb} {option}")
            continue
        action = options(verb)[option]
        value = value if equals else words[place + 1].rstrip(".,:;)") if place + 1 < len(words) else ""
        if action is None or action.nargs == 0 or not value or value.startswith("--") or PLACEHOLDER.match(value):
            continue
        try:
            converted = action.type(value) if action.type else value
        except (argparse.ArgumentTypeError, ValueError):
            wrong.append(f"{verb} {option} {value}")
            continue
        if action.choices and converted not in action.choices:
            wrong.append(f"{verb} {option} {value}")
    return wrong


@pytest.mark.parametrize("path", [path for path in FILES if "itrex-sweet " in text_of(path)], ids=name_of)
def test_options_of_command_lines_exist(path):
    assert [wrong for words in command_lines(text_of(path)) for wrong in wrong_options(words)] == []


def test_command_lines_are_found():
    found = [(path.name, words) for path in FILES for words in command_lines(text_of(path))]
    # The demo's command line stands in a module, which is not part of the tree where an installed wheel is tested.
    assert len(found) > 60 and {words[0] for _, words in found} >= {*VERBS} - {"add-exits", "demo"}
    assert ("deploy.md", ["export", "my-classifier", "--format", "torchscript", "--output", "subgraphs"]) in found
    assert wrong_options(["serve", "DIR", "--no-such", "--port", "many", "--under-load", "wait", "--threads", "2"]) == [
        "serve --no-such", "serve --port many", "serve --under-load wait",
    ]  # fmt: skip
    assert wrong_options(["train", "--num_train_epochs", "2", "--mode=paper", "--mode", "MODE"]) == []


@pytest.mark.parametrize("path", [path for path in PAGES if "```bash" in text_of(path)], ids=name_of)
def test_command_lines_of_blocks_are_complete(path):
    """The parser accepts every command of a shell block, also of blocks that no test runs."""
    for block in re.findall(r"```bash\n(.*?)```", text_of(path), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            starts = [place for place, word in enumerate(words) if re.fullmatch(r"itrex-sweet(:\w+)?", word)]
            if not starts or words[starts[0] + 1 : starts[0] + 2] in ([], ["\\"]) or words[0] in ("pip", "helm"):
                continue
            words = words[starts[0] + 1 :]
            ends = [place for place, word in enumerate(words) if word in ("|", ">", "&")]
            if words[0] not in VERBS:
                assert words[0].startswith("."), f"{words[0]} is no command: {line}"
                continue
            arguments, more = build_parser().parse_known_args(words[: ends[0]] if ends else words)
            assert not more or arguments.takes_more, line


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=name_of)
def test_named_options_exist(path):
    """An option in code marks of a page, or in a message or docstring, is one of some command."""
    known = {option for verb in VERBS for option in options(verb)} | OTHER_PROGRAMS
    text = text_of(path)
    if path in PAGES:
        text = "\n".join(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", text))
    if path.name == "CHANGELOG.md":
        named -= {"--two-stage"}  # removed
    assert {each for each in named if each not in known and not each.endswith("-")} <= ALSO.get(path.name, set())


ALSO = {
    "training_plan.py": {"--two-stage", "--output-dir", "--do-"},  # named to be refused
}


def default_of(option: str) -> set:
    """Returns the default values of an option, over the commands that have it."""
    return {
        stated_in_help(action) if action.default is None else action.default
        for verb in VERBS
        if (action := options(verb).get(option)) is not None
    }


def stated_in_help(action: argparse.Action) -> float | str | None:
    """Returns the default of an option that its command fills in."""
    found = re.search(r"\(default: ([\w.]+)", action.help)
    return None if found is None else float(found[1]) if found[1].replace(".", "").isdigit() else found[1]


STATED = re.compile(  # `--confidence` (95 %), a row of a table, `--under-load reject`, the default
    r"`(--[a-z][a-z-]+)`(?:,? |[^`.;|]{1,80} )\((\d[\d .,]*)( ?%)?(?:[a-z ]* by default[^)]*)?\)"
    r"|^\| `(--[a-z][a-z-]+)` \| (\d[\d,.]*)"  # a row of a table
    r"|`(--[a-z][a-z-]+) ([a-z0-9.]+)`(?:, the default|,? \(the default|,? \(default)",
    re.MULTILINE,
)


def stated_defaults(text: str) -> list[tuple[str, float | str]]:
    found = []
    for inline, number, percent, row, of_row, word_option, word in STATED.findall(text):
        if word_option:
            found.append((word_option, word))
        else:
            value = float((number or of_row).strip().rstrip(",.").replace(",", "").replace(" ", ""))
            found.append((inline or row, value / 100 if percent else value))
    return found


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".md"], ids=name_of)
def test_stated_defaults_are_those_of_the_parser(path):
    for option, value in stated_defaults(text_of(path)):
        assert value in default_of(option), f"{option}: the page says {value}, the parser {default_of(option)}"


def test_stated_defaults_are_found():
    everywhere = {each for path in PAGES for each in stated_defaults(text_of(path))}
    assert everywhere >= {
        ("--least-speedup", 1.2), ("--confidence", 0.95), ("--max-agreement-drop", 0.01), ("--payload-limit", 2e6),
        ("--max-waiting-rows", 2048.0), ("--target-ms", 50.0), ("--under-load", "reject"),
        ("--batch-size", 32.0), ("--rows-per-part", 10_000.0),
    }  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_reference_has_every_option(verb):
    """The page that is generated from the parser names every argument of a command, with a description."""
    specification = importlib.util.spec_from_file_location("build_hooks", ROOT / "docs" / "build_hooks.py")
    hooks = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hooks)
    section = re.search(rf"^## {verb}\n(.*?)(?=^## |\Z)", hooks.cli_reference(), re.MULTILINE | re.DOTALL)[1]
    for action in parsers()[verb]._actions:
        if action.dest not in ("help", "debug"):
            row = hooks._row(parsers()[verb], action)
            assert row in section, row
            assert re.fullmatch(r"\| `.+` \| .*\w.* \|", row), f"{row}: it has no description"
