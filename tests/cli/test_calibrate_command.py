"""Tests of `itrex-sweet calibrate`: output, record and errors."""

import itertools
import shutil

import pytest

from itrex_sweet import open_artifact
from itrex_sweet.artifact import copy_artifact
from tests.cli.conftest import sentences
from tests.evaluation.test_reference import plain_folder
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import WORDS, tiny_tokenizer
from tests.tiny_models import tiny_model


@pytest.fixture
def copied(artifact, tmp_path):
    shutil.copytree(artifact, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Returns texts, many of them similar, and labels 0 to 2."""
    path = tmp_path_factory.mktemp("held-out") / "rows.csv"
    lines = [f"{row['text']},{place % 3}" for place, row in enumerate(sentences(300, 5))]
    path.write_text("\n".join(["text,label", *lines]))
    return path


def test_layer_budget(run, copied, held_out, tmp_path):
    finished = run(
        "calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--unit", "layers", "--output", tmp_path / "out"
    )
    assert finished.status == 0, finished.err
    for part in ("thresholds", "layers", "temperatures", "calibration error per exit", "no guarantee", "→"):
        assert part in finished.out
    assert open_artifact(tmp_path / "out").calibration["budget"]["max_layers"] == 3.9
    assert open_artifact(copied).calibration == {}


def test_names_a_fixed_exit_that_is_as_good(run, copied, held_out, monkeypatch):
    argv = ("calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--unit", "layers")
    finished = run(*argv)
    assert ("A static model is as good here" in finished.out) == (
        open_artifact(copied).calibration["static_alternative"] is not None
    )
    monkeypatch.setattr(
        "itrex_sweet.calibration.result.Calibration.static_alternative",
        property(lambda self: (2, self.candidates[self.chosen])),
    )
    assert "with every row leaving at exit 2, the score is" in run(*argv).out


def test_time_budget_and_plot(run, copied, held_out, tmp_path):
    argv = ("calibrate", copied, "--data", held_out, "--max-latency-ms", 1000, "--plot", tmp_path / "curve.png")
    finished = run(*argv)
    assert finished.status == 0, finished.err
    assert "milliseconds per row in batches of 1, on" in finished.out and "ms/row" in finished.out
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    costs = open_artifact(copied).costs
    assert costs["batch_sizes"] == [1, 8, 32] and costs["processor"]
    # The next one takes the table that is there.
    assert run(*argv).status == 0 and open_artifact(copied).costs == costs
    impossible = run("calibrate", copied, "--data", held_out, "--max-latency-ms", 1e-6)
    assert impossible.status == 1 and "max_latency_ms=1e-06" in impossible.err


def test_predict_with_quality(run, copied, held_out, tmp_path):
    assert run("calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--unit", "layers").status == 0
    texts = tmp_path / "texts.txt"
    texts.write_text("the soup was good\nnever again\n" * 20)

    def layers(*stopping):
        return [row["exit_layer"] for row in run("predict", copied, texts, *stopping).json_lines()]

    assert set(layers("--quality", 1)) == {4}
    assert sum(layers("--quality", 0)) <= sum(layers("--quality", 0.5)) <= sum(layers("--quality", 1))
    assert max(layers("--quality", 1, "--max-exit", 2)) == 2
    hurried = run("predict", copied, texts, "--threshold", 1, "--deadline-ms", 1e-6).json_lines()
    assert {(row["exit_layer"], row["stopped_by"]) for row in hurried} == {(1, "deadline")}
    assert "max_exit=3" in run("predict", copied, texts, "--max-exit", 3).err


def test_drift_on_predictions(run, copied, held_out, tmp_path):
    argv = ("calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--unit", "layers")
    assert run("drift", copied, held_out).status == 1  # not calibrated yet
    assert run(*argv).status == 0
    same, other = tmp_path / "same.jsonl", tmp_path / "other.jsonl"
    same.write_text(run("predict", copied, held_out).out)
    finished = run("drift", copied, same)
    assert finished.status == 0 and finished.out.startswith("stable: 300 predictions"), finished.err
    texts = tmp_path / "texts.txt"
    texts.write_text("awful\n" * 300)
    other.write_text(run("predict", copied, texts).out)
    moved = run("drift", copied, other, "--json")
    assert moved.status == 3 and moved.json()["verdict"] == "recalibrate"
    assert "Calibrate on recent rows" in run("drift", copied, other).out
    same.write_text("no json\n")
    assert "line 1" in run("drift", copied, same).err and "no such file" in run("drift", copied, tmp_path / "no").err


def test_json_output_equals_the_record(run, copied, held_out):
    layers = ("--max-layers", 3.9, "--unit", "layers")
    argv = ("calibrate", copied, "--data", held_out, *layers, "--criterion", "margin", "--json")
    facts = run(*argv).json()
    assert facts == open_artifact(copied).calibration
    assert facts["criterion"] == open_artifact(copied).policy.criterion == "margin"


def test_budget_that_cannot_be_certified_writes_nothing(run, copied, held_out):
    before = (copied / "sweet_config.json").read_bytes()
    finished = run("calibrate", copied, "--data", held_out, "--max-agreement-drop", 0.002)
    assert finished.status == 1 and "needs at least" in finished.err
    assert (copied / "sweet_config.json").read_bytes() == before


@pytest.mark.parametrize(("allowed", "verdict"), [(1.0, ": held."), (0.0, ": not held on these rows.")])
@pytest.mark.parametrize(
    ("budget", "more", "what"),
    [
        ({"max_accuracy_drop": None}, (), "points of accuracy with 95 % confidence; lost"),
        ({"max_agreement_drop": None}, (), "% of agreement with full depth with 95 % confidence; lost"),
        ({"max_metric_drop": None, "metric": "f1"}, ("--metric", "f1"), "points of f1 with 95 % confidence; lost"),
    ],
)
def test_evaluate_checks_the_guarantee(run, copied, held_out, tmp_path, budget, more, what, allowed, verdict):
    budget = {name: allowed if value is None else value for name, value in budget.items()}
    artifact = open_artifact(copied)
    copy_artifact(
        artifact, copied, artifact.policy.with_threshold(0.0), calibration={"budget": {**budget, "confidence": 0.95}}
    )
    answered = tmp_path / "answered.csv"  # labelled as full depth answers, which exit 1 does not always
    texts = [line.rpartition(",")[0] for line in held_out.read_text().splitlines()[1:]]
    answers = run("predict", copied, held_out, "--threshold", 1).json_lines()
    lines = [f"{text},{answer['label']}" for text, answer in zip(texts, answers, strict=True)]
    answered.write_text("\n".join(["text,label", *lines]))
    argv = ("evaluate", copied, "--data", answered, "--timed-rows", 0)
    finished = run(*argv, *more)
    assert finished.status == 0, finished.err
    assert what in finished.out and verdict in finished.out
    assert "certified" not in run(*argv, *more, "--threshold", 0.9).out
    if more:
        assert "certified" not in run(*argv).out, "that metric was not evaluated"


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ((), 1, "a budget needs"),
        (("--max-accuracy-drop", 2), 2, "2.0: it is a number between 0 and 1, both excluded"),
        (("--max-layers", 1, "--criterion", "luck"), 2, "invalid choice"),
        (("--max-layers", 1, "--criterion", "learned"), 1, "--learn-to-exit"),
        (("--max-latency-ms", 1, "--unit", "layers"), 1, "needs costs in time"),
        (("--max-metric-drop", 0.1), 1, "must be passed together"),
        (("--max-layers", 1, "--label-column", "points"), 1, "points"),
    ],
)
def test_invalid_arguments(run, copied, held_out, more, status, message):
    finished = run("calibrate", copied, "--data", held_out, *more)
    assert finished.status == status and message in finished.err


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_folder(tmp_path_factory.mktemp("plain") / "plain-bert", names=("LABEL_0", "LABEL_1", "LABEL_2"))


def test_guarantee_against_a_reference_model(run, copied, held_out, plain, tmp_path):
    guarantee = ("--max-accuracy-drop", 0.9, "--confidence", 0.6, "--unit", "layers")
    finished = run("calibrate", copied, "--data", held_out, *guarantee, "--against", plain)
    assert finished.status == 0, finished.err
    assert "of accuracy lost against plain-bert" in finished.out and "plain-bert has" in finished.out
    recorded = open_artifact(copied).calibration["against"]
    assert recorded["name"] == "plain-bert" and recorded["kind"] == "checkpoint"
    assert f"plain-bert (checkpoint, SHA-256 {recorded['sha256'][:12]})" in run("info", copied).out
    assert "against plain-bert" in (copied / "README.md").read_text(encoding="utf-8")
    fresh = tmp_path / "fresh.csv"
    lines = [f"{WORDS[place % 21]} again {WORDS[place // 21]} never,{place % 3}" for place in range(60)]
    fresh.write_text("\n".join(["text,label", *lines]))
    argv = ("evaluate", copied, "--data", fresh, "--timed-rows", 0)
    assert "against plain-bert" in (said := run(*argv).out) and "--against" in said and "held" not in said
    compared = run(*argv, "--against", plain)
    assert compared.status == 0 and "confidence; lost" in compared.out and "held" in compared.out
    assert "plain-bert has accuracy" in compared.out
    (facts,) = run(*argv, "--against", plain, "--json").json()
    assert facts["guarantee"]["against"] == "plain-bert" and facts["reference"]["name"] == "plain-bert"


@pytest.mark.parametrize("verb", ["calibrate", "evaluate"])
@pytest.mark.parametrize("other", ["nothing here", "empty file", "data", "encoder"])
def test_invalid_reference_model(run, copied, held_out, tmp_path, verb, other):
    (tmp_path / "empty file").touch()
    tiny_model("bert", num_layers=2).bert.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer().save_pretrained(tmp_path / "encoder")
    against = held_out if other == "data" else tmp_path / other
    budget = ("--max-accuracy-drop", 0.5, "--unit", "layers") if verb == "calibrate" else ("--timed-rows", 0)
    finished = run(verb, copied, "--data", held_out, *budget, "--against", against)
    assert finished.status == 1 and str(against.name) in finished.err and "Traceback" not in finished.err


def test_guarantee_is_not_checked_on_calibration_rows(run, copied, held_out, tmp_path):
    guarantee = ("--max-accuracy-drop", 0.9, "--confidence", 0.6, "--unit", "layers")
    assert run("calibrate", copied, "--data", held_out, *guarantee).status == 0
    argv = ("evaluate", copied, "--timed-rows", 0, "--data")
    finished = run(*argv, held_out)
    assert "not checked on these rows: 100 % of the rows were used for calibration" in finished.out
    assert "held" not in finished.out and "100 % of the rows in" in finished.err
    upper = tmp_path / "upper.csv"
    upper.write_text(held_out.read_text().upper().replace("TEXT,LABEL", "text,label"))
    assert "not checked on these rows" in run(*argv, upper).out
    mixed = tmp_path / "mixed.csv"
    lines = [f"{WORDS[place % 21]} again {WORDS[place // 21]} never,{place % 3}" for place in range(60)]
    mixed.write_text("\n".join([*held_out.read_text().splitlines()[:41], *lines]))
    finished = run(*argv, mixed)
    assert "on the 60 held-out rows of these 100 rows (40 % of the rows were used for calibration)" in finished.out


@pytest.mark.parametrize("part", ["all", "few"])
def test_quantization_rows_are_detected_by_calibrate(run, copied, tmp_path, monkeypatch, part):
    from itrex_sweet.quantization import quantizer

    monkeypatch.setattr(quantizer, "observe", observe_with_hooks)
    lines = [
        f"{a} {b} {c},{place % 3}" for place, (a, b, c) in enumerate(itertools.product(WORDS, WORDS[:7], WORDS[:7]))
    ]
    used, fresh = lines[:300], lines[300:900]
    quantized, calibrated = tmp_path / "quantized.csv", tmp_path / "calibrated.csv"
    quantized.write_text("\n".join(["text,label", *used]))
    calibrated.write_text("\n".join(["text,label", *(used if part == "all" else [*used[:20], *fresh])]))
    argv = ("quantize", copied, "--calibration", quantized, "--output", tmp_path / "int8", "--recipe", "dynamic")
    assert run(*argv, "--rows", 100).status == 0
    guarantee = ("--max-accuracy-drop", 0.9, "--confidence", 0.6, "--unit", "layers")
    for folder in (tmp_path / "int8", tmp_path / "again"):  # a copy knows them too
        argv = ("calibrate", folder, "--data", calibrated, *guarantee)
        finished = run(*argv)
        if part == "all":
            assert finished.status == 1 and "100 % of the rows in" in finished.err
            assert "quantization rows of this model" in finished.err
            assert run(*argv, "--force", "--output", tmp_path / "again").status == 0
        else:
            assert finished.status == 0 and "20 of 620 rows" in finished.err and "are skipped" in finished.err
            assert run(*argv, "--output", tmp_path / "again").status == 0
    evaluated = run("evaluate", tmp_path / "again", "--data", quantized, "--timed-rows", 0)
    assert "not checked on these rows" in evaluated.out and "were used for quantization" in evaluated.out
