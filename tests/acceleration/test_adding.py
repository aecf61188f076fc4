"""Tests of `add_exits`: the model's weights do not change, exits learn without labels, invalid inputs are rejected."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from itrex_sweet import Budget, SweetModelForSequenceClassification, add_exits, calibrate, open_artifact
from itrex_sweet.acceleration.agreement import Agreements
from itrex_sweet.calibration.drift import drift
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, NoGainError, UnsupportedModelError
from itrex_sweet.evaluation.reference import open_reference
from tests.acceleration.conftest import texts_of
from tests.tiny_artifacts import WORDS, tiny_tokenizer
from tests.tiny_models import tiny_model

QUICK = dict(epochs=4, learning_rate=3e-3, exits=(1, 2, 4))


@pytest.fixture(scope="module")
def added(plain, tmp_path_factory):
    return add_exits(plain, texts_of(400, seed=2), tmp_path_factory.mktemp("added") / "out", **QUICK)


def test_the_weights_of_the_model_do_not_change(plain, added):
    before, after = (load_file(folder / "model.safetensors") for folder in (plain, added.artifact.directory))
    own = {name for name in after if not name.startswith("sweet_exits.")}
    assert own == {name for name, tensor in before.items() if tensor.is_floating_point()}
    for name in own:
        assert before[name].numpy().tobytes() == after[name].numpy().tobytes(), name
    assert any(name.startswith("sweet_exits.1.layer.") for name in after)


@pytest.mark.parametrize("family", ["distilbert", "roberta", "deberta-v3"])
def test_other_families(family, tmp_path, monkeypatch):
    """Adds exits to random models, with pairs of texts if the tokenizer supports them."""
    from itrex_sweet.acceleration import adding

    monkeypatch.setattr(adding, "_check_gain", lambda *_: None)
    monkeypatch.setattr(Agreements, "useful_exits", lambda found: found.exits)
    tiny_model(family, num_layers=3, num_labels=2).save_pretrained(tmp_path / "plain")
    tiny_tokenizer().save_pretrained(tmp_path / "plain")
    texts = texts_of(440, seed=2)
    pairs = texts if family == "roberta" else [*zip(texts[:220], texts[220:], strict=True)]
    added = add_exits(tmp_path / "plain", pairs, tmp_path / "out", epochs=1, exits=(1, 2, 3))
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("plain", "out"))
    assert all(torch.equal(before[name], after[name]) for name in after if not name.startswith("sweet_exits."))
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path / "out", threshold=1.0)
    answers = open_reference(tmp_path / "plain").answers(pairs, len(pairs), model.artifact.label_names)
    full = [model.artifact.label_names.index(row["label"]) for row in model.predict(pairs)]
    assert np.mean(np.array(full) == answers) > 0.99, "the logits of a random model may tie"
    assert added.artifact.exits == (1, 2, 3)


def test_exits_learn_the_labels_of_full_depth(plain, added):
    assert added.artifact.exits == (1, 2, 4) and added.dropped == ()
    assert added.agreements.shares[-1] == 1.0 and min(added.agreements.shares) > 0.85
    assert added.rows == 300 and added.agreements.rows == 100
    texts = texts_of(120, seed=3)
    model = SweetModelForSequenceClassification.from_pretrained(added.artifact.directory, threshold=1.0)
    full = [row["label"] for row in model.predict(texts)]
    answers = open_reference(plain).answers(texts, len(texts), ("bad", "good"))
    assert full == [("bad", "good")[answer] for answer in answers]
    early = [row["label"] for row in model.predict(texts, threshold=0.0)]
    assert np.mean([one == other for one, other in zip(early, full, strict=True)]) > 0.85
    card = (added.artifact.directory / "README.md").read_text()
    assert "without labels" in card and str(plain) not in card


def test_calibration_on_the_training_texts_is_rejected(added):
    model = SweetModelForSequenceClassification.from_pretrained(added.artifact.directory)
    budget = Budget(max_agreement_drop=0.2, confidence=0.9)
    with pytest.raises(InputError, match=r"(training|selection) rows of this model"):
        calibrate(model, texts_of(400, seed=2), budget, unit="layers")
    calibration = calibrate(model, texts_of(300, seed=4), budget, unit="layers")
    assert calibration.candidates[calibration.chosen].mean_layers < 4


def test_drift_detects_another_language(added, tmp_path):
    model = SweetModelForSequenceClassification.from_pretrained(added.artifact.directory)
    calibration = calibrate(model, texts_of(400, seed=4), Budget(max_agreement_drop=0.2), unit="layers")
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    model = SweetModelForSequenceClassification.from_pretrained(written.directory)
    assert drift(written, model.predict(texts_of(300, seed=5))).verdict == "stable"
    assert drift(written, model.predict(["das war gar nichts fürs Geld"] * 300)).verdict == "recalibrate"


def test_warning_about_texts_of_another_language(plain, tmp_path, caplog):
    texts = [f"das Zimmer {number} war {word}" for number in range(120) for word in ("gut", "schlecht")]
    with pytest.raises(NoGainError, match="the same label"):
        add_exits(plain, texts, tmp_path / "out", epochs=1)
    assert "unknown to the model's tokenizer" in caplog.text
    assert not (tmp_path / "out").exists()


def test_exits_that_learn_nothing_are_dropped_with_a_warning(plain, tmp_path, monkeypatch, caplog):
    from itrex_sweet.acceleration import adding

    real = adding.agreements_with_full_depth

    def one_at_chance(*arguments):
        real_ones = real(*arguments)
        shares = (real_ones.majority, *real_ones.shares[1:])
        return dataclasses.replace(real_ones, shares=shares)

    monkeypatch.setattr(adding, "agreements_with_full_depth", one_at_chance)
    added = add_exits(plain, texts_of(300, seed=2), tmp_path / "out", **QUICK)
    assert added.dropped == (1,) and open_artifact(tmp_path / "out").exits == (2, 4)
    assert "Dropped exits 1, which learned nothing" in caplog.text
    monkeypatch.setattr(adding, "agreements_with_full_depth", lambda *_: Agreements((1, 4), (0.5, 1.0), 0.5, 2, 100))
    with pytest.raises(NoGainError, match="no exit learned anything"):
        add_exits(plain, texts_of(300, seed=2), tmp_path / "other", **{**QUICK, "epochs": 0.1})


def test_useful_exits_are_better_than_the_majority_by_two_standard_errors():
    found = Agreements((1, 2, 3, 4), (0.80, 0.83, 0.89, 1.0), 0.8, 2, 100)
    assert found.useful_exits() == (3, 4)


def test_exits_cannot_be_added_twice(added, tmp_path):
    with pytest.raises(ConfigError, match="has exits already: 1, 2, 4"):
        add_exits(added.artifact.directory, texts_of(300, seed=2), tmp_path / "out")


def test_invalid_models(plain, tmp_path):
    texts = texts_of(300, seed=2)
    base = tmp_path / "base"
    tiny_model("bert", num_layers=4).bert.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    with pytest.raises(ArtifactError, match="not a fine-tuned classifier"):
        add_exits(base, texts, tmp_path / "out")
    with pytest.raises(ArtifactError, match="neither a folder here"):
        add_exits(tmp_path / "nowhere", texts, tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "albert"}))
    with pytest.raises(UnsupportedModelError, match="ALBERT"):
        add_exits(other, texts, tmp_path / "out")
    (other / "config.json").write_text(json.dumps(config))
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(200)])
    tokenizer.save_pretrained(other)
    with pytest.raises(ConfigError, match="96 embeddings"):
        add_exits(other, texts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_invalid_traffic(plain, tmp_path):
    few = texts_of(150, seed=2)
    with pytest.raises(
        InputError, match=r"needs at least 200 different texts; there are 150 \(90 duplicates removed\)"
    ):
        add_exits(plain, [*few, *(text.upper() for text in few[:90])], tmp_path / "out")
    with pytest.raises(InputError, match="no rows"):
        add_exits(plain, [], tmp_path / "out")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match=r"empty.jsonl.*no rows"):
        add_exits(plain, tmp_path / "empty.jsonl", tmp_path / "out")
    for wrong in ({"epochs": 0}, {"learning_rate": float("nan")}, {"exits": (4,)}, {"exits": (1, 9)}):
        with pytest.raises(ConfigError):
            add_exits(plain, texts_of(300, seed=2), tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists() and torch.is_grad_enabled() and WORDS
