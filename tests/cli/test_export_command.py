"""Tests of `itrex-sweet export`."""

import json

import pytest

from tests.tiny_models import tiny_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("format_", "suffix"), [("onnx", ".onnx"), ("torchscript", ".pt")])
def test_files_and_description(run, artifact, tmp_path, format_, suffix):
    finished = run("export", artifact, "--format", format_, "--output", tmp_path / "new" / "out")
    assert finished.status == 0 and not finished.err, finished.err
    lines = finished.out.splitlines()
    names = ["embed", "probe_1", "advance_1_2", "probe_2", "advance_2_4", "probe_4"]
    assert [line.split()[0] for line in lines[:-1]] == [f"{tmp_path / 'new' / 'out' / name}{suffix}" for name in names]
    assert lines[-1] == str(tmp_path / "new" / "out" / "subgraphs.json")
    described = json.loads((tmp_path / "new" / "out" / "subgraphs.json").read_text(encoding="utf-8"))
    assert described["kind"] == format_ and described["exits"] == [1, 2, 4]


def test_json_output_equals_the_description(run, artifact, tmp_path):
    finished = run("export", artifact, "--format", "torchscript", "--output", tmp_path, "--json")
    assert finished.json() == json.loads((tmp_path / "subgraphs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("argv", [["DIR"], ["DIR", "--output", "o", "--format", "tflite"], ["--output", "o"]])
def test_usage_errors(run, argv):
    finished = run("export", *argv)
    assert finished.status == 2 and not finished.out and "usage: itrex-sweet export" in finished.err


def test_folder_without_artifact_is_one_line(run, tmp_path):
    tiny_model("bert").save_pretrained(tmp_path / "plain")
    finished = run("export", tmp_path / "plain", "--output", tmp_path / "out")
    assert finished.status == 1 and "plain checkpoint" in finished.err and finished.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unwritable_output(run, artifact, tmp_path):
    (tmp_path / "file").write_text("")
    finished = run("export", artifact, "--output", tmp_path / "file" / "out")
    assert finished.status == 1 and "cannot write" in finished.err and finished.err.count("\n") == 1
