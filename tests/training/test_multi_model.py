"""Tests of the Multi-Model baseline."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError, UnsupportedModelError
from itrex_sweet.training import SweetCallback, attach, train_multi_model, truncate
from tests.tiny_models import FAMILY_CONFIGS, tiny_batch, tiny_model
from tests.training.references import classification_head, head_logits
from tests.training.trainers import EXITS, Rows, make_trainer


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_a_truncated_model_has_the_first_layers_and_the_head(family, tmp_path):
    model = tiny_model(family).eval()
    batch = tiny_batch()
    output = model(**batch, output_hidden_states=True)
    kind = model.config.model_type
    for num_layers in (1, 3, 4):
        short = truncate(model, num_layers)
        assert short.config.num_hidden_layers == num_layers and model.config.num_hidden_layers == 4
        head, hidden = classification_head(model, kind), output.hidden_states[num_layers]
        is_whole = num_layers == 4  # transformers 5 has normed the last hidden states of a pre-norm model
        expected = output.logits if is_whole else head_logits(kind, hidden, head, batch["attention_mask"])
        torch.testing.assert_close(short(**batch).logits, expected)
        own = {parameter.data_ptr() for parameter in short.parameters()}
        assert own.isdisjoint(parameter.data_ptr() for parameter in model.parameters())
        short.save_pretrained(tmp_path / str(num_layers))
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / str(num_layers)).eval()
        assert list(again.state_dict()) == list(short.state_dict())
        assert torch.equal(again(**batch).logits, short(**batch).logits)


def test_models_that_cannot_be_truncated():
    for num_layers in (0, 5):
        with pytest.raises(ConfigError, match="from 1 to 4"):
            truncate(tiny_model(), num_layers)
    model = tiny_model()
    attach(model, SweetConfig(exits=EXITS))
    with pytest.raises(TrainingSetupError, match="remove its exits"):
        truncate(model, 2)
    headless = tiny_model()
    headless.classifier = torch.nn.Identity()
    with pytest.raises(UnsupportedModelError, match="Identity"):
        truncate(headless, 2)


def make_plain(model, folder):
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        max_steps=2,
        save_strategy="no",
        disable_tqdm=True,
    )
    return Trainer(model=model, args=args, train_dataset=Rows())


def test_models_are_trained_independently(tmp_path):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = {}

    def make(short, exit_):
        made[exit_] = make_plain(short, tmp_path / f"exit-{exit_}")
        return made[exit_]

    models = train_multi_model(model, EXITS, make)
    assert list(models) == list(EXITS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for exit_, trained in models.items():
        assert len(trained.bert.encoder.layer) == exit_ and not hasattr(trained, "sweet_exits")
        alone = make_plain(truncate(model, exit_), tmp_path / f"alone-{exit_}")
        alone.train()
        expected = alone.model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in trained.state_dict().items())
        assert not torch.equal(trained.classifier.weight, model.classifier.weight)


def test_invalid_trainers(tmp_path):
    with pytest.raises(TrainingSetupError, match=r"exits 1 and 3 have one output_dir"):
        train_multi_model(tiny_model(), EXITS, lambda model, exit_: make_plain(model, tmp_path))
    with pytest.raises(TrainingSetupError, match="use the model passed"):
        train_multi_model(tiny_model(), EXITS, lambda model, exit_: make_plain(tiny_model(), tmp_path))
    with pytest.raises(TrainingSetupError, match="without SweetCallback"):
        train_multi_model(tiny_model(), (4,), lambda model, exit_: make_trainer(model, tmp_path, SweetCallback()))
    with pytest.raises(ConfigError, match="4 layers"):
        train_multi_model(tiny_model(), (1, 9), lambda model, exit_: make_plain(model, tmp_path))
