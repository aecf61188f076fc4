"""Tests of commands that a signal ends: they end soon, print no traceback and leave no processes or folders."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

from itrex_sweet import cli
from tests.processes import MARK, eventually, marked
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("default_signals")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    tiny_artifact(folder / "float", tokenizer=tiny_tokenizer())
    lines = [f"{WORDS[row % 21]} {WORDS[row * 5 % 21]} {WORDS[row // 21]},{row % 3}" for row in range(150)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    return folder


# SIGHUP is handled as SIGTERM is: see below.
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=lambda value: getattr(value, "name", None),
)
def test_quantize_leaves_no_processes_or_folders(prepared, tmp_path, number, status):
    mark, temporary = uuid.uuid4().hex, tmp_path / "temporary"
    temporary.mkdir()
    words = ["quantize", prepared / "float", "--calibration", prepared / "rows.csv", "--rows", "40"]
    command = [sys.executable, "-m", "itrex_sweet.cli", *words, "--output", tmp_path / "int8"]
    environment = {**os.environ, MARK: mark, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: bool(list(temporary.glob("itrex-sweet-observing-*/worker.log"))), 60)
    assert eventually(lambda: len(marked(mark)) >= 3, 20), "command, supervising process and worker"
    process.send_signal(number)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == status
    assert eventually(lambda: not marked(mark), 2), marked(mark)
    # torch 2.8 makes an empty folder of its own when it is imported, which SIGKILL leaves.
    assert eventually(lambda: not list(temporary.glob("itrex-sweet-*")), 2), list(temporary.iterdir())
    assert not (tmp_path / "int8").exists()
    assert "Traceback" not in err
    assert (prepared / "float" / "model.safetensors").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_cleanup_and_exit_status(run, monkeypatch, number):
    from itrex_sweet.commands import info

    cleaned = []

    def work(args):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(info, "run", work)
    finished = run("info")
    assert finished.status == 128 + number and cleaned and finished.err == "terminated by a signal\n"
    assert signal.getsignal(number) is signal.SIG_DFL


def test_signal_handlers_of_the_caller_are_restored(run, monkeypatch):
    from itrex_sweet.commands import info

    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("theirs"))
    try:
        monkeypatch.setattr(info, "run", lambda args: os.kill(os.getpid(), signal.SIGTERM) or 0)
        assert run("info").status == 0 and seen == ["theirs"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_command_outside_the_main_thread(monkeypatch):
    from itrex_sweet.commands import info

    monkeypatch.setattr(info, "run", lambda args: 0)
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(cli.main(["info"])))
    thread.start()
    thread.join()
    assert statuses == [0]
