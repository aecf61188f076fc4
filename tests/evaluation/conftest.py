"""Tiny models with a tokenizer, and texts for them."""

import random

import pytest
import torch
from transformers.utils import logging

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_cascade, tiny_tokenizer

EXITS = (1, 2, 4)


@pytest.fixture(autouse=True)
def _one_quiet_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def texts():
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(90)]


@pytest.fixture(scope="session")
def labels(texts):
    rng = random.Random(1)
    return [rng.randrange(3) for _ in texts]


@pytest.fixture(scope="session", params=["early_exit", "cascade"])
def model(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "cascade":
        tiny_cascade(directory, exits=EXITS, tokenizer=tiny_tokenizer())
    else:
        policy = Policy(thresholds=(0.6, 0.7), temperatures=(1.3, 0.8, 1.1))
        tiny_artifact(directory, exits=EXITS, tokenizer=tiny_tokenizer(), policy=policy)
    return SweetModelForSequenceClassification.from_pretrained(directory, batch_size=16)


@pytest.fixture()
def outcomes(model, texts, labels):
    from itrex_sweet.evaluation import ExitOutcomes

    return ExitOutcomes.observe(model, model.read(texts), labels)
