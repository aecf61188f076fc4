"""Rows that a model has seen are found again however they are given, and others are not."""

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
def remembering(plain, monkeypatch):
    """The model, made to remember rows by role."""

    def remember(**roles: Fingerprints):
        monkeypatch.setattr(type(plain.artifact), "fingerprints", lambda self: roles)
        return plain

    return remember


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Different ones."""
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
def test_a_row_is_known_again_in_other_spelling_and_length(plain, remembering, form, limit, now):
    texts = some_texts(60)
    model = remembering(training=recorded(plain, texts[:20], limit))
    given = [form(text) for text in texts]
    seen = seen_rows(model, model.read(given, now), given)
    assert seen.known[TRAINING][:20].all()
    assert seen.known[TRAINING][20:].sum() <= (0 if limit is None else 8), "others begin alike, where they were cut"
    assert seen.shares[TRAINING] == pytest.approx(seen.known[TRAINING].mean())


@pytest.mark.parametrize("limit", [None, 9])
def test_so_is_a_pair_in_the_other_order(plain, remembering, limit):
    given = pairs(30)
    model = remembering(quantization=recorded(plain, given[:10], limit))
    turned = [pair[::-1] for pair in given]
    for now in (turned, [(first.upper(), f" {second} ") for first, second in turned]):
        seen = seen_rows(model, model.read(now), now)
        assert seen.known[QUANTIZATION][:10].all() and not seen.known[QUANTIZATION][10:].any()


def test_token_ids_alone_are_compared_as_they_are(plain, remembering):
    texts = some_texts(30)
    model = remembering(calibration=recorded(plain, texts[:15]))
    seen = seen_rows(model, model.read(texts))
    assert seen.shares == {CALIBRATION: 0.5} and not seen.any_of([TRAINING]).any()


def test_the_share_in_a_set_too_large_to_keep_is_estimated(plain, remembering, monkeypatch):
    monkeypatch.setattr(fingerprints_file, "MOST_KEPT", 100)
    texts = some_texts(2000)
    model = remembering(training=recorded(plain, texts[:1000]))
    seen = seen_rows(model, model.read(texts[500:1500]), texts[500:1500])
    assert seen.shares[TRAINING] == pytest.approx(0.5, abs=0.2)
    assert seen.known[TRAINING].mean() < 0.1 and seen.unknown_share([TRAINING]) > 0.2


def test_the_union_of_two_sets_holds_both(monkeypatch):
    rows = [[2, *divmod(row, 97), 3] for row in range(9000)]
    first, second = Fingerprints.of(rows[:50]), Fingerprints.of([*rows[30:70], [1] * 7])
    both = first.union(second)
    assert both.rows == 71 and both.longest == 7 and both.holds(rows[:70]).all()
    monkeypatch.setattr(fingerprints_file, "MOST_KEPT", 500)
    large = Fingerprints.of(rows[:6000]).union(Fingerprints.of(rows[4000:9000]))
    assert len(large.hashes) <= 500 and large.rows == pytest.approx(9000, rel=0.2)
    assert Fingerprints.of(rows[8000:]).share_in(large) == 1.0


# ---------------------------------------------------------------------------------------------------- the promise


def outcomes(labels, right: np.ndarray) -> ExitOutcomes:
    """Exit 1 answers right where said, the last always; everyone leaves at exit 1."""
    labels = np.asarray(labels)
    logits = np.zeros((len(labels), 3, 3), np.float32)
    for place in range(3):
        said = labels if place == 2 else np.where(right, labels, (labels + 1) % 3)
        logits[np.arange(len(labels)), place, said] = 9.0
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
def test_rows_that_made_the_policy_are_no_evidence(plain, budget, metric, role):
    right = np.arange(100) >= 2
    for seen in (seen_as(role, 100), seen_as(role, 10, share=0.9)):
        check = checked(plain, budget, seen, right, metric)
        assert check.kept is None and "held" not in check.sentence()
        assert "no evidence" in check.sentence() and f"{100 * seen.shares[role]:g} %" in check.sentence()
    fresh = checked(plain, budget, NOTHING, right, metric)
    assert fresh.kept and fresh.sentence().endswith("on these 100 rows: held.")


def test_of_rows_seen_in_part_the_others_judge(plain):
    right = np.arange(100) >= 10  # wrong on ten rows, all of which it was calibrated on
    assert not checked(plain, {"max_accuracy_drop": 0.05}, NOTHING, right).kept
    check = checked(plain, {"max_accuracy_drop": 0.05}, seen_as(CALIBRATION, 40), right)
    assert check.kept and check.judged == 60 and check.lost == 0.0
    assert "60 of these 100 rows that the model has not seen (40 % of the rows were calibrated on)" in check.sentence()
    wrong = checked(plain, {"max_accuracy_drop": 0.05}, seen_as(CALIBRATION, 40), np.arange(100) < 90)
    assert wrong.kept is False and wrong.lost == pytest.approx(10 / 60)
    assert "not held on these rows" in wrong.sentence()


def test_rows_of_a_report_judge_as_others_do(plain):
    check = checked(plain, {"max_accuracy_drop": 0.05}, seen_as(REPORTING, 100), np.ones(100, bool))
    assert check.kept and check.judged == 100


def test_what_was_promised_against_another_model_needs_that_model(plain):
    against = {"name": "plain", "kind": "checkpoint", "sha256": "1"}
    check = checked(plain, {"max_accuracy_drop": 0.05}, NOTHING, np.ones(100, bool), against=against)
    assert check.kept is None and "against plain" in check.sentence() and "--against" in check.sentence()
    assert "held" not in check.sentence()


def test_evaluate_says_what_it_has_seen(plain, remembering, caplog):
    texts = some_texts(60)
    model = remembering(calibration=recorded(plain, texts[:30]), reporting=recorded(plain, texts))
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        evaluation = evaluate(model, texts, [row % 3 for row in range(60)], "tiny", timed_rows=0, source="dev.csv")
    assert evaluation.seen == {CALIBRATION: 0.5, REPORTING: 1.0} and evaluation.to_dict()["seen"] == evaluation.seen
    assert "50 % of the rows in dev.csv are calibration rows of tiny" in caplog.text
    assert "reporting rows" not in caplog.text
    assert evaluation.guarantee is None
