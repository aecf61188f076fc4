"""Tests that exits give the same logits in training and at inference."""

import numpy as np
import pytest
import torch

from itrex_sweet import SweetConfig
from itrex_sweet.families import EXIT_HEADS
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.training import attach, attachment_of, save_artifact
from tests.tiny_models import FAMILY_CONFIGS, ROW_CONFIGS, tiny_batch, tiny_model

EXITS = (1, 2, 4)


@pytest.mark.parametrize(
    ("family", "mode"),
    [*((family, "decoupled") for family in (*FAMILY_CONFIGS, *ROW_CONFIGS)), ("bert", "paper"), ("bert", "sweet")],
)
def test_logits_are_equal_in_training_and_at_inference(family, mode, tmp_path):
    model = tiny_model(family, num_layers=EXITS[-1])
    attach(model, SweetConfig(exits=EXITS, mode=mode))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if EXIT_HEADS in name:  # private layers begin as copies, which would hide which of the two is run
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    batch = tiny_batch(rows=6, length=12)
    model.eval()
    with torch.no_grad():
        model(**batch)
    trained = attachment_of(model).exit_logits
    backend = load_backend(save_artifact(model, tmp_path), "torch")
    rows = TokenBatch.from_padded(
        *(batch[name].numpy() for name in ("input_ids", "attention_mask")), None, backend.padding_idx
    )
    run = Executor(backend, None).logits_at_every_exit(rows)
    np.testing.assert_allclose(run, torch.stack([trained[exit_] for exit_ in EXITS], 1).numpy(), rtol=1e-4, atol=1e-4)
