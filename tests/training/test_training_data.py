"""Tests that the fingerprints of training and selection rows are recorded in the artifact."""

import pytest
from datasets import Dataset

from itrex_sweet import save_artifact
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.training.training_data import dataset_fingerprints, tokenize_examples
from tests.tiny_artifacts import tiny_tokenizer
from tests.tiny_models import tiny_model
from tests.training.trainers import Rows, make_trainer

ROWS = [[2, 7, 9, 3], [2, 8, 3], [2, 11, 12, 13, 3], [2, 30, 3]]


def padded(form: str | None = None) -> Dataset:
    ids = [row + [0] * (6 - len(row)) for row in ROWS]
    mask = [[1] * len(row) + [0] * (6 - len(row)) for row in ROWS]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": mask, "labels": [0, 1, 0, 1]}).with_format(form)


class Loader:
    def __init__(self, dataset):
        self.dataset = dataset


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_padding_and_format_make_no_difference(form):
    expected = Fingerprints.of(ROWS)
    assert dataset_fingerprints(Loader(padded(form))).hashes.tolist() == expected.hashes.tolist()
    without_mask = Dataset.from_dict({"input_ids": ROWS})
    assert dataset_fingerprints(Loader(without_mask)).hashes.tolist() == expected.hashes.tolist()


def test_data_that_cannot_be_iterated_in_advance_is_not_recorded():
    for dataset in (Rows(), padded().to_iterable_dataset(), Dataset.from_dict({"text": ["a"]}), None):
        assert dataset_fingerprints(Loader(dataset)) is None


def test_texts_and_pairs_in_any_order():
    tokenizer = tiny_tokenizer()
    rows = [("the good", "film"), "the bad film", "so", ("a", "slow one")]
    for order in (rows, rows[::-1], rows[1:3], rows[::3]):
        examples = tokenize_examples(tokenizer, order, None, 16)
        expected = [tokenizer(*([row] if isinstance(row, str) else row))["input_ids"] for row in order]
        assert [example["input_ids"] for example in examples] == expected


def test_the_artifact_holds_them(tmp_path):
    trainer = make_trainer(tiny_model("bert"), tmp_path / "run")
    trainer.train_dataset = padded()
    trainer.train()
    recorded = save_artifact(trainer.model, tmp_path / "artifact").fingerprints()
    assert recorded["training"].overlap(Fingerprints.of(ROWS)) == 1.0
    assert recorded["training"].rows == 4


@pytest.mark.parametrize("selects", [True, False])
def test_rows_that_a_checkpoint_was_selected_by_are_recorded(tmp_path, selects):
    dev = [[2, 40, 3], [2, 41, 42, 3], [2, 43, 3]]
    columns = {
        "input_ids": [row + [1] * (4 - len(row)) for row in dev],
        "attention_mask": [[1] * len(row) + [0] * (4 - len(row)) for row in dev],
    }
    held_out = Dataset.from_dict({**columns, "labels": [0, 1, 2]})
    settings = {"load_best_model_at_end": True, "save_strategy": "epoch"} if selects else {}
    trainer = make_trainer(
        tiny_model("bert"),
        tmp_path / "run",
        eval_dataset=held_out,
        eval_strategy="epoch",
        num_train_epochs=2,
        **settings,
    )
    trainer.train_dataset = padded()
    trainer.train()
    trainer.evaluate(
        Dataset.from_dict({"input_ids": [[2, 60, 3]], "labels": [0]})
    )  # after training, so it selects no checkpoint
    recorded = save_artifact(trainer.model, tmp_path / "artifact").fingerprints()
    assert ("selection" in recorded) == selects
    if selects:
        assert recorded["selection"].rows == 3 and recorded["selection"].contains(dev).all()
