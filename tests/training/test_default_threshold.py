"""The default policy's threshold, which training estimates from its own batches."""

import pytest
import torch

from itrex_sweet import SweetConfig, save_artifact
from itrex_sweet.artifact import open_artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import DEFAULT_THRESHOLD, Policy
from itrex_sweet.training import default_threshold
from itrex_sweet.training.default_threshold import CANDIDATES, ThresholdEstimator
from tests.tiny_models import tiny_model
from tests.training.trainers import make_trainer


def logits_of(confidence: float, label: int, rows: int) -> torch.Tensor:
    """Returns (rows, 2) logits whose softmax gives `confidence` to `label`."""
    probabilities = torch.full((rows, 2), 1 - confidence)
    probabilities[:, label] = confidence
    return probabilities.log()


def estimated(*batches: dict[int, torch.Tensor]) -> float | None:
    """Returns the estimate after the batches, repeated until the estimator computes it."""
    estimator = ThresholdEstimator()
    for _ in range(default_threshold.EVALUATION_INTERVAL):
        for batch in batches:
            estimator.update(batch)
    return estimator.threshold


def test_exits_that_agree_keep_the_default():
    batch = {1: logits_of(0.93, 0, 20), 2: logits_of(0.6, 1, 20), 4: logits_of(0.9, 0, 20)}
    assert estimated(batch) == DEFAULT_THRESHOLD


def test_an_overconfident_exit_raises_the_threshold_above_its_confidence():
    batch = {1: logits_of(0.982, 1, 20), 4: logits_of(0.9, 0, 20)}
    assert estimated(batch) == min(value for value in CANDIDATES if value > 0.982)


def test_only_the_first_confident_exit_answers():
    batch = {1: logits_of(0.9995, 0, 20), 2: logits_of(0.9999, 1, 20), 4: logits_of(0.9, 0, 20)}
    assert estimated(batch) == DEFAULT_THRESHOLD


def test_no_row_leaves_where_no_candidate_agrees():
    assert estimated({1: logits_of(0.99999, 1, 20), 4: logits_of(0.9, 0, 20)}) == 1.0


def test_a_few_disagreements_are_allowed():
    agrees, differs = (
        {1: logits_of(0.99999, label, rows), 4: logits_of(0.9, 0, rows)} for label, rows in ((0, 399), (1, 1))
    )
    assert estimated(agrees, differs) == DEFAULT_THRESHOLD
    agrees = {1: logits_of(0.99999, 0, 150), 4: logits_of(0.9, 0, 150)}
    assert estimated(agrees, differs) == 1.0


def test_recent_rows_count_more():
    estimator = ThresholdEstimator()
    differs = {1: logits_of(0.99999, 1, 100), 4: logits_of(0.9, 0, 100)}
    agrees = {1: logits_of(0.99999, 0, 100), 4: logits_of(0.9, 0, 100)}
    for batch in (*[differs] * 50, *[agrees] * 250):
        estimator.update(batch)
    assert estimator.threshold == DEFAULT_THRESHOLD


def test_too_few_rows_give_no_estimate():
    assert estimated({1: logits_of(0.99999, 1, 1), 4: logits_of(0.9, 0, 1)}) is None


def test_training_records_it_and_the_stored_policy_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(default_threshold, "MIN_ROWS", 1)
    monkeypatch.setattr(default_threshold, "EVALUATION_INTERVAL", 1)
    monkeypatch.setattr(ThresholdEstimator, "_estimate", lambda self: 0.975)
    trainer = make_trainer(tiny_model(), tmp_path / "run")
    trainer.train()
    assert trainer.model.config.sweet["threshold"] == 0.975
    trainer.save_model(tmp_path / "saved")
    artifact = save_artifact(trainer.model, tmp_path / "artifact")
    exits = len(artifact.exits)
    assert artifact.policy == open_artifact(tmp_path / "saved").policy == Policy.uniform(exits, 0.975)
    given = Policy.uniform(exits, 0.5)
    assert save_artifact(trainer.model, tmp_path / "given", policy=given).policy == given


def test_evaluation_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ThresholdEstimator, "update", lambda self, logits: pytest.fail("an evaluation was counted"))
    make_trainer(tiny_model(), tmp_path).evaluate()


def test_settings():
    config = SweetConfig(exits=(1, 4), threshold=0.99)
    assert config == SweetConfig(exits=(1, 4)) and SweetConfig.from_dict(config.to_dict()).threshold == 0.99
    assert config.default_policy() == Policy.uniform(2, 0.99)
    assert SweetConfig(exits=(1, 4)).default_policy() == Policy.uniform(2)
    for wrong in (1.5, -0.1, float("nan"), "high"):
        with pytest.raises(ConfigError, match="threshold="):
            SweetConfig(threshold=wrong)


def test_a_model_without_early_exits_has_no_threshold():
    estimator = ThresholdEstimator()
    assert not any(estimator.update({4: torch.randn(100, 3)}) for _ in range(60))
    assert estimator.threshold is None
