"""Tests of `itrex-sweet train` on a tiny random model."""

import json
import os
import shutil

import pytest

from itrex_sweet import SweetModelForSequenceClassification, open_artifact
from tests.cli.training import argv


@pytest.mark.parametrize("mode", ["decoupled", "sweet", "paper", "joint", "multi-model"])
def test_every_mode_writes_an_artifact(run, pretrained, corpus, tmp_path, mode):
    output = tmp_path / "out"
    finished = run(*argv(pretrained, corpus, output, "--mode", mode, "--exits", "1", "2,4"))
    assert finished.status == 0, finished.err
    assert finished.out.startswith("out: 40 rows") and "loss" not in finished.out, "logs are not results"
    artifact = open_artifact(output)
    assert artifact.exits == (1, 2, 4)
    assert artifact.architecture == ("cascade" if mode == "multi-model" else "early_exit")
    assert artifact.provenance["mode"] == mode and artifact.provenance["learning_rate"] == 2e-3
    of_exits = tuple(artifact.provenance[name] for name in ("distillation", "exit_lr_multiplier"))
    assert of_exits == ((0.5, 3.0) if mode == "decoupled" else (0.0, 1.0))
    assert str(pretrained.parent) not in json.dumps(dict(artifact.provenance))
    model = SweetModelForSequenceClassification.from_pretrained(output)
    assert {row["label"] for row in model.predict(["the room was good"])} <= {"negative", "positive"}
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "dev.jsonl" in card and str(corpus) not in card and "| policy |" in card
    assert not (output / "checkpoints").exists()
    seen = artifact.fingerprints()
    assert seen["reporting"].overlap(seen["reporting"]) == 1.0
    assert ("training" in seen) == (mode != "multi-model")


def test_accuracy_in_the_table(run, pretrained, corpus, tmp_path):
    more = ["--num-train-epochs", 6, "--exits", "2,4", "--json", "--exit-lr-multiplier", 2]
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *more))
    assert finished.status == 0, finished.err
    report = finished.json()["report"]
    assert [exit_["exit"] for exit_ in report["exits"]] == [2, 4]
    assert all(exit_["metric"] > 0.8 for exit_ in report["exits"]) and report["metric"] > 0.8
    evaluated = run("evaluate", tmp_path / "out", "--data", corpus / "dev.jsonl", "--json", "--timed-rows", 0).json()
    assert evaluated[0]["report"]["metric"] == pytest.approx(report["metric"])


def test_training_without_validation_data(run, pretrained, corpus, tmp_path):
    finished = run(*argv(pretrained, corpus, tmp_path / "out", train="numbers.jsonl", validation=None))
    assert finished.status == 0, finished.err
    assert finished.out == ""
    assert open_artifact(tmp_path / "out").config["id2label"] == {
        "0": "LABEL_0",
        "1": "LABEL_1",
        "2": "LABEL_2",
    }
    assert "## Results" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_lora_and_frozen_backbone(run, pretrained, corpus, tmp_path):
    pytest.importorskip("peft")
    from safetensors.torch import load_file

    finished = run(*argv(pretrained, corpus, tmp_path / "lora", "--lora", 4))
    assert finished.status == 0, finished.err
    finished = run(*argv(pretrained, corpus, tmp_path / "frozen", "--freeze-backbone"))
    assert finished.status == 0, finished.err
    before, lora, frozen = (
        load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path / "lora", tmp_path / "frozen")
    )
    query, dense = (
        "bert.encoder.layer.3.attention.self.query.weight",
        "bert.encoder.layer.3.output.dense.weight",
    )
    assert not any("lora" in name for name in lora)
    assert not before[query].equal(lora[query]) and before[dense].equal(lora[dense])
    changed = {name for name in before if not before[name].equal(frozen[name])}
    assert changed == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }


def test_resume_from_checkpoint(run, pretrained, corpus, tmp_path):
    output = tmp_path / "out"
    plan = ["--save-strategy", "epoch", "--num-train-epochs", 2, "--exits", "1,4"]
    assert run(*argv(pretrained, corpus, output, *plan)).status == 0
    whole = (output / "model.safetensors").read_bytes()
    checkpoints = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert checkpoints == ["checkpoint-3", "checkpoint-6"], "kept, as a save strategy was asked for"
    shutil.rmtree(output / "checkpoints" / "checkpoint-6")
    (output / "model.safetensors").unlink()
    first_epoch = output / "checkpoints" / "checkpoint-3" / "trainer_state.json"
    written = first_epoch.stat().st_mtime_ns
    finished = run(*argv(pretrained, corpus, output, *plan, "--resume-from-checkpoint", "last"))
    assert finished.status == 0, finished.err
    assert (output / "model.safetensors").read_bytes() == whole, "as if it had never stopped"
    assert first_epoch.stat().st_mtime_ns == written, "and the first epoch was not run again"


def test_best_epoch_is_kept_and_checkpoints_are_removed(run, pretrained, corpus, tmp_path):
    more = [
        "--load-best-model-at-end",
        "True",
        "--metric-for-best-model",
        "exit_1_accuracy",
        "--num-train-epochs",
        2,
    ]
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *more, "--exits", "1,4"))
    assert finished.status == 0, finished.err
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("train", "validation", "problem"),
    [
        ("text,label\na,x\nb,\n", None, "train.csv, line 3: no label"),
        ("text,label\na,x\nb,x\n", None, "all rows have the same label"),
        ("text,label\na,0\nb,-1\n", None, "label -1"),
        ("text\na\n", None, "no column 'label'"),
        ("text,label\na,x\nb,y\n", "text,label\na,z\n", "label 'z' is not one of x, y"),
        ("text,label\na,0\nb,1\n", "text,label\na,2\n", "label 2"),
        ("text,label\na,x\n,y\n", None, "train.csv, line 3"),
    ],
)
def test_invalid_data_fails_before_training(run, pretrained, tmp_path, untrained, train, validation, problem):
    (tmp_path / "train.csv").write_text(train)
    more = []
    if validation is not None:
        (tmp_path / "dev.csv").write_text(validation)
        more = ["--validation-file", tmp_path / "dev.csv"]
    files = ["--train-file", tmp_path / "train.csv", *more, "--output", tmp_path / "out"]
    finished = run("train", "--model", pretrained, *files)
    assert finished.status == 1 and problem in finished.err and finished.err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--exits", "1", "9"], "exits=(1, 9): the model has 4 layers"),
        (["--exits", "4,1"], "must increase strictly"),
        (["--resume-from-checkpoint", "last"], "there is none in"),
        (["--resume-from-checkpoint", "absent"], "no such folder"),
        (["--text-column", "absent"], "no column 'absent'"),
    ],
)
def test_invalid_settings_fail_before_training(run, pretrained, corpus, tmp_path, untrained, more, problem):
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *more))
    assert finished.status == 1 and problem in finished.err


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_unwritable_output_fails_before_training(run, pretrained, corpus, tmp_path, untrained):
    (tmp_path / "file").write_text("")
    finished = run(*argv(pretrained, corpus, tmp_path / "file" / "out"))
    assert finished.status == 1 and "cannot write" in finished.err


def test_failed_training_keeps_the_earlier_artifact(run, pretrained, artifact, corpus, tmp_path):
    shutil.copytree(artifact, tmp_path / "out")
    finished = run(*argv(pretrained, corpus, tmp_path / "out", "--label-smoothing-factor", 0.1))
    assert finished.status == 1 and "label_smoothing_factor" in finished.err
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert open_artifact(tmp_path / "out").exits == (1, 2, 4)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--two-stage"], "itrex-sweet add-exits"),
        (["--gradient-scale", "0.1"], "--mode sweet or paper"),
        (["--mode", "joint", "--gradient-scale", "0.1"], "--mode sweet or paper"),
        (["--mode", "sweet", "--exit-lr-multiplier", "2"], "--mode decoupled"),
        (["--exit-lr-multiplier", "0"], "positive"),
    ],
)
def test_options_of_another_mode(run, pretrained, corpus, tmp_path, more, says):
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *more))
    assert finished.status == 2 and says in finished.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [(), ("--mode", "joint"), ("--mode", "multi-model")])
def test_diverged_training_writes_nothing(run, pretrained, corpus, artifact, tmp_path, more):
    shutil.copytree(artifact, tmp_path / "out")
    settings = ["--learning-rate", "1e30", "--num-train-epochs", 2, *more]
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *settings))
    assert finished.status == 1 and "diverged at step" in finished.err and "learning rate" in finished.err
    assert open_artifact(tmp_path / "out").exits == (1, 2, 4)


@pytest.mark.parametrize("mode", ["sweet", "multi-model"])
def test_warning_about_a_model_at_chance(run, pretrained, corpus, tmp_path, mode):
    more = ["--learning-rate", "0", "--exits", "1,4", "--json", "--mode", mode]
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *more))
    report = finished.json()["report"]
    # 25 of the 40 rows have the same label, and two standard errors are 15 %.
    useless = [exit_ for exit_ in report["exits"] if exit_["metric"] < 0.77 and exit_["association"] <= 3]
    assert ("better than a constant prediction" in finished.err) == bool(useless)
    assert ("no row leaves early" in finished.err) == (report["exits"][0]["share_leaving"] == 0.0)


def test_no_warning_about_a_good_model(run, pretrained, corpus, tmp_path):
    more = ["--num-train-epochs", 8, "--exits", "2,4"]
    finished = run(*argv(pretrained, corpus, tmp_path / "out", *more))
    assert finished.status == 0 and "constant" not in finished.err and "frequent" not in finished.err
    warned = [line for line in finished.err.splitlines() if line.startswith("warning: ")]
    assert all("training rows" in line for line in warned), "the corpus repeats its rows, and nothing else is wrong"


def test_validation_data_with_one_label(run, pretrained, corpus, tmp_path):
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "the room was good", "label": "positive"}))
    finished = run(*argv(pretrained, corpus, tmp_path / "out", validation=tmp_path / "one.jsonl"))
    assert finished.status == 0 and "the same label" in finished.err


@pytest.mark.parametrize("given", [6, None])
def test_longest_training_row_is_recorded(run, pretrained, corpus, tmp_path, given):
    output = tmp_path / "out"
    more = [] if given is None else ["--max-length", given]
    assert run(*argv(pretrained, corpus, output, *more, "--exits", "1,4")).status == 0
    saved = json.loads((output / "tokenizer_config.json").read_text())["model_max_length"]
    longest = open_artifact(output).config["sweet"]["longest_row"]
    assert longest == min(6, given or 6) and open_artifact(output).provenance["max_length"] == (given or 256)
    assert saved == given if given else saved > 6
    model = SweetModelForSequenceClassification.from_pretrained(output)
    long = "the room was good and the soup was never cold"
    assert (model.predict([long]) == model.predict(["the room was good"])) == (given is not None)


@pytest.mark.parametrize(
    ("weights", "more"),
    [("balanced", ()), ("1,3", ()), ("2,1", ("--mode", "multi-model"))],
)
def test_class_weights(run, pretrained, corpus, tmp_path, weights, more):
    finished = run(*argv(pretrained, corpus, tmp_path / "out", "--class-weights", weights, "--exits", "1,4", *more))
    assert finished.status == 0, finished.err
    artifact = open_artifact(tmp_path / "out")
    assert artifact.provenance["class_weights"] == (
        weights if weights == "balanced" else [*map(float, weights.split(","))]
    )
    if "multi-model" not in more:
        used = artifact.config["sweet"]["class_weights"]
        assert len(used) == 2 and (weights == "balanced" or used == [1.0, 3.0])


@pytest.mark.parametrize(
    ("weights", "status", "says"),
    [
        ("1,2,3", 1, "3 weights for 2 labels"),
        ("1,0", 2, "positive"),
        ("1,nan", 2, "positive"),
        ("a,b", 2, "balanced"),
    ],
)
def test_invalid_class_weights(run, pretrained, corpus, tmp_path, untrained, weights, status, says):
    finished = run(*argv(pretrained, corpus, tmp_path / "out", "--class-weights", weights))
    assert finished.status == status and says in finished.err


@pytest.mark.parametrize("option", ["--per-device-train-batch-size", "--per-device-eval-batch-size"])
@pytest.mark.parametrize("value", [0, -1])
def test_invalid_batch_sizes(run, pretrained, corpus, tmp_path, untrained, option, value):
    finished = run(*argv(pretrained, corpus, tmp_path / "out", option, value))
    assert finished.status == 2 and f"{value}: an integer of at least 1 is needed" in finished.err
    finished = run(*argv(pretrained, corpus, tmp_path / "out", "--gradient-accumulation-steps", value))
    assert finished.status == 2


def test_missing_optional_package(run, pretrained, corpus, tmp_path):
    try:
        import liger_kernel  # noqa: F401

        pytest.skip("it is installed")
    except ImportError:
        finished = run(*argv(pretrained, corpus, tmp_path / "out", "--use-liger-kernel", "True"))
    assert finished.status == 1 and "needs a package that is not installed" in finished.err and "liger" in finished.err
