"""Tests of `accelerate`: all steps, resuming after an interruption, and errors."""

import json
import logging
import shutil

import numpy as np
import pytest

from itrex_sweet import Budget, SweetModelForSequenceClassification, accelerate, open_artifact
from itrex_sweet.acceleration import accelerating
from itrex_sweet.acceleration.checkpoint import open_checkpoint
from itrex_sweet.acceleration.steps import Steps
from itrex_sweet.acceleration.traffic import min_rows, read_traffic, split_traffic
from itrex_sweet.errors import ConfigError, InputError, NoGainError
from tests.acceleration.conftest import texts_of
from tests.tiny_artifacts import tiny_artifact

QUICK = dict(
    epochs=4, learning_rate=3e-3, max_agreement_drop=0.1, least_speedup=0.0, quantize=False, threads=1, exits=(1, 2, 4)
)
TEXTS = texts_of(700, seed=7)


@pytest.fixture
def costs_in_layers(monkeypatch):
    """Selects exits and policies by layers, since the times of a tiny model are mostly noise."""
    for name in ("calibrate", "prune_exits"):
        real = getattr(accelerating, name)
        monkeypatch.setattr(
            accelerating, name, lambda *arguments, real=real, **options: real(*arguments, **options, unit="layers")
        )


def test_all_steps_and_resuming(plain, tmp_path, costs_in_layers, caplog, monkeypatch):
    output = tmp_path / "fast"
    made = accelerate(plain, TEXTS, output, **QUICK)
    measured = made.measured
    assert made.pays and made.artifact.directory == output and measured.rows == 100
    assert measured.mean_layers < 4 and measured.agreement_with_full_depth >= 0.9
    assert measured.agreement_at_least < measured.agreement == measured.agreement_with_full_depth, "float32: the same"
    told = {each.label: each for each in measured.labels}
    assert told.keys() == {"good", "bad"} and sum(each.rows for each in told.values()) == 100
    assert sum(each.agreeing for each in told.values()) == round(100 * measured.agreement)
    artifact = open_artifact(output)
    assert artifact.exits == measured.exits and artifact.calibration["budget"]["max_agreement_drop"] == 0.1
    roles = artifact.fingerprints()
    assert {"training", "selection", "calibration", "reporting"} <= roles.keys()
    for one in roles:
        assert all(roles[one].overlap(roles[other]) == 0.0 for other in roles if other != one), "the parts are disjoint"
    card = (output / "README.md").read_text()
    assert f"agreement {100 * measured.agreement:.1f} %" in card and "## Calibration" in card
    assert "| label | rows | agreement |" in card
    assert (output / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((output / "acceleration.json").read_text())["measured"] == json.loads(
        json.dumps(measured.to_dict())
    )
    monkeypatch.setattr(accelerating, "add_exits", None)  # not called again
    with caplog.at_level(logging.INFO, "itrex_sweet"):
        again = accelerate(plain, TEXTS, output, **QUICK)
    assert again.measured == measured and caplog.text.count("already done") == 5
    caplog.clear()
    with caplog.at_level(logging.INFO, "itrex_sweet"):
        other = accelerate(plain, TEXTS, output, **{**QUICK, "max_agreement_drop": 0.2})
    assert caplog.text.count("already done") == 3 and "[4/5] calibrating" in caplog.text
    assert "again: budget changed" in caplog.text
    assert other.budget.epsilon == open_artifact(output).calibration["budget"]["max_agreement_drop"] == 0.2
    answers = SweetModelForSequenceClassification.from_pretrained(output).predict(TEXTS[:20])
    assert {row["label"] for row in answers} == {"good", "bad"}


def test_regression_agrees_within_the_tolerance(plain_regression, plain, tmp_path, costs_in_layers):
    output = tmp_path / "fast"
    with pytest.raises(ConfigError, match="needs tolerance"):
        accelerate(plain_regression, TEXTS, output, **QUICK)
    with pytest.raises(ConfigError, match="only regression has one"):
        accelerate(plain, TEXTS, output, **QUICK, tolerance=0.5)
    assert not output.exists()
    made = accelerate(plain_regression, TEXTS, output, **QUICK, tolerance=0.8)
    measured, artifact = made.measured, open_artifact(output)
    assert measured.mean_layers < 4 and measured.agreement_with_full_depth >= 0.9 and measured.guarantee_holds
    assert artifact.policy.tolerance == artifact.calibration["budget"]["tolerance"] == 0.8
    held_out = texts_of(120, seed=9)
    model = SweetModelForSequenceClassification.from_pretrained(output)
    early, full = ([row["score"] for row in model.predict(held_out, **each)] for each in ({}, {"threshold": 1.0}))
    agreement = np.mean(np.abs(np.subtract(early, full)) <= 0.8)
    assert agreement >= 0.9 and early != full
    assert json.loads((output / "acceleration.json").read_text())["measured"]["agreement"] == measured.agreement


def test_an_interrupted_run_is_resumed(plain, tmp_path, costs_in_layers, caplog, monkeypatch):
    output, real = tmp_path / "fast", accelerating.calibrate

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(accelerating, "calibrate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        accelerate(plain, TEXTS, output, **QUICK)
    assert not (output / "config.json").exists()
    monkeypatch.setattr(accelerating, "calibrate", real)
    monkeypatch.setattr(accelerating, "add_exits", None)
    with caplog.at_level(logging.INFO, "itrex_sweet"):
        accelerate(plain, TEXTS, output, **QUICK)
    assert caplog.text.count("already done") == 3
    monkeypatch.undo()
    with caplog.at_level(logging.INFO, "itrex_sweet"), pytest.raises(InputError, match=r"1 % needs"):
        accelerate(plain, TEXTS, output, **{**QUICK, "max_agreement_drop": 0.01})


def test_steps_warn_of_longer_texts_once(plain, tmp_path, costs_in_layers, caplog):
    """The exits are trained on texts that are cut; pruning, calibration and report run longer ones."""
    for part in ("a", "b"):
        with caplog.at_level(logging.WARNING, "itrex_sweet"):
            accelerate(plain, TEXTS, tmp_path / part, **QUICK, max_length=9)
        assert caplog.text.count("was trained on rows of up to 9 tokens") == 1, "each call warns"
        caplog.clear()


def test_no_exit_saves_time(plain, tmp_path, costs_in_layers, monkeypatch):
    real = accelerating.prune_exits
    monkeypatch.setattr(
        accelerating, "prune_exits", lambda *arguments, **options: real(*arguments, **options, least_gain=1.0)
    )
    with pytest.raises(NoGainError, match="no exit saves time"):
        accelerate(plain, TEXTS, tmp_path / "fast", **QUICK)


def test_errors_before_training(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerating, "add_exits", None)
    with pytest.raises(InputError, match=r"1 % needs at least 1[01].. different texts; there are 700"):
        accelerate(plain, TEXTS, tmp_path / "fast", **{**QUICK, "max_agreement_drop": 0.01})
    with pytest.raises(ConfigError, match="holds the model itself"):
        accelerate(plain, TEXTS, plain, **QUICK)
    with pytest.raises(ConfigError, match="has exits already"):
        accelerate(tiny_artifact(tmp_path / "exits").directory, TEXTS, tmp_path / "fast", **QUICK)
    assert not (tmp_path / "fast").exists()


def test_the_parts_of_the_traffic_are_disjoint(plain):
    traffic = read_traffic([*TEXTS, *TEXTS[:50]])
    parts = split_traffic(traffic, seed=3)
    assert traffic.repeated == 50 and sum(map(len, parts.values())) == 700
    assert len({text for rows in parts.values() for text in rows.texts}) == 700
    assert {name: rows.texts for name, rows in split_traffic(traffic, 3).items()} == {
        k: v.texts for k, v in parts.items()
    }
    assert open_checkpoint(plain).depth == 4


def test_a_step_runs_again_if_its_artifact_or_an_input_changed(tmp_path, caplog):
    def steps(text, drop):
        calls = []

        def work(folder):
            calls.append(folder.name)
            tiny_artifact(folder)
            return {"n": np.float64(1.5).item()}

        both = Steps(tmp_path / "steps", 2)
        facts = [both.run("one", "makes one", {"text": text}, work), both.run("two", "makes two", {"drop": drop}, work)]
        assert facts == [{"n": 1.5}, {"n": 1.5}]
        return calls

    with caplog.at_level(logging.INFO, "itrex_sweet"):
        assert steps("a", 1) == ["one", "two"]
        assert steps("a", 1) == []
        assert steps("a", 2) == ["two"] and "makes two, again: drop changed" in caplog.text
        assert steps("b", 2) == ["one", "two"] and "makes one, again: text changed" in caplog.text
        (tmp_path / "steps" / "one" / "model.safetensors").write_bytes(b"damaged")
        assert steps("b", 2)[0] == "one" and "its artifact is missing or damaged" in caplog.text
        (tmp_path / "steps" / "two.json").write_text("{")
        assert steps("b", 2) == ["two"]


@pytest.mark.parametrize("name", ["spm.model", "merges.txt", "added_tokens.json", "vocab.txt", "config.json"])
def test_every_file_of_the_checkpoint_identifies_it(plain, tmp_path, name):
    model = tmp_path / "model"
    shutil.copytree(plain, model)
    (model / "spm.model").write_text("1")
    before = open_checkpoint(model).identity()
    assert open_checkpoint(model).identity() == before
    (model / name).write_text((model / name).read_text() + " " if (model / name).exists() else "new")
    assert open_checkpoint(model).identity() != before


@pytest.mark.parametrize(("drop", "minimum"), [(0.1, 667), (0.02, 667), (0.01, 1125), (0.001, 11280)])
def test_min_rows(drop, minimum):
    assert min_rows(Budget(max_agreement_drop=drop)) == minimum
    parts = split_traffic(read_traffic([f"text {number}" for number in range(minimum)]), seed=0)
    sizes = {name: len(rows) for name, rows in parts.items()}
    assert sizes["exits"] >= 200 and min(sizes["quantization"], sizes["report"]) >= 100
    testing = sizes["calibration"] - round(sizes["calibration"] / 3)
    assert (1 - drop) ** testing < 0.05, "the budget cannot be certified with so few rows"
