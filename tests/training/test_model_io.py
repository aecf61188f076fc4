"""Tests of the checks of model inputs: token ids, and the recorded length of rows."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Trainer

from itrex_sweet.artifact import copy_artifact, write_artifact
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.training import SweetCallback, attach, plain_state_dict, save_artifact
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import EXITS, Rows, make_trainer


@pytest.fixture(autouse=True)
def _quiet_prints(capsys):
    yield
    capsys.readouterr()


def train_on(rows, tmp_path, model=None, **settings):
    trainer = make_trainer(model or tiny_model(), tmp_path, **settings)
    trainer.train_dataset = rows
    trainer.train()
    return trainer


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("left", [True, False])
def test_the_longest_row_is_recorded_without_its_padding(with_mask, left, tmp_path):
    rows = Rows(16)
    ids, mask = rows.batch["input_ids"], rows.batch["attention_mask"]
    for row in range(16):
        padding = slice(0, 8 - 2 - row % 5) if left else slice(2 + row % 5, 8)
        ids[row, padding], mask[row, padding] = 1, 0
    if not with_mask:
        del rows.batch["attention_mask"]
    trainer = train_on(rows, tmp_path)
    assert trainer.model.config.sweet["longest_row"] == 6


def test_the_longest_row_is_saved_updated_and_copied(tmp_path):
    short = Rows(16)
    short.batch["attention_mask"][:, 6:] = 0
    trainer = train_on(short, tmp_path, max_steps=1)
    trainer.save_model(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["sweet"]["longest_row"] == 6
    assert train_on(Rows(16), tmp_path, trainer.model, max_steps=1).model.config.sweet["longest_row"] == 8
    assert train_on(short, tmp_path, trainer.model, max_steps=1).model.config.sweet["longest_row"] == 8
    artifact = save_artifact(trainer.model, tmp_path / "artifact")
    assert copy_artifact(artifact, tmp_path / "copy").config["sweet"]["longest_row"] == 8
    tensors = plain_state_dict(trainer.model)
    quantized = write_artifact(
        tmp_path / "int8", config=artifact.model_config(), tensors=tensors, quantization={"recipe": "static"}
    )
    assert quantized.config["sweet"]["longest_row"] == 8


def test_evaluation_rows_are_not_recorded(tmp_path):
    rows = Rows(16)
    rows.batch = {name: value[:, :5] if value.dim() == 2 else value for name, value in rows.batch.items()}
    trainer = train_on(rows, tmp_path, eval_strategy="epoch")
    assert trainer.model.config.sweet["longest_row"] == 5


def test_a_resumed_run_keeps_the_longest_row(tmp_path):
    settings = dict(num_train_epochs=2, save_strategy="steps", save_steps=4)
    train_on(Rows(16), tmp_path, **settings)
    resumed = make_trainer(tiny_model(), tmp_path, **settings)
    resumed.train_dataset = Rows(16)
    resumed.train_dataset.batch["attention_mask"][:, 5:] = 0
    resumed.train(str(tmp_path / "checkpoint-4"))
    assert resumed.model.config.sweet["longest_row"] == 8


@pytest.mark.parametrize("ids", [96, 5000, -1])
@pytest.mark.parametrize("training", [True, False])
def test_token_ids_without_an_embedding_name_their_row(ids, training, tmp_path):
    model = tiny_model().train(training)
    attach(model, SweetConfig(exits=EXITS))
    batch = tiny_batch()
    batch["input_ids"][2, 1] = ids
    with pytest.raises(InputError, match=f"token id {ids} in row 2: .*0 … 95") as error:
        model(**batch)
    assert error.value.rows == (2,)
    rows = Rows(16)
    rows.batch["input_ids"][5, 3] = ids
    with pytest.raises(InputError, match="token id"):
        train_on(rows, tmp_path)


class Tokens(PreTrainedTokenizerFast):
    def __init__(self, size: int):
        vocabulary = {f"t{place}": place for place in range(size)}
        super().__init__(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="t0")), pad_token="t1")


def test_a_tokenizer_larger_than_the_embedding_table(tmp_path):
    args = make_trainer(tiny_model(), tmp_path).args
    callbacks = [SweetCallback(exits=EXITS)]
    with pytest.raises(ConfigError, match=r"97 tokens .* 96 embeddings: .*resize_token_embeddings"):
        Trainer(tiny_model(), args, processing_class=Tokens(97), callbacks=callbacks)
    Trainer(tiny_model(), args, processing_class=Tokens(96), callbacks=callbacks)
    tokenizer = Tokens(96)
    tokenizer.add_tokens(["new"])
    with pytest.raises(ConfigError, match="97 tokens"):
        Trainer(tiny_model(), args, processing_class=tokenizer, callbacks=callbacks)
