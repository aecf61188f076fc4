"""Tests that exits learn where the first token of the pretrained model attends to itself alone."""

from __future__ import annotations

import torch

from itrex_sweet.config import SweetConfig
from itrex_sweet.training import SweetCallback, attach
from tests.tiny_models import FIRST_TOKEN, tiny_model
from tests.training.trainers import EXITS, make_trainer


def model_without_context():
    """Returns a model whose first token attends to itself in its first layer: its state is equal in all rows."""
    model = tiny_model(num_layers=4)
    attention = model.bert.encoder.layer[0].attention.self
    with torch.no_grad():
        first = model.bert.embeddings(torch.tensor([[FIRST_TOKEN]]))[0, 0]
        attention.key.weight.copy_(torch.outer(torch.ones(32), first))
        attention.query.weight.zero_()
        attention.query.bias.fill_(2.0)
    return model


def test_exits_learn_although_their_first_token_attends_to_itself(tmp_path):
    model = model_without_context()
    settings = {"num_train_epochs": 60, "learning_rate": 2e-3, "per_device_train_batch_size": 16, "logging_steps": 100}
    trainer = make_trainer(model, tmp_path, SweetCallback(exits=EXITS), **settings)
    trainer.train()
    metrics = trainer.evaluate(trainer.train_dataset)
    assert metrics["eval_exit_1_accuracy"] == 1.0


def test_private_layers_attend_evenly_in_the_first_half_of_the_model():
    model = tiny_model(num_layers=4)
    attach(model, SweetConfig(exits=(1, 2, 3, 4)))
    for exit_ in (1, 2, 3):
        query = model.sweet_exits[str(exit_)].layer.attention.self.query
        layers = model.bert.encoder.layer[exit_ - 1].attention.self.query
        zero, copied = not (query.weight.any() or query.bias.any()), torch.equal(query.weight, layers.weight)
        assert (zero, copied) == ((True, False) if exit_ <= 2 else (False, True))
