"""Runs the code of the README and of the documentation, and builds the site.

Every Python and shell block of a page is run, in order, in one namespace and one folder per page. A block that cannot
run here has a comment above it, `<!-- not run: reason -->`.
"""

import ast
import csv
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

import itrex_sweet
from itrex_sweet.artifact import write_artifact
from itrex_sweet.cli import main
from tests.acceleration.conftest import GOOD, texts_of, write_plain
from tests.tiny_artifacts import model_and_tensors, tiny_tokenizer
from tests.tiny_models import tiny_model

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOT_RUN = re.compile(r"<!-- not run: .+? -->\n")
BLOCK = re.compile(r"^(<!-- not run: .+? -->\n)?```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXITS, LABELS = (1, 4, 6, 12), {0: "negative", 1: "positive"}
MAY_EXIT_WITH = {"drift": (0, 3)}  # stable, or not: both are answers


def runnable(page: Path) -> list[tuple[str, str]]:
    """Returns (language, code) of the blocks of a page that are run."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, code) for not_run, language, code in found if not not_run]


PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))) if runnable(page)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a folder with the files that the pages use: tiny models and generated texts."""
    folder = tmp_path_factory.mktemp("documentation")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer()
    tiny_model("bert", num_layers=12, num_labels=2).save_pretrained(folder / "bert-base-uncased")
    tokenizer.save_pretrained(folder / "bert-base-uncased")
    write_plain(folder / "my-deployed-classifier")
    _, config, tensors = model_and_tensors("bert", EXITS, num_labels=2, mode="decoupled")
    config.id2label, config.label2id = LABELS, {name: id_ for id_, name in LABELS.items()}
    for name in ("my-classifier", "my-classifier-int8"):  # float32 both: only the README quantizes
        write_artifact(folder / name, config=config, tensors=tensors, tokenizer=tokenizer)
    for seed, (name, count) in enumerate({"train": 48, "dev": 24, "calibration": 320, "held-out": 2700}.items()):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            rows = [(text, int(any(word in GOOD for word in text.split()))) for text in texts_of(count, seed + 20)]
            csv.writer(stream).writerows([("text", "label"), *rows])
    lines = (json.dumps({"text": text}) + "\n" for text in texts_of(700, seed=7))
    (folder / "traffic.jsonl").write_text("".join(lines))
    torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_of_a_page_runs(page, prepared, tmp_path, monkeypatch):
    if page.name == "serve.md" and (importlib.util.find_spec("uvicorn") is None or shutil.which("curl") is None):
        pytest.skip("needs the extra [serve] and curl")
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    measured_in_layers(monkeypatch)
    names: dict = {}
    for language, code in runnable(page):
        if language == "python":
            exec(compile(code, name_of(page), "exec"), names)
        else:
            run_shell(code)


def measured_in_layers(monkeypatch) -> None:
    """Makes `accelerate` choose exits and policies by layers: the time of a tiny model is mostly noise."""
    from itrex_sweet.acceleration import accelerating

    for name in ("calibrate", "prune_exits"):
        real = getattr(accelerating, name)
        monkeypatch.setattr(
            accelerating, name, lambda *arguments, real=real, **options: real(*arguments, **options, unit="layers")
        )


def run_shell(code: str) -> None:
    """Runs the lines of a block in this process: `itrex-sweet ...`, behind `echo TEXT |` and before `> FILE`.

    `itrex-sweet serve ... &` starts a server, which `kill %1` stops, and `curl` asks it.
    """
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] in ("curl", "kill") or words[-1] == "&":
            run_service(words)
            continue
        text, output = "", None
        if words[0] == "echo" and words[2] == "|":
            text, words = words[1] + "\n", words[3:]
        if len(words) > 2 and words[-2] == ">":
            words, output = words[:-2], words[-1]
        assert words[0] == "itrex-sweet", f"a shell block has a command that the test cannot run: {line}"
        status, printed = run_command(words[1:], text)
        assert status in MAY_EXIT_WITH.get(words[1], (0,)), f"{line}\nended with status {status}"
        if output:
            Path(output).write_text(printed)


SERVERS: list[subprocess.Popen] = []


def run_service(words: list[str]) -> None:
    """Starts a server and waits until it is ready, asks it with `curl`, or stops it with SIGTERM."""
    if words[0] == "curl":
        done = subprocess.run(["curl", "--fail", *words[1:]], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    elif words == ["kill", "%1"]:
        server = SERVERS.pop()
        server.terminate()
        assert server.wait(60) == 0
    else:
        assert words[:2] == ["itrex-sweet", "serve"] and words[-1] == "&", words
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        SERVERS.append(subprocess.Popen([sys.executable, "-m", "itrex_sweet.cli", *words[1:-1]], env=environment))
        port = words[words.index("--port") + 1]
        ready = ["--retry", "60", "--retry-delay", "1", "--retry-all-errors", f"http://127.0.0.1:{port}/health"]
        run_service(["curl", "-s", *ready])


@pytest.fixture(autouse=True)
def no_server_left():
    """Kills servers of a page that failed."""
    yield
    while SERVERS:
        SERVERS.pop().kill()


def run_command(arguments: list[str], text: str) -> tuple[int, str]:
    printed, stdin = io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    try:
        with redirect_stdout(printed):
            return main(arguments), printed.getvalue()
    finally:
        sys.stdin = stdin


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))], ids=name_of
)
def test_blocks_are_run_or_give_a_reason(page):
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)$", text, re.MULTILINE)
    assert len([name for name in fences if name in ("python", "bash")]) == len(BLOCK.findall(text))
    assert len(NOT_RUN.findall(text)) == sum(bool(not_run) for not_run, _, _ in BLOCK.findall(text))
    assert set(fences) <= {"", "python", "bash", "text", "json"}, "other languages would not be run"


def test_messages_of_troubleshooting_exist():
    """Messages and exceptions in the first column of its tables occur in the sources."""
    texts = []
    for path in Path(itrex_sweet.__file__).resolve().parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.ClassDef):
                texts.append(node.name)
    page = (DOCS / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [
        found for row in re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE) for found in re.findall("`([^`]+)`", row)
    ]
    missing = [message for message in messages if "=" not in message and not any(message in text for text in texts)]
    assert len(messages) > 10 and not missing


def test_links_of_the_readme():
    for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "docker/README.md"):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8")):
            assert link.startswith("https://") or ((ROOT / name).parent / link).exists(), f"{name}: {link}"


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: the extra [docs]")
def test_site_builds_without_warnings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "cli" / "index.html").read_text(encoding="utf-8")
    assert 'id="accelerate"' in page and "--max-agreement-drop" in page
