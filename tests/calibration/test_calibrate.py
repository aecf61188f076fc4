"""Calibration from held-out rows to a recorded policy with a guarantee, and its errors."""

import functools
import itertools
import json
import logging

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification, open_artifact
from itrex_sweet.artifact import copy_artifact
from itrex_sweet.artifact.fingerprints import CALIBRATION, TRAINING, Fingerprints
from itrex_sweet.calibration import calibrate as calibrate_module
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.costs import CostTable
from itrex_sweet.calibration.guarantees import PairedPredictions, guarantee_for, loss_counts
from itrex_sweet.calibration.selection import select_candidate
from itrex_sweet.data import Rows
from itrex_sweet.errors import CalibrationError, ConfigError, InputError
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer

calibrate = functools.partial(calibrate_module.calibrate, unit="layers")  # time is tested in test_costs
TEXTS = [" ".join(words) for words in itertools.product(WORDS[:12], WORDS[5:20], WORDS[3:15])]


@pytest.fixture
def model(tmp_path):
    tiny_artifact(tmp_path / "model", tokenizer=tiny_tokenizer())
    return SweetModelForSequenceClassification.from_pretrained(tmp_path / "model", backend="torch")


def rows(count: int, labelled: bool = True) -> Rows:
    labels = np.random.default_rng(1).integers(0, 3, count).tolist() if labelled else None
    return Rows(TEXTS[:count], labels, source="held-out.csv")


@pytest.fixture
def answers(monkeypatch):
    """Makes the exits of the model correct with given probabilities, and more confident where they are correct."""

    def give(labels: list[int] | None, right: tuple[float, ...], seed: int = 0):
        def logits(executor, batch, description=""):
            random = np.random.default_rng(seed)
            truth = np.asarray(labels if labels is not None else random.integers(0, 3, len(batch)))
            ease = random.uniform(size=len(batch))
            given = random.normal(0, 0.1, (len(batch), len(right), 3)).astype(np.float32)
            for place, share in enumerate(right):
                confident = 4 * np.abs(ease - (1 - share)) + 0.2
                predicted = np.where(ease >= 1 - share, truth, (truth + 1) % 3)
                given[np.arange(len(batch)), place, predicted] += np.where(predicted == truth, confident, 0.3)
            return given, None

        monkeypatch.setattr("itrex_sweet.evaluation.outcomes.outputs_at_every_exit", logits)

    return give


def test_calibration_is_recorded_and_loaded(model, answers, tmp_path, caplog):
    given = rows(1500)
    answers(given.labels, (0.7, 0.8, 0.82))
    calibration = calibrate(model, given, Budget(max_accuracy_drop=0.02, confidence=0.9))
    assert calibration.certified > 1 and 0 < calibration.chosen < calibration.certified
    chosen = calibration.candidates[calibration.chosen]
    assert chosen.p_value <= 0.1 and chosen.mean_layers < 4
    assert sum(calibration.rows) == 1500 and chosen.counts.rows == calibration.rows[1]
    assert all(after > 0 for after in calibration.temperatures["after"])
    spread = np.array(calibration.traffic["rows"]).sum(axis=(0, 2))  # testing rows per exit under that policy
    assert spread.sum() == calibration.rows[1]
    assert (spread * [1, 2, 4]).sum() / spread.sum() == pytest.approx(chosen.mean_layers)
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    again = open_artifact(written.directory)
    assert again.policy == calibration.policy
    assert again.calibration == json.loads(json.dumps(calibration.to_dict()))
    assert again.calibration["budget"] == {"max_accuracy_drop": 0.02, "confidence": 0.9}
    assert again.fingerprints()[CALIBRATION].rows == 1500
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        SweetModelForSequenceClassification.from_pretrained(written.directory, backend="torch")
    assert "was calibrated on" not in caplog.text
    # in place, onto itself
    assert calibration.write(again).policy == calibration.policy
    assert open_artifact(written.directory).calibration == again.calibration


def test_reports_a_fixed_exit_that_is_as_good_as_the_policy(model, answers):
    given = rows(900)
    answers(given.labels, (0.8, 0.8, 0.8))  # the first exit is right wherever the last one is
    calibration = calibrate(model, given, Budget(max_accuracy_drop=0.05))
    exit_, fixed = calibration.static_alternative
    selected = calibration.candidates[calibration.chosen]
    assert exit_ == 1 and fixed.mean_layers == 1 and fixed.score >= selected.score
    assert calibration.to_dict()["static_alternative"] == {
        "exit": 1, "mean_layers": 1.0, "milliseconds": None, "score": round(fixed.score, 6)
    }  # fmt: skip
    answers(given.labels, (0.6, 0.7, 0.8))  # cheaper, but worse
    calibration = calibrate(model, given, Budget(max_accuracy_drop=0.05))
    assert len(calibration.fixed_exits) == 2
    assert calibration.static_alternative is None and calibration.to_dict()["static_alternative"] is None


def test_warns_when_the_backend_differs_from_the_calibrated_one(model, answers, tmp_path, caplog):
    given = rows(900)
    answers(given.labels, (0.8, 0.8, 0.8))
    calibration = calibrate(model, given, Budget(max_accuracy_drop=0.05))
    calibration.facts["backend"] = "native"
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        SweetModelForSequenceClassification.from_pretrained(written.directory, backend="torch")
    assert "was calibrated on backend native, and runs on torch" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        SweetModelForSequenceClassification.from_pretrained(written.directory, backend="torch", threshold=0.9)
    assert "was calibrated on" not in caplog.text


def test_record_is_dropped_with_another_policy(model, answers, tmp_path):
    given = rows(900)
    answers(given.labels, (0.8, 0.8, 0.8))
    written = calibrate(model, given, Budget(max_accuracy_drop=0.05)).write(model.artifact, tmp_path / "calibrated")
    assert copy_artifact(written, tmp_path / "same").calibration == written.calibration
    other = written.policy.with_threshold(0.123)
    assert copy_artifact(written, tmp_path / "other", other).calibration == {}


def test_agreement_needs_no_labels(model, answers):
    answers(None, (0.75, 0.8, 0.8))
    calibration = calibrate(model, rows(2000, labelled=False), Budget(max_agreement_drop=0.03))
    chosen = calibration.candidates[calibration.chosen]
    assert chosen.counts.won == 0 and chosen.counts.mean_loss < 0.03
    assert calibration.temperatures["after"] == list(model.policy.temperatures)


def test_limit_of_layers_has_no_guarantee(model, answers):
    given = rows(600)
    answers(given.labels, (0.6, 0.7, 0.8))
    calibration = calibrate(model, given, Budget(max_layers=3.0))
    assert calibration.certified is None and calibration.candidates[calibration.chosen].mean_layers <= 3.0
    assert calibration.candidates[calibration.chosen].p_value is None


@pytest.mark.parametrize("criterion", ["entropy", "patience", "patience_and_confidence"])
def test_other_criteria(model, answers, criterion):
    given = rows(1200)
    answers(given.labels, (0.8, 0.8, 0.8))
    calibration = calibrate(model, given, Budget(max_accuracy_drop=0.05), criterion=criterion)
    assert calibration.policy.criterion == criterion


def test_exits_that_are_always_wrong_cannot_be_certified(model, answers):
    given = rows(900)
    answers(given.labels, (0.0, 0.0, 0.9))
    with pytest.raises(CalibrationError, match=r"no policy is faster than the full model|cannot be certified"):
        calibrate(model, given, Budget(max_accuracy_drop=0.01))


def paired_predictions(lost: int, won: int, rows: int) -> PairedPredictions:
    """Returns predictions of a policy that loses and wins the given numbers of rows against the full model."""
    labels, full, answers = (np.zeros(rows, int) for _ in range(3))
    answers[:lost] = 1
    full[lost : lost + won] = 1
    return PairedPredictions(answers, full, labels)


def candidate(predictions: PairedPredictions, p_value: float | None, layers: float) -> calibrate_module.Candidate:
    return calibrate_module.Candidate(Policy.uniform(3), layers, None, loss_counts(predictions), 0.9, p_value)


def test_error_names_a_sufficient_number_of_rows():
    budget, predictions = Budget(max_accuracy_drop=0.02), [paired_predictions(0, 0, 300), paired_predictions(3, 1, 300)]
    guarantee = guarantee_for(budget)
    full, conservative = (
        candidate(predictions[0], None, 4.0),
        candidate(predictions[1], guarantee.p_value(predictions[1]), 3.0),
    )
    with pytest.raises(CalibrationError, match=r"lost 3 and won 1 of 300 rows. About (\d+) testing rows") as refused:
        select_candidate([full, conservative], predictions, budget, guarantee)
    needed = guarantee.rows_needed(predictions[1])
    assert f"About {needed} testing rows" in str(refused.value) and needed > 300
    scale = needed / 300
    assert guarantee.p_value(paired_predictions(round(3 * scale), round(scale), needed)) <= 0.05
    assert guarantee.p_value(paired_predictions(round(1.5 * scale), round(scale / 2), needed // 2)) > 0.05
    hopeless = paired_predictions(9, 1, 300)
    assert guarantee.rows_needed(hopeless) is None, "it loses more than the budget"
    with pytest.raises(CalibrationError, match="by a million rows"):
        select_candidate([full, candidate(hopeless, 1.0, 3.0)], [predictions[0], hopeless], budget, guarantee)


@pytest.mark.parametrize(("recipe", "advised"), [("static", True), ("smooth", True), ("dynamic", False), (None, False)])
def test_refused_int8_model_is_advised_to_use_the_recipe_that_changes_fewest_answers(recipe, advised):
    budget, below = Budget(max_accuracy_drop=0.01), paired_predictions(38, 22, 2850)
    guarantee = guarantee_for(budget)
    full = candidate(below, guarantee.p_value(below), 6.0)
    with pytest.raises(CalibrationError, match="even for this model at full depth") as refused:
        select_candidate([full], [below], budget, guarantee, "float32", recipe)
    assert ("'dynamic' changes fewer answers" in str(refused.value)) == advised


@pytest.mark.parametrize(
    ("count", "labels", "budget", "message"),
    [
        (40, None, Budget(max_agreement_drop=0.2), "40 rows; this budget needs at least 60"),
        (300, None, Budget(max_agreement_drop=0.005), "even for a policy that loses no row"),
        (300, None, Budget(max_accuracy_drop=0.2), "max_agreement_drop compares"),
        (300, [1] * 300, Budget(max_accuracy_drop=0.2), "every row of held-out.csv has the label 1"),
        (300, [7] * 300, Budget(max_accuracy_drop=0.2), "label 7 of row 0"),
    ],
)
def test_insufficient_rows_are_rejected(model, count, labels, budget, message):
    with pytest.raises(InputError, match=message):
        calibrate(model, Rows(TEXTS[:count], labels, source="held-out.csv"), budget)


def test_non_finite_logits_are_rejected(model, monkeypatch):
    def broken(executor, batch, description=""):
        logits = np.zeros((len(batch), 3, 3), np.float32)
        logits[5, 1, 0] = np.nan
        return logits, None

    monkeypatch.setattr("itrex_sweet.evaluation.outcomes.outputs_at_every_exit", broken)
    with pytest.raises(InputError, match="not finite for 1 of 300 rows"):
        calibrate(model, rows(300), Budget(max_accuracy_drop=0.1))


def test_training_rows_are_rejected_unless_forced(model, answers, monkeypatch):
    given = rows(900)
    answers(given.labels, (0.8, 0.8, 0.8))
    seen = {TRAINING: Fingerprints.of(model.read(given.texts).rows())}
    monkeypatch.setattr(type(model.artifact), "fingerprints", lambda self: seen)
    with pytest.raises(InputError, match=r"100 % of the rows in held-out\.csv are training rows"):
        calibrate(model, given, Budget(max_accuracy_drop=0.05))
    assert calibrate(model, given, Budget(max_accuracy_drop=0.05), force=True).certified > 1


def test_a_few_seen_rows_are_skipped(model, answers, monkeypatch, caplog):
    given = rows(930)
    answers(given.labels[30:], (0.8, 0.8, 0.8))
    seen = {TRAINING: Fingerprints.of(model.read(given.texts[:30]).rows())}
    monkeypatch.setattr(type(model.artifact), "fingerprints", lambda self: seen)
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        calibration = calibrate(model, given, Budget(max_accuracy_drop=0.05))
    assert "30 of 930 rows in held-out.csv were used in training, quantization or reports" in caplog.text
    assert sum(calibration.rows) == calibration.fingerprints.rows == 900


def test_budget_below_the_first_exit(model, answers):
    given = rows(900)
    answers(given.labels, (0.5, 0.6, 0.8))
    with pytest.raises(CalibrationError, match=r"1\.00 layers on average, max_layers=0\.5"):
        calibrate(model, given, Budget(max_layers=0.5))


IDENTITY, FACTS = np.tile([0.0, 1.0], (2, 1)), {"threads": 1}


def some_costs(layer: float = 1.0, probe: float = 0.0) -> CostTable:
    """Returns a table with the same cost for all lengths."""
    through = layer * np.array([1.0, 2.0, 4.0])[:, None, None] * np.ones((1, 2, 2))
    return CostTable((1, 32), (1, 64), through, np.full((2, 2), probe), IDENTITY, FACTS)


def test_budget_of_latency(model, answers):
    given = rows(900)
    answers(given.labels, (0.7, 0.8, 0.8))
    calibration = calibrate_module.calibrate(model, given, Budget(max_latency_ms=2.5), costs=some_costs())
    chosen = calibration.candidates[calibration.chosen]
    assert chosen.milliseconds == pytest.approx(chosen.mean_layers) and chosen.milliseconds <= 2.5
    assert calibration.facts["batch_size"] == 1 and calibration.facts["unit"] == "milliseconds"
    certified = calibrate_module.calibrate(model, given, Budget(max_accuracy_drop=0.1), costs=some_costs())
    assert certified.facts["batch_size"] == 32
    with pytest.raises(CalibrationError, match=r"ms per row on average, max_latency_ms=0\.1"):
        calibrate_module.calibrate(model, given, Budget(max_latency_ms=0.1), costs=some_costs())
    with pytest.raises(CalibrationError, match="no policy is within both limits"):
        calibrate_module.calibrate(model, given, Budget(max_accuracy_drop=0.05, max_latency_ms=0.5), costs=some_costs())
    with pytest.raises(ConfigError, match="needs costs in time"):
        calibrate_module.calibrate(model, given, Budget(max_latency_ms=2.5), unit="layers")
    with pytest.raises(ConfigError, match="choose one of milliseconds, layers"):
        calibrate_module.calibrate(model, given, Budget(max_latency_ms=2.5), unit="hours")


def test_probes_that_cost_more_than_they_save_are_disabled(model, answers):
    given = rows(900)
    answers(given.labels, (0.8, 0.8, 0.8))
    cheap = calibrate_module.calibrate(model, given, Budget(max_accuracy_drop=0.1), costs=some_costs(probe=0.01))
    assert cheap.candidates[cheap.chosen].milliseconds < 2.0 and cheap.to_dict()["switched_off"] == []
    saves_nothing = CostTable((1, 32), (1, 64), np.ones((3, 2, 2)), np.full((2, 2), 0.1), IDENTITY, FACTS)
    with pytest.raises(CalibrationError, match="no policy is faster than the full model"):
        calibrate_module.calibrate(model, given, Budget(max_accuracy_drop=0.1), costs=saves_nothing)


def test_measured_costs_are_recorded(model, answers, tmp_path):
    given = rows(600)
    answers(given.labels, (0.7, 0.8, 0.8))
    calibration = calibrate_module.calibrate(model, given, Budget(max_latency_ms=1000.0))
    written = calibration.write(model.artifact, tmp_path / "timed")
    assert written.costs["backend"] == "torch" and written.costs["batch_sizes"] == [1, 8, 32]
    assert all(each["milliseconds"] > 0 for each in written.calibration["candidates"])


def test_other_metrics(model, answers):
    given = rows(1500)
    answers(given.labels, (0.7, 0.8, 0.82))
    calibration = calibrate(model, given, Budget(max_metric_drop=0.05, metric="matthews"))
    chosen = calibration.candidates[calibration.chosen]
    assert "paired bootstrap of matthews (approximate)" in calibration.bound and chosen.p_value <= 0.05
    assert chosen.score > calibration.candidates[0].score - 0.05

    def recall_of_2(predictions, labels):
        return float((predictions[labels == 2] == 2).mean())

    own = calibrate(model, given, Budget(max_metric_drop=0.05, metric=recall_of_2))
    assert "recall_of_2" in own.bound and own.to_dict()["budget"]["metric"] == "recall_of_2"
    json.dumps(own.to_dict())


def test_learned_criterion_needs_exits_that_learned_it(model):
    with pytest.raises(ConfigError, match="--learn-to-exit"):
        calibrate(model, rows(600), Budget(max_layers=3), criterion="learned")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "a budget needs"),
        ({"max_accuracy_drop": 0.0}, "max_accuracy_drop=0.0"),
        ({"max_accuracy_drop": 1.0}, "max_accuracy_drop=1.0"),
        ({"max_accuracy_drop": 0.1, "confidence": 1.0}, "confidence=1.0"),
        ({"max_accuracy_drop": 0.1, "max_agreement_drop": 0.1}, "exclude each other"),
        ({"max_layers": 0}, "max_layers=0"),
        ({"max_latency_ms": -1.0}, "max_latency_ms=-1"),
        ({"max_metric_drop": 0.1}, "must be passed together"),
        ({"max_metric_drop": 0.1, "metric": "accuracy"}, "use max_accuracy_drop"),
        ({"max_accuracy_drop": 0.1, "metric": "f1"}, "must be passed together"),
    ],
)
def test_invalid_budgets(settings, message):
    with pytest.raises(ConfigError, match=message):
        Budget(**settings)


def test_policy_for_other_exits_is_rejected(model, tmp_path):
    with pytest.raises(ConfigError, match=r"a policy for 2 exits does not fit exits \(1, 2, 4\)"):
        copy_artifact(model.artifact, tmp_path / "copy", Policy.uniform(2))
    with pytest.raises(ConfigError, match="does not fit"):
        model.policy = Policy.uniform(4)
    assert not (tmp_path / "copy").exists()


def test_short_table_includes_the_selected_and_the_last_certified_candidate(model, answers):
    given = rows(1500)
    answers(given.labels, (0.7, 0.8, 0.82))
    calibration = calibrate(model, given, Budget(max_accuracy_drop=0.02))
    shown = calibration.representative_candidates(5)
    assert {0, calibration.chosen, calibration.certified - 1, len(calibration.candidates) - 1} <= set(shown)
    assert shown == sorted(set(shown)) and len(shown) <= 10 < len(calibration.candidates)


def test_a_budget_that_one_label_keeps_causes_a_warning(model, answers, caplog):
    labels = [0] * 560 + [1] * 40
    answers(labels, (0.97, 0.99, 1.0))
    data = Rows(TEXTS[:600], labels, source="held-out.csv")
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        calibrate(model, data, Budget(max_agreement_drop=0.03))
        assert "Always predicting" not in caplog.text
        calibrate(model, data, Budget(max_agreement_drop=0.1))
    assert "Always predicting" in caplog.text
