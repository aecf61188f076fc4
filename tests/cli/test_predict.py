"""Tests of `itrex-sweet predict`: one answer per text, in the order of the texts."""

import _thread
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from safetensors.torch import load_file, save_file

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import reading
from itrex_sweet.data import batches, read_text_rows
from itrex_sweet.data.lines import as_text
from tests.tiny_artifacts import sign

TEXTS = ["the room was good", "the soup was bad", "a phone but not great", "never again"]


@pytest.fixture()
def expected(artifact):
    return SweetModelForSequenceClassification.from_pretrained(artifact).predict(TEXTS)


def same(answers, expected):
    assert [set(answer) for answer in answers] == [{"label", "score", "exit_layer", "stopped_by"}] * len(expected)
    for answer, row in zip(answers, expected, strict=True):
        assert (answer["label"], answer["exit_layer"]) == (row["label"], row["exit_layer"])
        assert answer["score"] == pytest.approx(row["score"], rel=1e-4)


@pytest.mark.parametrize("name", ["t.txt", "t.csv", "t.jsonl", "t.tsv", "unknown.dat"])
def test_file_formats(run, artifact, expected, tmp_path, name):
    content = {
        "t.csv": "id,text\n" + "".join(f"{place},{text}\n" for place, text in enumerate(TEXTS)),
        "t.tsv": "id\ttext\n" + "".join(f"{place}\t{text}\n" for place, text in enumerate(TEXTS)),
        "t.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS),
    }.get(name, "\n".join(TEXTS))
    (tmp_path / name).write_text(content)
    finished = run("predict", artifact, tmp_path / name)
    assert finished.status == 0, finished.err
    same(finished.json_lines(), expected)


def test_several_files_and_echo(run, artifact, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[:1]))
    (tmp_path / "b.txt").write_text("\n".join(TEXTS[1:]))
    finished = run("predict", artifact, tmp_path / "a.txt", tmp_path / "b.txt", "--echo")
    assert [row["text"] for row in finished.json_lines()] == TEXTS


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_stdin(run, artifact, expected, monkeypatch, format, named):
    content = {"text": "\n".join(TEXTS), "csv": "text\n" + "\n".join(TEXTS)}.get(format)
    content = content or "\n".join(json.dumps({"text": text}) for text in TEXTS)
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    finished = run("predict", artifact, *["-"] * named, "--format", format)
    assert finished.status == 0, finished.err
    same(finished.json_lines(), expected)


def test_pairs(run, artifact, tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"premise": TEXTS[0], "hypothesis": TEXTS[1]}))
    finished = run("predict", artifact, tmp_path / "t.jsonl", "--echo")
    assert finished.json_lines()[0]["text"] == TEXTS[:2]
    model = SweetModelForSequenceClassification.from_pretrained(artifact)
    assert finished.json_lines()[0]["label"] == model.predict([tuple(TEXTS[:2])])[0]["label"]


def test_invalid_rows_are_marked_in_place(run, artifact, tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"text": "the room was good"}\nbroken\n{"text": ""}\n{"other": 1}\n{"text": "the soup was bad"}\n'
    )
    finished = run("predict", artifact, tmp_path / "t.jsonl", "--batch-size", 1)
    assert finished.status == 1 and "3 of 5 texts got no answer" in finished.err
    answers = finished.json_lines()
    assert ["error" in answer for answer in answers] == [False, True, True, True, False]
    assert "t.jsonl, line 2: not a JSON object" in answers[1]["error"]
    assert all(set(answer) == {"error"} for answer in answers[1:4])


def test_truncated_file_is_an_error_after_earlier_answers(run, artifact, tmp_path):
    import gzip
    import random

    rng = random.Random(0)
    lines = "".join(f"the room was {rng.random()}\n" for _ in range(4000))
    whole = gzip.compress(lines.encode())
    (tmp_path / "t.txt.gz").write_bytes(whole[: len(whole) // 2])
    finished = run("predict", artifact, tmp_path / "t.txt.gz")
    answers = finished.json_lines()
    assert finished.status == 1 and "cannot be read" in answers[-1]["error"]
    assert len(answers) > 100 and all("label" in answer for answer in answers[:-1])


def test_thresholds(run, artifact, tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    for given, layer in (("0", 1), ("1.0", 4), ("1,0", 2)):
        answers = run("predict", artifact, tmp_path / "t.txt", "--threshold", given).json_lines()
        assert {answer["exit_layer"] for answer in answers} == {layer}
    finished = run("predict", artifact, tmp_path / "t.txt", "--threshold", "0.5,0.5,0.5")
    assert finished.status == 1 and "3 thresholds for 3 exits" in finished.err


def test_truncation_of_long_texts(run, artifact, tmp_path):
    (tmp_path / "t.txt").write_text("the " * 100 + "\nthe room\n")
    finished = run("predict", artifact, tmp_path / "t.txt")
    assert finished.status == 0 and "warning: " in finished.err
    finished = run("predict", artifact, tmp_path / "t.txt", "--overlong", "refuse", "--max-length", 10)
    assert finished.status == 1
    assert ["error" in answer for answer in finished.json_lines()] == [True, False]
    assert "the limit is 10" in finished.json_lines()[0]["error"]


def test_rows_with_logits_that_are_not_finite(run, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "check_tensors_of", lambda *_, **__: None)  # would refuse such weights
    shutil.copytree(artifact, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    # The word "room" becomes NaN, so that only rows with it break.
    model = SweetModelForSequenceClassification.from_pretrained(artifact)
    word = model.tokenizer("room", add_special_tokens=False)["input_ids"][0]
    weights["bert.embeddings.word_embeddings.weight"][word] = float("nan")
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    sign(tmp_path / "broken")
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    finished = run("predict", tmp_path / "broken", tmp_path / "t.txt", "--echo")
    answers = finished.json_lines()
    assert finished.status == 1
    assert ["error" in answer for answer in answers] == [True, False, False, False]
    assert "not finite" in answers[0]["error"] and answers[0]["text"] == TEXTS[0]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["absent.txt"], "absent.txt: no such file"),
        (["--backend", "nothing"], "backend='nothing'"),
        (["t.csv", "--text-column", "absent"], "no column 'absent'"),
    ],
)
def test_invalid_arguments_fail_before_any_answer(run, artifact, tmp_path, monkeypatch, argv, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("text\na\n")
    finished = run("predict", artifact, *argv)
    assert finished.status == 1 and problem in finished.err and not finished.out


def test_empty_input(run, artifact, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    finished = run("predict", artifact)
    assert (finished.status, finished.out) == (0, "") and "error" not in finished.err


def test_errors_name_the_line_of_the_file(run, artifact, tmp_path):
    lines = ["the room was good", "", "b\udce4d", "the " * 40, "the soup was bad", "the " * 40]
    (tmp_path / "t.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    finished = run("predict", artifact, tmp_path / "t.txt", "--overlong", "refuse")
    errors = [answer.get("error", "") for answer in finished.json_lines()]
    assert [place for place, error in enumerate(errors, start=1) if error] == [2, 3, 4, 6]
    assert all(f"t.txt, line {place}: " in errors[place - 1] for place in (2, 3, 4, 6))


def test_invalid_record_does_not_affect_others(run, artifact, expected, monkeypatch):
    bad = [
        '{"text": "bad \\ud83d"}',
        '{"text": "a", "text_pair": "bad \\ud83d"}',
        '{"text": "a", "text_pair": ""}',
        '{"text": "a", "text_pair": 7}',
        '{"text": ["a", "b"]}',
        '{"texts": "a"}',
        '{"text": "a", "text": "b"}',
        "[1, 2]",
        "null",
        "[" * 50_000,
        '{"text": ' + "9" * 5000 + "}",
    ]
    good = [json.dumps({"id": place, "text": text}) for place, text in enumerate(TEXTS)]
    mixed = [bad[0], *(line for pair in zip(good, bad[1:], strict=False) for line in pair), *bad[len(good) :]]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(mixed).encode())))
    finished = run("predict", artifact, "--format", "jsonl", "--echo")
    answers = finished.json_lines()
    assert finished.status == 1 and len(answers) == len(mixed)
    answered = [answer for answer in answers if "error" not in answer]
    assert [(answer.pop("id"), answer.pop("text")) for answer in answered] == list(enumerate(TEXTS))
    same(answered, expected)
    for place, (answer, line) in enumerate(zip(answers, mixed, strict=True), start=1):
        assert line in good or f"<stdin>, line {place}: " in answer["error"]


def test_pairs_and_ids_on_stdin(run, artifact, monkeypatch):
    records = [{"ID": f"r{place}", "text": "a room", "text_pair": text} for place, text in enumerate(TEXTS * 20)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(record) + "\n" for record in records)))
    finished = run("predict", artifact, "--format", "jsonl", "--echo", "--batch-size", 3)
    assert finished.status == 0, finished.err
    assert [(row["id"], row["text"][1]) for row in finished.json_lines()] == [
        (f"r{place}", text) for place, text in enumerate(TEXTS * 20)
    ]


def test_each_answer_is_one_line(run, artifact, tmp_path):
    (tmp_path / "t.txt").write_text("a\u2028b\u2029c\x85d\x0ce\n", encoding="utf-8")
    finished = run("predict", artifact, tmp_path / "t.txt", "--echo")
    assert [row["text"] for row in finished.json_lines()] == ["a\u2028b\u2029c\x85d\x0ce"]


def test_top_k(run, artifact, monkeypatch):
    def predict(self, texts, *, top_k=None, **options):
        labels = [{"label": f"LABEL_{place}", "score": 0.5**place} for place in range(3)]
        return [{"label": "LABEL_0", "labels": labels[: len(labels) if top_k == "all" else top_k]} for _ in texts]

    monkeypatch.setattr(SweetModelForSequenceClassification, "predict", predict)
    for argv, count in ((["--top-k", "2"], 2), (["--top-k", "all"], 3), (["--probabilities"], 3)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("a room\n"))
        (answer,) = run("predict", artifact, *argv).json_lines()
        assert len(answer["labels"]) == count
    for wrong in ("0", "-1", "some"):
        assert run("predict", artifact, "--top-k", wrong).status == 2


@pytest.mark.parametrize("name", [".", "absent", "nul\0"])
def test_invalid_input_file(run, artifact, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    finished = run("predict", artifact, name)
    assert finished.status == 1 and not finished.out and "Traceback" not in finished.err


def test_closed_stdin(run, artifact, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    finished = run("predict", artifact)
    assert finished.status == 1 and "<stdin> is closed" in finished.out


# ---------------------------------------------------------------------------------- pipes


def piped_rows(reading: int, format: str):
    yield from read_text_rows(as_text(io.FileIO(reading, "rb"), "pipe"), format)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("format", ["text", "jsonl", "csv", "tsv"])
def test_rows_are_yielded_as_they_arrive(format, end):
    reading, writing = os.pipe()
    given = queue.Queue()
    rows = batches(piped_rows(reading, format), 256, live=True)
    threading.Thread(target=lambda: [given.put([row.text for row in batch]) for batch in rows], daemon=True).start()
    if format in ("csv", "tsv"):
        os.write(writing, f"text{end}".encode())
    lines = [json.dumps({"text": text}) if format == "jsonl" else text for text in TEXTS]
    for text, line, following in zip(TEXTS, lines, [*lines[1:], ""], strict=True):
        os.write(writing, (line[4:] if text != TEXTS[0] else line).encode())
        os.write(writing, (end + following[:4]).encode())  # the next one is begun
        assert given.get(timeout=30) == [text]
    os.close(writing)


def test_fast_pipe_gives_full_batches_with_bounded_read_ahead():
    read = []

    def rows():
        for row in read_text_rows(io.StringIO("word\n" * 2000), "text"):
            read.append(row)
            yield row

    sizes = []
    for batch in batches(rows(), 64, live=True):
        sizes.append(len(batch))
        assert len(read) <= sum(sizes) + 64 + 1
    assert sum(sizes) == 2000 and max(sizes) == 64 and sizes.count(64) > 25
    assert [len(batch) for batch in batches(rows(), 64, live=False)] == [64] * 31 + [16]


@pytest.mark.parametrize("live", [True, False])
def test_batches_of_long_texts_are_small(live):
    texts = io.StringIO(("x" * (1 << 21) + "\n") * 8)
    assert max(len(batch) for batch in batches(read_text_rows(texts, "text"), 64, live)) <= 2


def test_reader_error_follows_earlier_rows():
    def rows():
        yield from read_text_rows(io.StringIO("a\n"), "text")
        raise KeyError("broken")

    given = batches(rows(), 8, live=True)
    assert [row.text for row in next(given)] == ["a"]
    with pytest.raises(KeyError, match="broken"):
        next(given)


@pytest.mark.usefixtures("default_signals")
def test_a_signal_without_a_system_call_to_interrupt_ends_the_wait_for_rows():
    more = threading.Event()

    def rows():
        more.wait(5)
        yield from ()

    # Marks a signal as arrived without interrupting the wait, as one that arrives just before it.
    threading.Timer(0.1, _thread.interrupt_main).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(batches(rows(), 8, live=True))
    assert time.monotonic() - start < 4
    more.set()


def started(artifact, *argv):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-m", "itrex_sweet.cli", "predict", str(artifact), *argv]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def answer_within(process, seconds=60):
    """Returns the next line; fails if none comes within a time."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    assert line, process.stderr.read()
    return json.loads(line)


def test_subprocess_answers_each_line_of_a_pipe(artifact):
    with started(artifact, "--format", "jsonl", "--echo") as process:
        for place, text in enumerate([*TEXTS, "last"]):
            process.stdin.write(json.dumps({"id": place, "text": text}) + "\n")
            process.stdin.flush()
            assert answer_within(process)["id"] == place
        process.stdin.close()
        assert process.wait(60) == 0 and process.stdout.read() == ""


@pytest.mark.usefixtures("default_signals")
def test_interrupted_subprocess_prints_no_traceback(artifact):
    with started(artifact) as process:
        process.stdin.write("the room was good\n")
        process.stdin.flush()
        answer_within(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr.read()


def test_closed_output_pipe_prints_no_traceback(artifact):
    with started(artifact) as process:
        process.stdin.write("the room was good\n")
        process.stdin.flush()
        answer_within(process)
        process.stdout.close()
        process.stdin.write("the room was good\n" * 10)
        process.stdin.flush()
        assert process.wait(60) == 141  # while the pipe that it reads is still open
        err = process.stderr.read()
        assert "Traceback" not in err and "Fatal" not in err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["t.txt", "--ray"], "--ray needs --output"),
        (["t.txt", "--rows-per-part", "5"], "--rows-per-part needs --output"),
        (["t.txt", "--output", "out", "--workers", "2"], "--workers needs --ray"),
        (["t.txt", "--output", "out", "--deadline-ms", "5"], "--deadline-ms and --output exclude one another"),
        (["--output", "out"], "--output needs files or folders"),
        (["-", "--output", "out"], "--output needs files or folders"),
    ],
)
def test_combinations_of_options_of_a_folder(run, artifact, tmp_path, monkeypatch, argv, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    finished = run("predict", artifact, *argv)
    assert finished.status == 2 and problem in finished.err and not (tmp_path / "out").exists()


def test_answers_in_a_folder(run, artifact, expected, tmp_path):
    (tmp_path / "t.txt").write_text("\n".join([*TEXTS, "", "again"]))
    finished = run("predict", artifact, tmp_path / "t.txt", "--output", tmp_path / "out")
    assert finished.status == 1 and finished.out == "" and "6 rows: 5 answered, 1 without" in finished.err
    (file,) = (tmp_path / "out" / "answers").iterdir()
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert [answer.pop("row") for answer in answers] == [0, 1, 2, 3, 5]
    same(answers[:4], expected)
    finished = run("predict", artifact, tmp_path / "t.txt", "--output", tmp_path / "out")
    assert finished.status == 1 and ". 0 rows were computed in this run" in finished.err
