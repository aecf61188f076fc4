"""`itrex-sweet predict`: one answer per text, in order, whatever the texts are."""

import io
import json
import shutil
import sys

import pytest
from safetensors.torch import load_file, save_file

from itrex_sweet import SweetModelForSequenceClassification
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
def test_files_of_every_format(run, artifact, expected, tmp_path, name):
    content = {
        "t.csv": "id,text\n" + "".join(f"{place},{text}\n" for place, text in enumerate(TEXTS)),
        "t.tsv": "id\ttext\n" + "".join(f"{place}\t{text}\n" for place, text in enumerate(TEXTS)),
        "t.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS),
    }.get(name, "\n".join(TEXTS))
    (tmp_path / name).write_text(content)
    finished = run("predict", artifact, tmp_path / name)
    assert finished.status == 0, finished.err
    same(finished.json_lines(), expected)


def test_several_files_in_order_and_echo(run, artifact, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[:1]))
    (tmp_path / "b.txt").write_text("\n".join(TEXTS[1:]))
    finished = run("predict", artifact, tmp_path / "a.txt", tmp_path / "b.txt", "--echo")
    assert [row["text"] for row in finished.json_lines()] == TEXTS


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_standard_input(run, artifact, expected, monkeypatch, format, named):
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


def test_bad_rows_keep_their_place_and_the_others_are_answered(run, artifact, tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"text": "the room was good"}\nbroken\n{"text": ""}\n{"other": 1}\n{"text": "the soup was bad"}\n'
    )
    finished = run("predict", artifact, tmp_path / "t.jsonl", "--batch-size", 1)
    assert finished.status == 1 and "3 of 5 texts got no answer" in finished.err
    answers = finished.json_lines()
    assert ["error" in answer for answer in answers] == [False, True, True, True, False]
    assert "t.jsonl, line 2: not a JSON object" in answers[1]["error"]
    assert all(set(answer) == {"error"} for answer in answers[1:4])


def test_a_file_that_breaks_off_is_an_error_and_what_came_before_is_answered(run, artifact, tmp_path):
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


def test_overlong_texts_are_cut_or_refused(run, artifact, tmp_path):
    (tmp_path / "t.txt").write_text("the " * 100 + "\nthe room\n")
    finished = run("predict", artifact, tmp_path / "t.txt")
    assert finished.status == 0 and "warning: " in finished.err
    finished = run("predict", artifact, tmp_path / "t.txt", "--overlong", "refuse", "--max-length", 10)
    assert finished.status == 1
    assert ["error" in answer for answer in finished.json_lines()] == [True, False]
    assert "the limit is 10" in finished.json_lines()[0]["error"]


def test_logits_that_are_not_finite_are_said_row_by_row(run, artifact, tmp_path):
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
def test_what_cannot_be_done_is_said_before_any_answer(run, artifact, tmp_path, monkeypatch, argv, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("text\na\n")
    finished = run("predict", artifact, *argv)
    assert finished.status == 1 and problem in finished.err and not finished.out


def test_no_texts_are_fine(run, artifact, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    finished = run("predict", artifact)
    assert (finished.status, finished.out) == (0, "") and "error" not in finished.err
