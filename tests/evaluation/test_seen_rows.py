"""Seen rows are recognized in other spellings and lengths; guarantees are checked on the other rows."""

import logging

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import fingerprints as fingerprints_file
from itrex_sweet.artifact.fingerprints import (
    CALIBRATION,
    QUANTIZATION,
    REPORTING,
    SELECTION,
    TRAINING,
    Fingerprints,
)
from itrex_sweet.evaluation.evaluation import evaluate
from itrex_sweet.evaluation.guarantee_check import check_guarantee
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.seen_rows import SeenRows, seen_rows
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_artifact(folder, tokenizer=tiny_tokenizer())
    return SweetModelForSequenceClassification.from_pretrained(folder, backend="torch")


@pytest.fixture
def with_record(plain, monkeypatch):
    """Returns a function that makes the model record rows by role."""

    def remember(**roles: Fingerprints):
        monkeypatch.setattr(type(plain.artifact), "fingerprints", lambda self: roles)
        return plain

    return remember


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Returns different texts."""
    random, found = np.random.default_rng(seed), {}
    while len(found) < count:
        found[" ".join(random.choice(WORDS, random.integers(3, 14)))] = None
    return list(found)


def pairs(count: int) -> list[tuple[str, str]]:
    texts = some_texts(2 * count)
    return list(zip(texts[:count], texts[count:], strict=True))


def recorded(model, texts, limit=None) -> Fingerprints:
    return Fingerprints.of(model.read(texts, limit).rows())


FORMS = {
    "as they were": lambda text: text,
    "more white space": lambda text: f"  {text.replace(' ', '   ')}\t",
    "upper case": str.upper,
    "title case and a line break": lambda text: text.title() + "\n",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("limit", [None, 6], ids=["whole", "cut at 6"])
@pytest.mark.parametrize("now", [None, 8], ids=["read whole", "read to 8"])
def test_rows_are_recognized_in_other_spellings_and_lengths(plain, with_record, form, limit, now):
    texts = some_texts(60)
    model = with_record(training=recorded(plain, texts[:20], limit))
    given = [form(text) for text in texts]
    seen = seen_rows(model, model.read(given, now), given)
    assert seen.known[TRAINING][:20].all()
    assert seen.known[TRAINING][20:].sum() <= (0 if limit is None else 8), "others begin alike, where they were cut"
    assert seen.shares[TRAINING] == pytest.approx(seen.known[TRAINING].mean())


@pytest.mark.parametrize("limit", [None, 9])
def test_reversed_pairs_are_recognized(plain, with_record, limit):
    given = pairs(30)
    model = with_record(quantization=recorded(plain, given[:10], limit))
    turned = [pair[::-1] for pair in given]
    for now in (turned, [(first.upper(), f" {second} ") for first, second in turned]):
        seen = seen_rows(model, model.read(now), now)
        assert seen.known[QUANTIZATION][:10].all() and not seen.known[QUANTIZATION][10:].any()


def test_without_texts_token_ids_are_compared(plain, with_record):
    texts = some_texts(30)
    model = with_record(calibration=recorded(plain, texts[:15]))
    seen = seen_rows(model, model.read(texts))
    assert seen.shares == {CALIBRATION: 0.5} and not seen.any_of([TRAINING]).any()


def test_share_of_partially_recorded_rows_is_estimated(plain, with_record, monkeypatch):
    monkeypatch.setattr(fingerprints_file, "MAX_HASHES", 100)
    texts = some_texts(2000)
    model = with_record(training=recorded(plain, texts[:1000]))
    seen = seen_rows(model, model.read(texts[500:1500]), texts[500:1500])
    assert seen.shares[TRAINING] == pytest.approx(0.5, abs=0.2)
    assert seen.known[TRAINING].mean() < 0.1 and seen.unknown_share([TRAINING]) > 0.2


def test_union_of_fingerprints(monkeypatch):
    rows = [[2, *divmod(row, 97), 3] for row in range(9000)]
    first, second = Fingerprints.of(rows[:50]), Fingerprints.of([*rows[30:70], [1] * 7])
    both = first.union(second)
    assert both.rows == 71 and both.longest == 7 and both.contains(rows[:70]).all()
    monkeypatch.setattr(fingerprints_file, "MAX_HASHES", 500)
    large = Fingerprints.of(rows[:6000]).union(Fingerprints.of(rows[4000:9000]))
    assert len(large.hashes) <= 500 and large.rows == pytest.approx(9000, rel=0.2)
    assert Fingerprints.of(rows[8000:]).overlap(large) == 1.0


# ---------------------------------------------------------------------------------------------------- guarantees


def outcomes(labels, right: np.ndarray) -> ExitOutcomes:
    """Returns outcomes in which early exits are correct where `right`, and the last exit always."""
    labels = np.asarray(labels)
    logits = np.zeros((len(labels), 3, 3), np.float32)
    for place in range(3):
        predicted = labels if place == 2 else np.where(right, labels, (labels + 1) % 3)
        logits[np.arange(len(labels)), place, predicted] = 9.0
    return ExitOutcomes(logits, labels, (1, 2, 4), (1, 2, 4))


class Calibrated:
    """An artifact's record of a calibration."""

    def __init__(self, policy, budget, **facts):
        self.policy, self.calibration = policy, {"budget": {"confidence": 0.95, **budget}, **facts}


def checked(plain, budget, seen: SeenRows, right, metric="accuracy", **facts):
    return check_guarantee(
        Calibrated(plain.artifact.policy, budget, **facts), outcomes(np.arange(100) % 3, right), seen, metric
    )


NOTHING = SeenRows({}, {}, 100)
BUDGETS = {
    "accuracy": ({"max_accuracy_drop": 0.05}, "accuracy"),
    "agreement": ({"max_agreement_drop": 0.05}, "accuracy"),
    "f1": ({"max_metric_drop": 0.05, "metric": "f1"}, "f1"),
}


def seen_as(role, count, share=None) -> SeenRows:
    return SeenRows({role: np.arange(100) < count}, {role: count / 100 if share is None else share}, 100)


@pytest.mark.parametrize(("budget", "metric"), BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("role", [TRAINING, SELECTION, QUANTIZATION, CALIBRATION])
def test_seen_rows_do_not_check_the_guarantee(plain, budget, metric, role):
    right = np.arange(100) >= 2
    for seen in (seen_as(role, 100), seen_as(role, 10, share=0.9)):
        check = checked(plain, budget, seen, right, metric)
        assert check.holds is None and "held" not in check.sentence()
        assert "not checked on these rows" in check.sentence() and f"{100 * seen.shares[role]:g} %" in check.sentence()
    fresh = checked(plain, budget, NOTHING, right, metric)
    assert fresh.holds and fresh.sentence().endswith("on these 100 rows: held.")


def test_unseen_rows_check_the_guarantee(plain):
    right = np.arange(100) >= 10  # wrong on ten rows, all of which it was calibrated on
    assert not checked(plain, {"max_accuracy_drop": 0.05}, NOTHING, right).holds
    check = checked(plain, {"max_accuracy_drop": 0.05}, seen_as(CALIBRATION, 40), right)
    assert check.holds and check.held_out_rows == 60 and check.drop == 0.0
    assert "the 60 held-out rows of these 100 rows (40 % of the rows were used for calibration)" in check.sentence()
    wrong = checked(plain, {"max_accuracy_drop": 0.05}, seen_as(CALIBRATION, 40), np.arange(100) < 90)
    assert wrong.holds is False and wrong.drop == pytest.approx(10 / 60)
    assert "not held on these rows" in wrong.sentence()


def test_reported_rows_check_the_guarantee(plain):
    check = checked(plain, {"max_accuracy_drop": 0.05}, seen_as(REPORTING, 100), np.ones(100, bool))
    assert check.holds and check.held_out_rows == 100


def test_guarantee_against_another_model_needs_its_answers(plain):
    against = {"name": "plain", "kind": "checkpoint", "sha256": "1"}
    check = checked(plain, {"max_accuracy_drop": 0.05}, NOTHING, np.ones(100, bool), against=against)
    assert check.holds is None and "against plain" in check.sentence() and "--against" in check.sentence()
    assert "held" not in check.sentence()


def test_evaluate_warns_of_seen_rows(plain, with_record, caplog):
    texts = some_texts(60)
    model = with_record(calibration=recorded(plain, texts[:30]), reporting=recorded(plain, texts))
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        evaluation = evaluate(model, texts, [row % 3 for row in range(60)], "tiny", timed_rows=0, source="dev.csv")
    assert evaluation.seen == {CALIBRATION: 0.5, REPORTING: 1.0} and evaluation.to_dict()["seen"] == evaluation.seen
    assert "50 % of the rows in dev.csv are calibration rows of tiny" in caplog.text
    assert "reporting rows" not in caplog.text
    assert evaluation.guarantee is None
