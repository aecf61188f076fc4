"""Guarantees against another model: counts, records, messages, errors and validity."""

import functools
import json
import math

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification, open_artifact
from itrex_sweet.artifact.fingerprints import TRAINING, Fingerprints
from itrex_sweet.calibration import calibrate as calibrate_module
from itrex_sweet.calibration.bounds import betting_p_value, certified, mean_loss_interval
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.data import Rows
from itrex_sweet.errors import CalibrationError, ConfigError, InputError
from itrex_sweet.evaluation.evaluation import evaluate
from itrex_sweet.evaluation.reference import open_reference
from tests.calibration.test_calibrate import TEXTS
from tests.evaluation.test_reference import plain_folder
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

calibrate = functools.partial(calibrate_module.calibrate, unit="layers")


@pytest.fixture
def model(tmp_path):
    tiny_artifact(tmp_path / "model", tokenizer=tiny_tokenizer())
    return SweetModelForSequenceClassification.from_pretrained(tmp_path / "model", backend="torch")


@pytest.fixture
def exits_right(monkeypatch):
    """Makes the exits of the model correct for the given rows, (rows, exits) bool."""

    def give(labels, right: np.ndarray):
        def logits(executor, batch, description=""):
            truth = np.asarray(labels)
            given = np.zeros((len(batch), right.shape[1], 3), np.float32)
            confident = np.linspace(0.1, 5, len(batch))
            for place in range(right.shape[1]):
                predicted = np.where(right[:, place], truth, (truth + 1) % 3)
                given[np.arange(len(batch)), place, predicted] = np.where(right[:, place], confident, 0.05)
            return given, None

        monkeypatch.setattr("itrex_sweet.evaluation.outcomes.outputs_at_every_exit", logits)

    return give


def labels_of(count: int) -> list[int]:
    return (np.arange(count) % 3).tolist()


def answers_file(path, labels, right: np.ndarray):
    predicted = np.where(right, labels, (np.asarray(labels) + 2) % 3)
    path.write_text("".join(json.dumps({"label": f"LABEL_{label}"}) + "\n" for label in predicted))
    return path


def shares(count: int, *shares: float, seed: int = 0) -> np.ndarray:
    """Returns (rows, len(shares)) bool with these fractions of true values, nested within each row."""
    ease = np.random.default_rng(seed).uniform(size=count)
    return np.stack([ease < share for share in shares], axis=1)


def test_weak_model_is_certified_against_itself_but_not_against_a_strong_one(model, exits_right, tmp_path, monkeypatch):
    labels = labels_of(1500)
    exits_right(labels, shares(1500, 0.70, 0.70, 0.70))
    rows = Rows(TEXTS[:1500], labels, source="held-out.csv")
    budget = Budget(max_accuracy_drop=0.02)
    own = calibrate(model, rows, budget)
    assert own.certified > 1 and own.against is None and "against" not in own.to_dict()
    strong = answers_file(tmp_path / "plain.jsonl", labels, shares(1500, 0.95)[:, 0])
    with pytest.raises(CalibrationError, match="even for this model at full depth") as refused:
        calibrate(model, rows, budget, against=strong)
    message = str(refused.value)
    assert "against plain.jsonl" in message and "1000 testing rows it lost" in message and "Train it longer" in message
    low, high = (float(part) for part in message.split("between ")[1].split(" %")[0].split(" and "))
    assert low < 25 < high and high - low < 12
    monkeypatch.setitem(model.artifact.quantization, "recipe", "static")
    with pytest.raises(CalibrationError, match="quantized by the recipe 'static'"):
        calibrate(model, rows, budget, against=strong)


def test_guarantee_against_another_model_is_recorded(model, exits_right, tmp_path):
    labels = labels_of(1500)
    exits_right(labels, shares(1500, 0.90, 0.95, 0.96))
    plain = answers_file(tmp_path / "plain.jsonl", labels, shares(1500, 0.95)[:, 0])
    rows = Rows(TEXTS[:1500], labels, source="held-out.csv")
    calibration = calibrate(model, rows, Budget(max_accuracy_drop=0.02), against=plain)
    full, chosen = calibration.candidates[0], calibration.candidates[calibration.chosen]
    assert full.counts.won > 0 and full.counts.lost == 0, "compared with the other model, not with itself"
    assert chosen.p_value <= 0.05 and chosen.mean_layers < 4
    recorded = calibration.to_dict()["against"]
    assert recorded["name"] == "plain.jsonl" and recorded["kind"] == "answers" and len(recorded["sha256"]) == 64
    assert recorded["score"] == pytest.approx(0.95, abs=0.02)
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    assert open_artifact(written.directory).calibration["against"] == recorded
    card = (written.directory / "README.md").read_text(encoding="utf-8")
    assert "loses at most 2 % of accuracy against plain.jsonl" in card and recorded["sha256"][:12] in card


def test_only_full_depth_may_be_certified(model, exits_right, tmp_path):
    labels = labels_of(1500)
    exits_right(labels, shares(1500, 0.3, 0.3, 0.95))
    plain = answers_file(tmp_path / "plain.jsonl", labels, shares(1500, 0.94)[:, 0])
    rows = Rows(TEXTS[:1500], labels)
    calibration = calibrate(model, rows, Budget(max_accuracy_drop=0.02), against=plain)
    assert calibration.certified >= 1
    assert calibration.candidates[calibration.chosen].counts.mean_loss <= 0.02


def test_agreement_with_another_model_needs_no_labels(model, exits_right, tmp_path):
    labels = labels_of(1500)
    right = shares(1500, 0.97, 0.98, 0.99)
    exits_right(labels, right)
    plain = answers_file(tmp_path / "plain.jsonl", labels, shares(1500, 1.0)[:, 0])
    rows = Rows(TEXTS[:1500], None)
    calibration = calibrate(model, rows, Budget(max_agreement_drop=0.05), against=plain)
    full = calibration.candidates[0].counts
    assert full.won == 0 and full.mean_loss == pytest.approx(0.01, abs=0.01), "the last exit may disagree too"
    assert "score" not in calibration.to_dict()["against"]
    with pytest.raises(CalibrationError, match=r"0\.5 % of agreement with plain\.jsonl cannot"):
        calibrate(model, rows, Budget(max_agreement_drop=0.005, confidence=0.6), against=plain)


def test_metric_drop_against_another_model(model, exits_right, tmp_path):
    labels = labels_of(1500)
    exits_right(labels, shares(1500, 0.7, 0.7, 0.7))
    plain = answers_file(tmp_path / "plain.jsonl", labels, shares(1500, 0.95)[:, 0])
    with pytest.raises(CalibrationError, match="points below"):
        calibrate(model, Rows(TEXTS[:1500], labels), Budget(max_metric_drop=0.05, metric="matthews"), against=plain)


def test_checkpoint_and_artifact_are_run_on_the_rows(model, tmp_path):
    plain = plain_folder(tmp_path / "plain", names=("LABEL_0", "LABEL_1", "LABEL_2"))
    labels = open_reference(plain).answers(TEXTS[:900], 900, model.artifact.label_names)
    labels[::50] = (labels[::50] + 1) % 3
    rows = Rows(TEXTS[:900], labels.tolist(), source="held-out.csv")  # on which the plain one is nearly always right
    with pytest.raises(CalibrationError, match="against plain cannot be certified"):
        calibrate(model, rows, Budget(max_accuracy_drop=0.1), against=plain)
    itself = calibrate(model, Rows(TEXTS[:900]), Budget(max_agreement_drop=0.3), against=model.artifact.directory)
    assert itself.candidates[0].counts.lost == 0 and itself.against["kind"] == "artifact"


def test_skipped_rows_are_removed_from_the_reference_answers(model, exits_right, tmp_path, monkeypatch):
    labels = labels_of(1030)
    plain = answers_file(tmp_path / "plain.jsonl", labels, np.arange(1030) >= 30)  # wrong on the first thirty alone
    seen = {TRAINING: Fingerprints.of(model.read(TEXTS[:30]).rows())}
    monkeypatch.setattr(type(model.artifact), "fingerprints", lambda self: seen)
    exits_right(labels[30:], shares(1000, 1.0, 1.0, 1.0))
    calibration = calibrate(model, Rows(TEXTS[:1030], labels), Budget(max_accuracy_drop=0.05), against=plain)
    assert sum(calibration.rows) == 1000 and calibration.candidates[0].counts.won == 0
    assert calibration.against["score"] == 1.0


@pytest.mark.parametrize(
    ("budget", "against", "error", "message"),
    [
        (Budget(max_layers=3), "file", ConfigError, "needs a budget with a drop"),
        (Budget(max_accuracy_drop=0.1), 3, ConfigError, "against is of type int"),
        (Budget(max_accuracy_drop=0.1), "short", InputError, "holds 10 predictions for 300 rows"),
        (Budget(max_accuracy_drop=0.1), "other labels", ConfigError, "label 'good' is not one of LABEL_0"),
    ],
)
def test_incompatible_references_are_rejected(model, tmp_path, budget, against, error, message):
    labels, path = labels_of(300), tmp_path / "plain.jsonl"
    if against == "short":
        against = answers_file(path, labels[:10], np.ones(10, bool))
    elif against == "file":
        against = answers_file(path, labels, np.ones(300, bool))
    elif against == "other labels":
        path.write_text('{"label": "good"}\n' * 300)
        against = path
    with pytest.raises(error, match=message):
        calibrate(model, Rows(TEXTS[:300], labels), budget, against=against)


def test_evaluate_needs_the_recorded_reference(model, exits_right, tmp_path):
    labels = labels_of(600)
    plain = plain_folder(tmp_path / "plain", names=("LABEL_0", "LABEL_1", "LABEL_2"))
    other = plain_folder(tmp_path / "other", names=("LABEL_0", "LABEL_1", "LABEL_2"), seed=4)
    calibration = calibrate(
        model, Rows(TEXTS[:600], labels), Budget(max_accuracy_drop=0.5, confidence=0.6), against=plain
    )
    calibration.write(model.artifact, tmp_path / "calibrated")
    calibrated = SweetModelForSequenceClassification.from_pretrained(tmp_path / "calibrated", backend="torch")
    texts, truth = TEXTS[600:700], labels_of(100)
    without = evaluate(calibrated, texts, truth, timed_rows=0).guarantee
    assert without.holds is None and "--against" in without.sentence()
    compared = evaluate(calibrated, texts, truth, timed_rows=0, reference=open_reference(plain))
    assert compared.guarantee.holds is not None and "against plain" in compared.guarantee.sentence()
    expected = (open_reference(plain).answers(texts, 100, model.artifact.label_names) == truth).mean()
    assert compared.reference["metric"] == expected
    mine = compared.report.metric
    assert compared.guarantee.drop == pytest.approx(expected - mine)
    wrong = evaluate(calibrated, texts, truth, timed_rows=0, reference=open_reference(other)).guarantee
    assert wrong.holds is None and "other weights" in wrong.sentence()


# ---------------------------------------------------------------------------------------------------- validity


@pytest.mark.parametrize(("lost", "won"), [(0.06, 0.03), (0.10, 0.02), (0.25, 0.0), (0.5, 0.42)])
def test_type_one_error_of_the_full_model(lost, won):
    """At the boundary of the null hypothesis, at most a fraction δ of the draws certifies anything."""
    epsilon, delta, draws, rows = lost - won, 0.1, 2000, 600
    counts = np.random.default_rng(0).multinomial(rows, [lost, won, 1 - lost - won], size=draws)
    wrong = np.mean(
        [certified([betting_p_value(LossCounts(a, b, rows), epsilon)], delta) for a, b, _ in counts.tolist()]
    )
    assert wrong <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)


@pytest.mark.parametrize(("lost", "won"), [(0.06, 0.03), (0.02, 0.09), (0.3, 0.3), (0.0, 0.0), (0.25, 0.0)])
def test_confidence_interval_covers_the_true_loss(lost, won):
    delta, draws, rows = 0.1, 150, 400
    counts = np.random.default_rng(1).multinomial(rows, [lost, won, 1 - lost - won], size=draws)
    intervals = [mean_loss_interval(LossCounts(a, b, rows), delta) for a, b, _ in counts.tolist()]
    missed = np.mean([not low <= lost - won <= high for low, high in intervals])
    assert missed <= delta
    assert all(low <= (a - b) / rows <= high for (low, high), (a, b, _) in zip(intervals, counts.tolist(), strict=True))
    assert np.mean([high - low for low, high in intervals]) < 0.25
