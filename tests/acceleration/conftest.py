"""Fixtures: a tiny classifier that was fine-tuned without exits, and unlabelled texts."""

import random
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from tests.tiny_artifacts import WORDS, tiny_tokenizer
from tests.tiny_models import tiny_model

GOOD, BAD = ("good", "great", "fine", "quick", "warm"), ("bad", "awful", "slow", "cold")


@pytest.fixture(autouse=True)
def _one_quiet_thread():
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    yield
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)


def texts_of(count: int, seed: int) -> list[str]:
    """Returns different texts of nine words, one of which gives the label."""
    rng = random.Random(seed)
    others = [word for word in WORDS if word not in (*GOOD, *BAD)]
    texts: dict[str, None] = {}
    while len(texts) < count:
        words = [*rng.choices(others, k=8), rng.choice(rng.choice((GOOD, BAD)))]
        rng.shuffle(words)
        texts[" ".join(words)] = None
    return list(texts)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """Returns the folder of a BERT of four layers, fine-tuned to distinguish good from bad words."""
    return write_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def plain_regression(tmp_path_factory):
    """Returns the folder of the same model, fine-tuned to give 1 for good and -1 for bad words."""
    return write_plain(tmp_path_factory.mktemp("regression"), is_regression=True)


def write_plain(folder: Path, is_regression: bool = False) -> Path:
    """Trains the model of `plain` and writes it into a folder."""
    torch.manual_seed(0)
    model, tokenizer = tiny_model("bert", num_layers=4, num_labels=1 if is_regression else 2), tiny_tokenizer()
    if not is_regression:
        model.config.id2label, model.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    texts = texts_of(640, seed=1)
    model.train()
    for start in [*range(0, 640, 32)] * 4:
        part = texts[start : start + 32]
        labels = torch.tensor([int(any(word in GOOD for word in text.split())) for text in part])
        labels = 2.0 * labels - 1.0 if is_regression else labels
        loss = model(**tokenizer(part, return_tensors="pt", padding=True), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
