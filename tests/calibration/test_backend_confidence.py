"""Calibration compares thresholds with the confidences that the backend computes, to the bit."""

import numpy as np
import pytest

from itrex_sweet import Policy, SweetModelForSequenceClassification, criteria
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import calibrate
from itrex_sweet.calibration.pruning import find_useful_exits
from itrex_sweet.data import Rows
from itrex_sweet.errors import SweetError
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.runtime.ragged import TokenBatch
from tests.calibration.test_calibrate import TEXTS
from tests.tiny_artifacts import random_rows, tiny_artifact, tiny_tokenizer

TEMPERATURES = (1.3, 0.7, 1.9)


def load(folder, backend: str) -> SweetModelForSequenceClassification:
    tiny_artifact(folder, tokenizer=tiny_tokenizer(), learn_to_exit=True)
    try:
        return SweetModelForSequenceClassification.from_pretrained(folder, backend=backend)
    except SweetError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("criterion", ["max_probability", "learned", "entropy"])
def test_a_threshold_equal_to_a_confidence_is_decided_as_by_the_engine(tmp_path, criterion):
    """One ulp decides: no confidence is greater than itself, and each is greater than the next smaller float."""
    model = load(tmp_path, "native")
    lengths = np.random.default_rng(0).integers(1, 30, 200).tolist()
    batch = TokenBatch.from_rows(random_rows(np.random.default_rng(1), lengths))
    outcomes = ExitOutcomes.observe(model, batch, [0] * len(batch))
    policy = Policy((1.0, 1.0), TEMPERATURES, criterion)
    confidences = outcomes.confidences(policy)
    for row, (first, second) in enumerate(confidences[:, :2]):
        for thresholds, expected in (
            ((first, second), 2),
            ((first, np.nextafter(second, np.float32(0))), 1),
            ((np.nextafter(first, np.float32(0)), second), 0),
        ):
            tried = policy.with_threshold([float(value) for value in thresholds])
            answers = model.executor.run(batch.select(np.array([row])), tried)
            assert answers.exit_index[0] == outcomes.leaving(tried)[row] == expected
            assert answers.confidence[0] == confidences[row, expected]


@pytest.fixture
def reversed_model(tmp_path, monkeypatch):
    """Returns a model whose backend computes confidences of its own: one minus those of NumPy."""
    model = load(tmp_path, "torch")

    def confidence(*args, **kwargs):
        values, state = criteria.confidence(*args, **kwargs)
        return 1 - values, state

    monkeypatch.setattr(model.backend, "confidence", confidence)
    return model


def test_calibrate_tests_policies_with_the_confidences_of_the_backend(reversed_model):
    labels = np.random.default_rng(2).integers(0, 3, 120).tolist()
    calibration = calibrate(reversed_model, Rows(TEXTS[:120], labels), Budget(max_layers=3.9), unit="layers")
    order = np.random.default_rng(0).permutation(120)
    testing = reversed_model.read(TEXTS[:120]).select(order[40:])
    layers = np.array(reversed_model.artifact.layers_run)
    assert len({candidate.mean_layers for candidate in calibration.candidates} - {1.0, 2.0, 4.0}) > 1
    for candidate in calibration.candidates:
        answers = reversed_model.executor.run(testing, candidate.policy)
        assert candidate.mean_layers == pytest.approx(layers[answers.exit_index].mean(), abs=0.03)


def test_pruning_uses_the_confidences_of_the_backend(reversed_model, monkeypatch):
    """Exit 2 agrees with full depth exactly where it is confident by the backend."""
    logits = np.random.default_rng(0).normal(size=(120, 3, 3)).astype(np.float32)
    confident = np.arange(120) < 60
    labels = logits[:, 2].argmax(axis=1)
    logits[:, 1] = np.where(confident[:, None], 0.1, 9.0) * np.eye(3)[np.where(confident, labels, (labels + 1) % 3)]
    monkeypatch.setattr("itrex_sweet.evaluation.outcomes.outputs_at_every_exit", lambda *_: (logits, None))
    assert find_useful_exits(reversed_model, TEXTS[:120], unit="layers").gains[2] > 0.2
