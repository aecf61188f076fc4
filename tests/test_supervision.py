"""Tests of supervised commands: they end with their parent, and leave no processes or folders."""

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from itrex_sweet import supervision
from itrex_sweet.supervision import output_lines, supervised, working_folder
from tests.processes import MARK, eventually, marked

pytestmark = [
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are counted in /proc"),
    pytest.mark.usefixtures("default_signals"),
]

# A worker with a child of its own, in a session of its own, that heeds nothing but SIGKILL.
STUBBORN = """
import pathlib, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1], "working").touch()
while True:
    time.sleep(0.01)
    pathlib.Path(sys.argv[1], str(time.time())).touch()
"""
PLAIN = "import pathlib, sys, time; pathlib.Path(sys.argv[1], 'working').touch(); time.sleep(60)"
PARENT = """
import sys
from itrex_sweet.supervision import output_lines, supervised, working_folder
with working_folder("itrex-sweet-test-") as folder:
    with supervised([sys.executable, "-c", sys.argv[1], str(folder)], folder) as process:
        {body}
"""


@pytest.fixture
def started(tmp_path):
    """Returns a function that starts a parent and its worker, and returns the parent and the mark of its processes."""
    processes = []

    def start(worker: str, body: str = "process.wait()"):
        mark = uuid.uuid4().hex
        environment = {**os.environ, MARK: mark, "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-c", PARENT.format(body=body), worker]
        parent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        processes.append(parent)
        assert eventually(lambda: bool(list(tmp_path.glob("*/working"))), 20)
        return parent, mark

    yield start
    for parent in processes:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize("worker", [PLAIN, STUBBORN], ids=["plain", "stubborn"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_end_of_the_parent(started, tmp_path, number, worker):
    parent, mark = started(worker)
    assert len(marked(mark)) >= 3, "parent, supervising process and worker"
    parent.send_signal(number)
    parent.wait(10)
    assert eventually(lambda: not marked(mark), 2), marked(mark)
    assert eventually(lambda: not list(tmp_path.iterdir()), 2), list(tmp_path.iterdir())


def test_kill_of_the_supervising_process(started, tmp_path):
    parent, mark = started(PLAIN)
    for pid in marked(mark):
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            if b"supervision.py" in stream.read():
                os.kill(pid, signal.SIGKILL)
    assert parent.wait(10) == 0, "the worker's end is noticed"
    assert eventually(lambda: not marked(mark), 2)
    assert not list(tmp_path.iterdir())


def test_exception_in_the_block_and_end_of_the_worker(tmp_path):
    for command, ended in (
        ([sys.executable, "-c", "import sys; sys.exit(3)"], 3),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], -9),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"], -15),
    ):
        with supervised(command) as process:
            pass
        assert process.returncode == ended
    mark = uuid.uuid4().hex
    with pytest.raises(ZeroDivisionError):
        with supervised(
            [sys.executable, "-c", STUBBORN, str(tmp_path)], tmp_path, env={**os.environ, MARK: mark}
        ) as process:
            assert eventually((tmp_path / "working").exists, 20)
            raise ZeroDivisionError
    assert not marked(mark)
    assert tmp_path.is_dir(), "the folder of a running caller is kept"


def test_daemon_started_by_the_worker_is_ended(tmp_path):
    mark = uuid.uuid4().hex
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with supervised([sys.executable, "-c", script], env={**os.environ, MARK: mark}) as process:
        pass
    assert process.returncode == 0 and eventually(lambda: not marked(mark), 2)


def test_folder_of_a_killed_process_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(supervision.tempfile, "tempdir", str(tmp_path))
    script = (
        "import os; from itrex_sweet.supervision import working_folder\n"
        "with working_folder('one-') as folder:\n    (folder / 'data').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)})
    (left,) = tmp_path.glob("one-*")
    (tmp_path / "one-new").mkdir()  # not locked yet
    (tmp_path / "one-old").mkdir()
    os.utime(tmp_path / "one-old", (time.time() - 7200,) * 2)
    (tmp_path / "one-link").symlink_to(tmp_path)
    (tmp_path / "other").mkdir()
    with working_folder("one-") as folder:
        with working_folder("one-") as beside:
            assert folder.is_dir() and beside.is_dir() and folder != beside
        assert folder.is_dir() and not beside.exists()
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"one-new", "one-link", "other"}


def test_output_is_read_until_the_process_ends():
    script = (
        "import subprocess, sys; print('first', flush=True); print('b\\u00e4d \\ufffd', end='', flush=True); "
        "subprocess.Popen(['sleep', '30'], start_new_session=True)"
    )
    start = time.monotonic()
    with supervised(
        [sys.executable, "-X", "utf8", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert list(output_lines(process)) == ["first", "b\u00e4d \ufffd"]
    assert time.monotonic() - start < 20


def test_output_of_a_short_process_is_complete():
    script = "import sys; sys.stdout.write('line\\n' * 20000)"
    with supervised([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert list(output_lines(process)) == ["line"] * 20000
