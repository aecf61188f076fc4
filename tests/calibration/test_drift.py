"""Drift of live traffic from the calibration rows."""

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import copy_artifact
from itrex_sweet.calibration.drift import drift, traffic_summary
from itrex_sweet.errors import ArtifactError, InputError
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import tiny_artifact

POLICY = Policy((0.7, 0.7), (1.0, 2.0, 0.5))


def outcomes(rows: int, seed: int, shift: float = 0.0, scale: float = 2.0) -> ExitOutcomes:
    logits = np.random.default_rng(seed).normal(0, scale, (rows, 3, 3)).astype(np.float32)
    logits[..., 0] += shift
    return ExitOutcomes(logits, np.zeros(rows, int), (1, 2, 4), (1, 2, 4))


def predictions(seen: ExitOutcomes) -> list[dict]:
    """Returns predictions in the form of `model.predict`, computed independently."""
    rows = []
    for logits in seen.logits.astype(np.float64):
        for place, (exit_, temperature) in enumerate(zip(seen.exits, POLICY.temperatures, strict=True)):
            shares = np.exp(logits[place] / temperature)
            shares /= shares.sum()
            best = int(np.argmax(logits[place]))
            certain = 1 / np.exp((logits[place] - logits[place].max()) / temperature).sum()
            if place == 2 or certain > 0.7:
                rows.append({"label": f"LABEL_{best}", "score": float(shares[best]), "exit_layer": exit_})
                break
    return rows


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    tiny = tiny_artifact(folder / "plain")
    calibration = {"traffic": traffic_summary(outcomes(3000, 0), POLICY)}
    return copy_artifact(tiny, folder / "calibrated", POLICY, calibration=calibration)


@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize("rows", [200, 2000])
def test_traffic_without_drift_is_stable(artifact, seed, rows):
    found = drift(artifact, predictions(outcomes(rows, seed)))
    assert found.verdict == "stable" and found.why == "" and found.rows == rows
    assert found.ks_p_value > 0.001


def test_changed_labels_and_confidences_are_detected(artifact):
    moved = drift(artifact, predictions(outcomes(1000, 1, shift=2.5)))
    assert moved.verdict == "recalibrate" and moved.labels > 0.25 and "labels changed" in moved.why
    unsure = drift(artifact, predictions(outcomes(1000, 1, scale=0.5)))
    assert unsure.verdict == "recalibrate" and "exits changed" in unsure.why and "scores changed" in unsure.why
    assert unsure.ks > 0.2 and unsure.ks_p_value < 1e-6
    slightly = drift(artifact, predictions(outcomes(6000, 1, shift=0.9)))
    assert slightly.verdict == "watch"


def test_the_reference_counts_every_row_once(artifact):
    counts = np.array(artifact.calibration["traffic"]["rows"])
    assert counts.shape[:2] == (3, 3) and counts.sum() == 3000
    per_exit = counts.sum(axis=(0, 2))
    np.testing.assert_array_equal(per_exit, np.bincount(outcomes(3000, 0).leaving(POLICY), minlength=3))
    per_bin = counts.sum(axis=(0, 1))
    assert per_bin.min() > 200  # tenths


def test_invalid_predictions_are_rejected(artifact):
    good = predictions(outcomes(300, 1))
    marked = [*good, {"label": None, "score": None, "exit_layer": None, "error": "empty"}]
    assert drift(artifact, marked).rows == 300
    with pytest.raises(InputError, match="150 answers are too few"):
        drift(artifact, good[:150])
    with pytest.raises(InputError, match="row 7 is not a prediction of this model"):
        drift(artifact, [*good[:7], dict(good[7], label="positive"), *good[8:]])
    with pytest.raises(InputError, match="row 7 is not a prediction"):
        drift(artifact, [*good[:7], dict(good[7], exit_layer=3), *good[8:]])


def test_uncalibrated_artifact_is_rejected(tmp_path):
    with pytest.raises(ArtifactError, match="holds no calibration"):
        drift(tiny_artifact(tmp_path / "plain"), [])


def test_accepts_the_predictions_of_a_model(artifact):
    from tests.tiny_artifacts import tiny_tokenizer

    model = SweetModelForSequenceClassification(artifact, backend="torch", tokenizer=tiny_tokenizer())
    rows = model.predict(["the soup was good", "never again", "a slow phone"] * 80)
    assert drift(artifact, rows).rows == 240
