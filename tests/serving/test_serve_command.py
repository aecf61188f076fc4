"""Tests of the options of `itrex-sweet serve`, on the command line and in environment variables."""

import argparse

import pytest

from itrex_sweet.cli import main
from itrex_sweet.commands import serve
from itrex_sweet.serving import server


@pytest.fixture
def started(monkeypatch):
    """Returns a function that runs the command up to the start of the server, and returns its settings."""

    def start(*arguments, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        made = []
        monkeypatch.setattr(server.Server, "run", lambda self: made.append(self.settings))
        status = main(["serve", "model=nowhere", *arguments])
        return made[0] if made else status

    return start


@pytest.mark.parametrize(
    ("given", "keys"),
    [("one,two", ("one", "two")), (" one , two ", ("one", "two")), ("secret\n", ("secret",)), (",one,,", ("one",))],
)
def test_keys(started, given, keys):
    assert started("--api-key", given).api_keys == started(API_KEY=given).api_keys == keys


@pytest.mark.parametrize("given", ["", " ", ",", "\n"])
def test_a_server_that_is_given_no_key_does_not_start(started, given, capsys):
    """`--api-key "$KEY"` where KEY is not set would start a server without keys."""
    assert started("--api-key", given) in (1, 2)
    assert "--api-key" in capsys.readouterr().err


def test_without_keys(started):
    assert started().api_keys == started(API_KEY="").api_keys == ()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AUTO_TRUNCATE": "False", "RELOAD_ROUTE": "1"}, {"auto_truncate": False, "reload_route": True}),
        ({"LIVE_PAGE": "off", "RELOAD_ROUTE": "no"}, {"live_page": False, "reload_route": False}),
        ({"UNDER_LOAD": "degrade", "MAX_BATCH_TOKENS": "8192"}, {"under_load": "degrade", "max_batch_tokens": 8192}),
        ({"DTYPE": "float16", "UNDER_LOAD": ""}, {"under_load": "reject"}),
    ],
)
def test_variables(started, variables, expected):
    settings = started(**variables)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AUTO_TRUNCATE", "ture"), ("LIVE_PAGE", "2"), ("UNDER_LOAD", "Degrade"), ("LOG_REQUESTS", "some"), ("PORT", "x")],
)
def test_variables_with_other_values_are_errors(started, variable, value, capsys):
    """A wrong value must not mean the default, or no."""
    assert started(**{variable: value}) == 2
    assert value in capsys.readouterr().err


def test_the_command_line_overrides_variables(started):
    assert started("--no-live-page", LIVE_PAGE="yes").live_page is False
    assert started("--under-load", "reject", UNDER_LOAD="degrade").under_load == "reject"


def test_variables_of_other_programs_leave_other_commands_alone(monkeypatch):
    monkeypatch.setenv("LIVE_PAGE", "about:blank")
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    assert "--live-page" in parser.format_help()
