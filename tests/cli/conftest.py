"""Fixtures for tests of the command line: a tiny model, an artifact, labelled files, a function that runs it."""

import csv
import json
import random
from dataclasses import dataclass

import pytest
import torch
from transformers.utils import logging

from itrex_sweet.cli import main
from itrex_sweet.commands import train
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer
from tests.tiny_models import tiny_model

THINGS, GOOD, BAD = (
    ("room", "phone", "soup"),
    ("good", "great", "fine", "quick"),
    ("bad", "awful", "slow", "cold"),
)


@dataclass
class Finished:
    """The output and status of a command."""

    status: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)

    def json_lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(autouse=True)
def _one_quiet_thread():
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture()
def run(capsys):
    """Runs a command line in this process."""

    def run(*argv) -> Finished:
        capsys.readouterr()
        status = main([str(part) for part in argv])
        captured = capsys.readouterr()
        return Finished(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """Returns a plain tiny BERT with its tokenizer."""
    folder = tmp_path_factory.mktemp("pretrained")
    tiny_model("bert", num_layers=4, num_labels=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """Returns a tiny early-exit artifact of three unnamed labels."""
    folder = tmp_path_factory.mktemp("artifact")
    tiny_artifact(folder, tokenizer=tiny_tokenizer())
    return folder


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.choice(("positive", "negative"))
        word = rng.choice(GOOD if label == "positive" else BAD)
        rows.append({"text": f"the {rng.choice(THINGS)} was {word}", "label": label})
    return rows


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Returns a folder with `train.csv`, `dev.jsonl` and `numbers.jsonl` (labels 0 to 2)."""
    folder = tmp_path_factory.mktemp("corpus")
    with (folder / "train.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["text", "label"])
        writer.writeheader()
        writer.writerows(sentences(96, 0))
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sentences(40, 1)))
    numbers = [{"text": row["text"], "label": place % 3} for place, row in enumerate(sentences(40, 2))]
    (folder / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbers))
    return folder


@pytest.fixture()
def untrained(monkeypatch):
    """Makes the start of training an error."""
    monkeypatch.setattr(train, "_train", lambda *_: pytest.fail("training began"))
