"""Hooks of MkDocs: generates the command line reference from the parser, and pages from files of the root folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLI_PAGE = "reference/cli.md"
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files, config):
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, CLI_PAGE, content=cli_reference()))
    for page, source in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    return files


def cli_reference() -> str:
    """Returns the command line reference as Markdown: one section per command, one table per group of options."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from itrex_sweet.cli import build_parser

    parser = build_parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help for action in commands._choices_actions}
    parts = [
        "# Command line",
        parser.description,
        "Results are written to standard output, logs and errors to standard error. Exit status: 0 success, 1 failure, "
        "2 wrong usage, 3 no gain (`accelerate`) or drift (`drift`), 128 + N ended by signal N. `--debug` shows the "
        "traceback of an error. This page is generated from the parser; `itrex-sweet COMMAND --help` prints the same.",
        "\n".join(f"- [`{name}`](#{name}): {summaries[name]}" for name in commands.choices),
        *(_command(name, command) for name, command in commands.choices.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"## {name}", _escape(parser.description or "")]
    formatter = argparse.HelpFormatter(parser.prog, width=80)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    parts.append(f"```text\n{formatter.format_help().strip()}\n```")
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
        if rows := [_row(parser, action) for action in actions if action.dest not in ("help", "debug")]:
            parts.append(f"**{(group.title or 'options').capitalize()}**")
            if group.description:
                parts.append(_escape(group.description))
            parts.append("\n".join(["| | |", "|---|---|", *rows]))
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(parts)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    if action.option_strings:
        value = "" if action.nargs == 0 else " " + formatter._format_args(action, action.dest.upper())
        name = ", ".join(f"`{option}{value}`" for option in action.option_strings)
    else:
        name = f"`{formatter._format_args(action, action.dest.upper())}`"
    text = formatter._expand_help(action) if action.help else ""
    return f"| {name.replace('|', chr(92) + '|')} | {_escape(text)} |"


def _escape(text: str) -> str:
    """Escapes what Markdown would read as markup in plain help texts."""
    for character in "<*_|":
        text = text.replace(character, "\\" + character)
    return text
