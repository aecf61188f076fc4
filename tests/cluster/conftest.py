"""Fixtures of the tests of `itrex_sweet.cluster`: a tiny artifact, and input files of every format with bad rows."""

import json
import random

import pytest

from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """Returns a tiny early-exit artifact of three labels."""
    folder = tmp_path_factory.mktemp("artifact")
    tiny_artifact(folder, tokenizer=tiny_tokenizer())
    return folder


@pytest.fixture(scope="session")
def other_artifact(tmp_path_factory):
    """Returns another artifact."""
    folder = tmp_path_factory.mktemp("other")
    tiny_artifact(folder, exits=(1, 2), tokenizer=tiny_tokenizer())
    return folder


def texts(count: int, seed: int = 0) -> list[str]:
    """Returns random texts of one to twelve known words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(count)]


@pytest.fixture()
def inputs(tmp_path):
    """Writes JSON lines, a CSV file with texts over two lines in a sub-folder, and files that are no data.

    `a.jsonl` has 100 rows, of which row 7 is no JSON and row 50 an empty text; `sub/b.csv` has 60.
    """
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    lines = [json.dumps({"id": row, "text": text}) for row, text in enumerate(texts(100))]
    lines[7], lines[50] = "broken", '{"text": " "}'
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    rows = [f'{row},"{text}\nagain"' if row % 10 == 0 else f"{row},{text}" for row, text in enumerate(texts(60, 1))]
    (folder / "sub" / "b.csv").write_text("id,text\n" + "\n".join(rows) + "\n")
    for name in ("_SUCCESS", ".part-0.crc", "notes.md"):
        (folder / name).write_text("not data")
    return folder
