"""Tests of the agreement per label, and of the rule that names lost labels."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet import Budget
from itrex_sweet.acceleration.accelerating import Acceleration
from itrex_sweet.acceleration.report import Measurements
from itrex_sweet.commands.accelerate import shown
from itrex_sweet.evaluation import ExitOutcomes, evaluate
from itrex_sweet.evaluation.label_agreement import LabelAgreement, describe_lost, label_agreements, lost_labels
from itrex_sweet.evaluation.report import make_report
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

NAMES = ("usual", "rare", "never")


def counted(*pairs) -> list[LabelAgreement]:
    return [LabelAgreement(f"label {place}", *pair) for place, pair in enumerate(pairs)]


def lost_of(*pairs) -> list[int]:
    agreements = counted(*pairs)
    return [agreements.index(each) for each in lost_labels(agreements)]


def test_counts_per_label():
    compared, answers = np.array([0, 0, 0, 1, 1, -1]), np.array([0, 1, -1, 1, 0, 0])
    found = label_agreements(TASKS[SINGLE_LABEL], answers, compared, NAMES)
    assert found == (LabelAgreement("usual", 3, 1), LabelAgreement("rare", 2, 1), LabelAgreement("never", 0, 0))
    assert [each.share for each in found] == [1 / 3, 1 / 2, None]
    sets = np.array([[1, 0, 1], [0, 1, 0], [-1, -1, -1]])
    found = label_agreements(TASKS[MULTI_LABEL], sets, np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]]), NAMES)
    assert [(each.rows, each.agreeing) for each in found] == [(2, 1), (2, 1), (1, 0)]
    assert label_agreements(TASKS[REGRESSION], np.zeros(3), np.zeros(3), ["value"]) == ()
    assert LabelAgreement.from_dict(json.loads(json.dumps(found[0].to_dict()))) == found[0]


def test_rare_label_that_is_lost_wholly_is_named_although_99_percent_agree():
    assert lost_of((990, 990), (10, 0)) == [1]
    assert lost_of((500, 500), (490, 490), (10, 0)) == [2]
    assert lost_of((600, 600), (400, 0)) == [1], "also a frequent one"
    assert describe_lost(lost_labels(counted((990, 990), (10, 0)))) == "label 1 on 10 of 10 texts"


def test_chance_and_equal_losses_name_no_label():
    assert lost_of((990, 980), (10, 9)) == [], "one row of ten"
    assert lost_of((999, 999), (1, 0)) == [], "a single row"
    assert lost_of((5000, 4500), (5000, 4400)) == [], "all labels lose"
    assert lost_of((5000, 5000), (5000, 4900)) == [], "two percent"
    assert lost_of((10, 0), (10, 0)) == [] and lost_of((0, 0)) == [] and lost_labels([]) == ()


def test_rule_rarely_names_a_label_that_loses_five_percent():
    random = np.random.default_rng(0)
    for rows in (10, 40, 200, 2000):
        named = 0
        for _ in range(400):
            named += bool(lost_of((5000, 5000), (rows, rows - random.binomial(rows, 0.05))))
        assert named / 400 <= 0.05
        assert sum(bool(lost_of((5000, 4990), (rows, rows - random.binomial(rows, 0.6)))) for _ in range(100)) >= 95


@given(pairs=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_a_label_with_more_lost_rows_stays_named(pairs):
    pairs = [(rows, min(rows, agreeing)) for rows, agreeing in pairs]
    for place in lost_of(*pairs):
        fewer = list(pairs)
        fewer[place] = (pairs[place][0], max(pairs[place][1] - 1, 0))
        assert place in lost_of(*fewer)


def outcomes_with_a_lost_label() -> ExitOutcomes:
    """Returns rows of which the early exits are certain, and wrong for each of the rare label."""
    labels = np.array([0] * 480 + [1] * 20)
    logits = np.zeros((500, 3, 3), dtype=np.float32)
    logits[:, :2, 0] = 9.0
    logits[np.arange(500), 2, labels] = 9.0
    return ExitOutcomes(logits, labels, (1, 2, 4), (1, 2, 4))


def test_report_has_both_agreements():
    outcomes = outcomes_with_a_lost_label()
    report = make_report(outcomes, Policy.uniform(3, 0.9), label_names=NAMES)
    expected = (LabelAgreement("usual", 480, 480), LabelAgreement("rare", 20, 0), LabelAgreement("never", 0, 0))
    assert report.labels == report.truth == expected and report.agreement == 0.96
    assert make_report(outcomes, Policy.uniform(3, 1.0)).labels[1] == LabelAgreement("LABEL_1", 20, 20)
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["labels"][1] == {"label": "rare", "rows": 20, "agreeing": 0, "agreement": 0.0}


def test_evaluation_warns_of_lost_labels(model, texts, monkeypatch, caplog):
    model.policy, before = Policy.uniform(3, 0.9), model.policy
    monkeypatch.setattr(ExitOutcomes, "observe", classmethod(lambda *_: outcomes_with_a_lost_label()))
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        evaluate(model, texts, [0] * len(texts), timed_rows=0)
    assert "LABEL_1 on 20 of 20 texts" in caplog.text
    model.policy = before


@pytest.mark.parametrize("agreeing", [0, 10])
def test_accelerate_tells_lost_labels(agreeing, tmp_path):
    labels = (LabelAgreement("usual", 990, 990), LabelAgreement("rare", 10, agreeing))
    measured = Measurements(1000, "int8", (2, 6), 2.5, 0.99, 0.98, 0.99, True, 1.0, 2.0, 3.0, labels)
    facts = json.loads(json.dumps(measured.to_dict()))
    assert facts["lost_labels"] == ([] if agreeing else ["rare"]) and facts["labels"][1]["agreement"] == agreeing / 10
    assert Measurements.from_dict(facts) == measured
    made = Acceleration(SimpleNamespace(directory=tmp_path), Budget(max_agreement_drop=0.01), measured, 1.2)
    assert ("rare on 10 of 10 texts" in shown(made)) == (agreeing == 0)
