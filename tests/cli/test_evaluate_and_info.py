"""Tests of `itrex-sweet evaluate` and `info`."""

import json

import pytest

from itrex_sweet import SweetModelForSequenceClassification
from tests.tiny_artifacts import sign, tiny_artifact, tiny_cascade, tiny_tokenizer


def test_tables(run, artifact, corpus):
    finished = run("evaluate", artifact, "--data", corpus / "numbers.jsonl", "--timed-rows", 8, "--repeats", 1)
    assert finished.status == 0, finished.err
    assert "40 rows" in finished.out and "threshold" in finished.out and "area under the curve" in finished.out
    assert [line.split()[0] for line in finished.out.splitlines()[4:8]] == ["1", "2", "4", "policy"]


def test_json_output_equals_predict(run, artifact, corpus):
    argv = [
        "evaluate",
        artifact,
        "--data",
        corpus / "numbers.jsonl",
        "--json",
        "--timed-rows",
        0,
        "--threshold",
        0.5,
    ]
    (evaluation,) = run(*argv).json()
    rows = [json.loads(line) for line in (corpus / "numbers.jsonl").read_text().splitlines()]
    model = SweetModelForSequenceClassification.from_pretrained(artifact, threshold=0.5)
    answers = model.predict([row["text"] for row in rows])
    right = [answer["label"] == f"LABEL_{row['label']}" for answer, row in zip(answers, rows, strict=True)]
    assert evaluation["report"]["metric"] == pytest.approx(sum(right) / len(right))
    assert evaluation["report"]["policy"]["thresholds"] == [0.5, 0.5]
    assert evaluation["curve"]["points"][0]["mean_layers"] == 1.0


def test_several_artifacts_in_one_plot(run, artifact, corpus, tmp_path):
    pytest.importorskip("matplotlib")
    tiny_cascade(tmp_path / "cascade", tokenizer=tiny_tokenizer())
    argv = ["evaluate", artifact, tmp_path / "cascade", "--data", corpus / "numbers.jsonl", "--timed-rows", 8]
    finished = run(*argv, "--repeats", 1, "--output", tmp_path / "new" / "report")
    assert finished.status == 0, finished.err
    written = json.loads((tmp_path / "new" / "report" / "evaluation.json").read_text())
    assert [evaluation["name"] for evaluation in written] == [artifact.name, "cascade"]
    assert [exit_["layers_run"] for exit_ in written[1]["report"]["exits"]] == [1, 3, 7]
    assert (tmp_path / "new" / "report" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert artifact.name in finished.out and "cascade" in finished.out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"text": "a", "label": 3}', "label 3"),
        ('{"text": "a"}', "no column 'label'"),
        ('{"text": "a", "label": null}', "line 1: no label"),
        ('{"body": "a", "label": 0}', "It has: body, label"),
        ("broken", "line 1: not a JSON object"),
    ],
)
def test_invalid_data(run, artifact, tmp_path, content, problem):
    (tmp_path / "d.jsonl").write_text(content)
    finished = run("evaluate", artifact, "--data", tmp_path / "d.jsonl")
    assert finished.status == 1 and problem in finished.err and not finished.out


def test_unwritable_output_fails_before_evaluation(run, artifact, corpus, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    finished = run("evaluate", artifact, "--data", corpus / "absent.jsonl", "--output", tmp_path / "file" / "x")
    assert finished.status == 1 and "cannot write" in finished.err


def test_artifacts_with_different_labels_are_rejected(run, artifact, corpus, tmp_path):
    import shutil

    shutil.copytree(artifact, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    sign(tmp_path / "other")
    finished = run("evaluate", artifact, tmp_path / "other", "--data", corpus / "numbers.jsonl")
    assert finished.status == 1 and "cannot be compared" in finished.err


def test_info_without_arguments(run):
    facts = run("info", "--json").json()
    assert facts["backends"] and facts["versions"]["torch"] and facts["machine"]["usable_cores"] >= 1
    assert set(facts["instruction sets"]) >= {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"}
    assert facts["machine"]["threads"] == 1
    shown = run("info").out
    assert "torch" in shown and "processor" in shown and facts["machine"]["processor"] in shown


def test_info_of_an_artifact(run, artifact):
    facts = run("info", artifact, "--json").json()
    assert facts["exits"] == [1, 2, 4] and facts["family"] == "bert" and facts["depth"] == 4
    assert facts["architecture"] == "early-exit" and facts["precision"] == "float32" and facts["tokenizer"]
    assert facts["texts encoded by"].startswith("tokenizers: its model is WordLevel")
    assert facts["bytes"] == {"model.safetensors": (artifact / "model.safetensors").stat().st_size}
    assert facts["provenance"]["versions"]["torch"]
    assert "exits" in run("info", artifact).out
    assert facts["mode"] == "sweet" and facts["private layers"] == {}


def test_info_of_private_layers(run, tmp_path):
    artifact = tiny_artifact(tmp_path, mode="decoupled")
    facts = run("info", tmp_path, "--json").json()
    private = [tensor.nbytes for name, tensor in artifact.tensors().items() if ".layer." in name and "sweet" in name]
    assert facts["mode"] == "decoupled"
    assert facts["private layers"] == {"exits": [1, 2], "bytes": sum(private)} and sum(private) > 0
    shown = run("info", tmp_path).out
    assert "private layers" in shown and "decoupled" in shown
