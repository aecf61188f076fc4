"""Removal of exits: remaining exits answer as before, and no tensor of removed exits is left."""

import numpy as np
import pytest

from itrex_sweet import Policy, SweetModelForSequenceClassification, open_artifact, prune_exits
from itrex_sweet.artifact import copy_artifact, keep_exits
from itrex_sweet.calibration.pruning import find_useful_exits, remove_unused_exits
from itrex_sweet.errors import ConfigError, InputError
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer

TEXTS = [" ".join(np.random.default_rng(row).choice(WORDS, 4 + row % 9)) for row in range(120)]


@pytest.fixture
def artifact(tmp_path):
    return tiny_artifact(tmp_path / "model", exits=(1, 2, 3, 4), tokenizer=tiny_tokenizer())


def logits_of(directory):
    model = SweetModelForSequenceClassification.from_pretrained(directory, backend="torch")
    return model.executor.outputs_at_every_exit(model.read(TEXTS)), model


def test_kept_exits_answer_as_before(artifact, tmp_path):
    before, _ = logits_of(artifact.directory)
    pruned, worth = prune_exits(artifact.directory, tmp_path / "pruned", keep=[1, 3])
    assert worth is None and pruned.exits == (1, 3, 4)
    after, model = logits_of(tmp_path / "pruned")
    assert np.array_equal(after, before[:, [0, 2, 3]])
    assert not [name for name in open_artifact(tmp_path / "pruned").tensors() if name.startswith("sweet_exits.2.")]
    assert model.tokenizer is not None and model.config.sweet["exits"] == [1, 3, 4]
    assert open_artifact(artifact.directory).exits == (1, 2, 3, 4), "the source stays"


def test_in_place(artifact):
    pruned, _ = prune_exits(artifact.directory, keep=[4])
    assert pruned.exits == open_artifact(artifact.directory).exits == (4,)


@pytest.mark.parametrize(
    ("keep", "message"), [([5], "4 layers"), ([1, 2, 3], "removes no exit"), ([0], "from 1")], ids=str
)
def test_invalid_exits_are_rejected(artifact, keep, message):
    with pytest.raises(ConfigError, match=message):
        prune_exits(artifact.directory, keep=keep)


def test_needs_either_exits_or_data(artifact):
    for options in ({}, {"keep": [1], "data": TEXTS}):
        with pytest.raises(ConfigError, match="pass either the exits to keep, or data"):
            prune_exits(artifact.directory, **options)
    with pytest.raises(InputError, match="at least 60"):
        prune_exits(artifact.directory, data=TEXTS[:50])


def test_keeps_exits_that_agree_and_removes_noise(artifact, tmp_path, monkeypatch):
    model = SweetModelForSequenceClassification.from_pretrained(artifact.directory, backend="torch")
    rng = np.random.default_rng(0)
    full = rng.integers(0, 3, len(TEXTS))
    logits = rng.normal(size=(len(TEXTS), 4, 3)).astype(np.float32)  # exits 1 and 3: noise
    for place in (1, 3):
        logits[:, place] = 9.0 * np.eye(3)[full]
    monkeypatch.setattr("itrex_sweet.evaluation.outcomes.outputs_at_every_exit", lambda *_: (logits, None))
    worth = find_useful_exits(model, TEXTS, unit="layers")
    assert worth.kept == (2, 4) and worth.gains[2] == pytest.approx(0.5) and worth.agreements[1] == 1.0
    assert "removed" in worth.table()
    assert find_useful_exits(model, TEXTS, unit="layers", least_gain=0.9).kept == (4,)


def test_calibration_is_kept_if_removed_exits_were_disabled(artifact, tmp_path):
    thresholds = [[1.0, 1.0, 1.0], [0.9, 1.0, 0.9], [0.8, 0.9, 0.8], [0.7, 1.0, 0.7]]
    record = {
        "exits": [1, 2, 3, 4],
        "candidates": [{"thresholds": each, "mean_layers": 3.0} for each in thresholds],
        "certified": 4,
        "rows_for_the_next": 900,
        "chosen": {"thresholds": thresholds[3]},
        "switched_off": [2],
        "temperatures": {"after": [1.0, 2.0, 3.0, 4.0]},
        "traffic": {"exits": [1, 2, 3, 4], "score_edges": [], "rows": [[[1], [0], [2], [3]]] * 3},
        "budget": {"max_agreement_drop": 0.01, "confidence": 0.95},
    }
    policy = Policy((0.7, 1.0, 0.7), (1.0, 2.0, 3.0, 4.0))
    calibrated = copy_artifact(artifact, tmp_path / "calibrated", policy, calibration=record)
    answers = SweetModelForSequenceClassification.from_pretrained(calibrated.directory).predict(TEXTS)
    lost = keep_exits(calibrated, [2, 4], tmp_path / "lost")
    assert lost.calibration == {}
    kept = remove_unused_exits(calibrated)
    assert kept.exits == (1, 3, 4) and kept.policy == Policy((0.7, 0.7), (1.0, 3.0, 4.0))
    found = kept.calibration
    assert [each["thresholds"] for each in found["candidates"]] == [[1.0, 1.0], [0.9, 0.9], [0.7, 0.7]]
    assert found["certified"] == 3 and found["rows_for_the_next"] is None and found["switched_off"] == []
    assert found["temperatures"]["after"] == [1.0, 3.0, 4.0] and found["traffic"]["rows"][0] == [[1], [2], [3]]
    assert SweetModelForSequenceClassification.from_pretrained(kept.directory).predict(TEXTS) == answers


def test_criterion_that_depends_on_earlier_exits_keeps_all(artifact, tmp_path):
    patient = copy_artifact(artifact, tmp_path / "patient", Policy((0.5, 1.0, 0.5), (1.0,) * 4, "patience"))
    assert remove_unused_exits(patient).exits == (1, 2, 3, 4)
    model = SweetModelForSequenceClassification.from_pretrained(patient.directory)
    with pytest.raises(ConfigError, match="depends on earlier exits"):
        find_useful_exits(model, TEXTS)
