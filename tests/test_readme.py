"""The README's code is run, in its order, as it stands there."""

import re
from pathlib import Path

import pytest

from tests.tiny_artifacts import WORDS, tiny_tokenizer
from tests.tiny_models import tiny_model

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"<!-- test: (\w+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_readme_runs(tmp_path, monkeypatch, capsys):
    blocks = dict(BLOCK.findall(README.read_text(encoding="utf-8")))
    assert list(blocks) == ["train", "answer", "familiar", "quantize"]
    monkeypatch.chdir(tmp_path)
    # The hub is not asked: a folder of the same name holds a tiny model of twelve layers.
    folder = tmp_path / "bert-base-uncased"
    tiny_model("bert", num_layers=12, num_labels=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    rows = [f"the {thing} was {word},{label}" for thing in WORDS[2:5] for label, word in enumerate(WORDS[9:19])] * 7
    (tmp_path / "calibration.csv").write_text(
        "\n".join(["text,label", *(f"{row[:-1]}{int(row[-1]) % 2}" for row in rows)])
    )
    names: dict = {}
    for block in blocks.values():
        exec(compile(block, str(README), "exec"), names)
    metrics = names["trainer"].state.log_history[
        -2 if "train_runtime" in names["trainer"].state.log_history[-1] else -1
    ]
    assert {f"eval_exit_{exit_}_accuracy" for exit_ in (1, 4, 6, 12)} <= set(metrics)
    assert names["output"].exit_layer.shape == (2,)
    assert names["model"].artifact.precision == "int8"
    assert {row["exit_layer"] for row in names["model"].predict(["a fine phone"], threshold=1.0)} == {12}


def test_every_python_block_of_the_readme_is_tested():
    text = README.read_text(encoding="utf-8")
    assert text.count("```python") == len(BLOCK.findall(text))
