"""Tests of the command line: help, usage, errors, exit statuses, pipes."""

import os
import subprocess
import sys

import pytest

from itrex_sweet import __version__, cli
from itrex_sweet.errors import ConfigError


def outside(*argv, **options):
    """Runs the command line in a separate process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "itrex_sweet.cli", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, **options)


@pytest.mark.parametrize("argv", [["--help"], ["--version"], *([verb, "--help"] for verb in cli.VERBS)])
def test_help_imports_no_large_package(argv):
    script = (
        "import sys; from itrex_sweet.cli import main\n"
        f"assert main({argv}) == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'optimum', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout


def test_help_lists_every_command(run):
    finished = run("--help")
    assert finished.status == 0 and not finished.err
    assert all(f"\n    {verb} " in finished.out for verb in cli.VERBS)
    assert run("--version").out == f"itrex-sweet {__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nothing"],
        ["predict"],
        ["info", "--nothing"],
        ["predict", "DIR", "--threshold", "2"],
        ["predict", "DIR", "--threshold", "high"],
        ["predict", "DIR", "--batch-size", "0"],
        ["evaluate", "DIR"],
        ["train", "--model", "m", "--output", "o"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--dataset", "d"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--exits", "one"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--mode", "other"],
        ["train", "--model", "m", "--output", "o", "--dataset", "d", "--validation-file", "f"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--gradient-scale", "2"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--gradient-scale", "0.1,high"],
        [
            "train",
            "--model",
            "m",
            "--output",
            "o",
            "--train-file",
            "f",
            "--mode",
            "joint",
            "--gradient-scale",
            "0",
        ],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--lora", "--freeze-backbone"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--output-dir", "elsewhere"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "--learning-rate", "fast"],
        ["train", "--model", "m", "--output", "o", "--train-file", "f", "stray"],
    ],
)
def test_usage_error_exits_with_2(run, argv):
    finished = run(*argv)
    assert finished.status == 2 and not finished.out
    assert "usage: itrex-sweet" in finished.err and "error: " in finished.err


def test_suggestion_for_unknown_training_argument(run):
    finished = run("train", "--model", "m", "--output", "o", "--train-file", "f", "--learning_rat", "1e-4")
    assert finished.status == 2 and "did you mean --learning-rate?" in finished.err
    finished = run("train", "--model", "m", "--output", "o", "--train-file", "f", "--mod", "joint")
    assert finished.status == 2 and "did you mean --mode" in finished.err


def test_sweet_error_is_one_line_and_status_1(run, tmp_path):
    finished = run("info", tmp_path / "absent")
    assert finished.status == 1 and not finished.out
    assert finished.err.startswith("error: ") and finished.err.count("\n") == 1
    plain = tmp_path / "plain"
    plain.mkdir()
    assert "has no config.json" in run("predict", plain).err


@pytest.mark.parametrize("place", ["before", "behind"])
def test_debug_option_shows_the_traceback(run, monkeypatch, place):
    from itrex_sweet.commands import info

    def fail(args):
        raise ConfigError("two\nlines")

    monkeypatch.setattr(info, "run", fail)
    finished = run("--debug", "info") if place == "before" else run("info", "--debug")
    assert finished.status == 1 and "Traceback" in finished.err and finished.err.endswith("error: two lines\n")
    assert "Traceback" not in run("info").err


def test_unexpected_exceptions_propagate(monkeypatch):
    from itrex_sweet.commands import info

    def fail(args):
        raise ZeroDivisionError

    monkeypatch.setattr(info, "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info"])


def test_interrupt_prints_no_traceback(run, monkeypatch):
    from itrex_sweet.commands import info

    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupt)
    assert run("info").status == 130


def test_log_goes_to_stderr_and_handlers_are_removed(run, monkeypatch):
    import logging

    from itrex_sweet.commands import info

    ours = logging.getLogger("itrex_sweet")
    before = list(ours.handlers), ours.level

    def talk(args):
        logging.getLogger("itrex_sweet.somewhere").warning("careful")
        print("result")
        return 0

    monkeypatch.setattr(info, "run", talk)
    finished = run("info")
    assert finished.out == "result\n" and finished.err == "warning: careful\n"
    assert (list(ours.handlers), ours.level) == before


def test_subprocess_reads_stdin(artifact):
    finished = outside("predict", artifact, input="the room was good\nthe soup was bad\n")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count('"exit_layer"') == 2


def piped(*argv):
    """Starts the command line with buffered output, as outside of tests."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-m", "itrex_sweet.cli", *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def test_closed_output_pipe_is_not_an_error(artifact, tmp_path):
    texts = tmp_path / "many.txt"
    texts.write_text("the room was good\n" * 4000)
    with piped("predict", artifact, texts) as process:
        assert '"label"' in process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 141
    assert "BrokenPipe" not in err and "Traceback" not in err


def test_output_pipe_closed_before_reading_is_not_an_error():
    with piped("--help") as process:
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 141 and err == ""
