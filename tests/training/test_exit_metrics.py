"""Tests of `compute_metrics` per exit, called with the arguments of the Trainer's own."""

from __future__ import annotations

import pytest
import torch

from itrex_sweet.training import SweetCallback
from tests.tiny_models import tiny_model
from tests.training.trainers import EXITS, Rows, make_trainer


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


@pytest.mark.parametrize("batched", [True, False])
def test_metrics_receive_inputs_and_losses(batched, tmp_path):
    rows = Rows(13, seed=1)
    seen = []

    def compute(prediction, compute_result=True):
        if compute_result:
            seen.append((prediction.inputs, prediction.losses))
        return {"tokens": float((prediction.inputs >= 0).sum()), "loss_mean": float(prediction.losses.mean())}

    trainer = make_trainer(
        tiny_model(),
        tmp_path,
        SweetCallback(exits=EXITS, compute_metrics=compute),
        compute_metrics=None if batched else compute,
        eval_dataset=rows,
        include_for_metrics=["inputs", "loss"],
        batch_eval_metrics=batched,
    )
    metrics = trainer.evaluate()
    for inputs, losses in seen[-3:]:
        assert torch.equal(torch.as_tensor(inputs), rows.batch["input_ids"]) and len(losses) == 13
    for exit_ in EXITS:
        assert metrics[f"eval_exit_{exit_}_tokens"] == 13 * 8
        assert metrics[f"eval_exit_{exit_}_loss_mean"] == pytest.approx(metrics[f"eval_exit_{exit_}_loss"], rel=1e-5)


def test_inputs_of_different_lengths_are_padded_together(tmp_path):
    lengths = [4, 8]
    rows = [
        {name: value[:length] if value.dim() else value for name, value in Rows(10)[place].items()}
        for place, length in enumerate(length for length in lengths for _ in range(5))
    ]
    shapes = []

    def compute(prediction):
        shapes.append((prediction.inputs.shape, int((prediction.inputs == -100).sum())))
        return {}

    callback = SweetCallback(exits=EXITS, compute_metrics=compute)
    make_trainer(tiny_model(), tmp_path, callback, eval_dataset=rows, include_for_metrics=["inputs"]).evaluate()
    assert shapes == [((10, 8), 20)] * 3
