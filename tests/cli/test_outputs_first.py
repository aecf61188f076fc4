"""Tests that a command checks where it will write before it works, so that no work is lost."""

import csv
import itertools
import os

import pytest

from itrex_sweet import open_artifact
from itrex_sweet.artifact.staging import require_writable, staged
from itrex_sweet.cli import build_parser
from itrex_sweet.commands import demo, drift, info
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer
from tests.tiny_models import tiny_model

WORK = (  # the first long step of each command
    "itrex_sweet.evaluation.outcomes.outputs_at_every_exit",
    "itrex_sweet.quantization.quantizer.observe",
    "itrex_sweet.export.subgraphs.subgraphs_of",
    "itrex_sweet.acceleration.accelerating.add_exits",
    "itrex_sweet.acceleration.adding.read_traffic",
    "transformers.Trainer.train",
)
LAYERS = ("--max-layers", "3.9", "--unit", "layers")
COMMANDS = {
    "evaluate": ("evaluate", "MODEL", "--data", "DATA", "--timed-rows", "0", "--output", "OUT"),
    "calibrate": ("calibrate", "MODEL", "--data", "DATA", *LAYERS, "--output", "OUT"),
    "calibrate --plot": ("calibrate", "MODEL", "--data", "DATA", *LAYERS, "--output", "GOOD", "--plot", "OUT"),
    "prune-exits": ("prune-exits", "MODEL", "--data", "DATA", "--unit", "layers", "--output", "OUT"),
    "quantize": ("quantize", "MODEL", "--calibration", "DATA", "--output", "OUT"),
    "export": ("export", "MODEL", "--format", "torchscript", "--output", "OUT"),
    "train": ("train", "--model", "PLAIN", "--train-file", "DATA", "--output", "OUT"),
    "add-exits": ("add-exits", "PLAIN", "--data", "DATA", "--output", "OUT"),
    "accelerate": ("accelerate", "PLAIN", "--traffic", "DATA", "--output", "OUT", "--max-agreement-drop", "0.1"),
}
LONG = "n" * 300


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    tiny_artifact(folder / "model", tokenizer=tiny_tokenizer())
    tiny_model("bert", num_layers=2).save_pretrained(folder / "plain")
    tiny_tokenizer().save_pretrained(folder / "plain")
    texts = [" ".join(words) for words in itertools.product(WORDS[:12], WORDS[5:15], WORDS[3:9])]
    with (folder / "data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *((text, row % 3) for row, text in enumerate(texts))])
    (folder / "file").touch()
    return folder


class _Started(BaseException):
    """The work has begun."""


@pytest.mark.parametrize("output", ["file/inside", LONG, f"{LONG}/inside", "/proc/nothing/x"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_ends_a_command_before_its_work(
    command, output, place, run, tmp_path, monkeypatch
):
    def start(*arguments, **options):
        raise _Started

    for name in WORK:
        monkeypatch.setattr(name, start)
    monkeypatch.setattr("itrex_sweet.calibration.pruning.ExitOutcomes.from_executor", start)
    output = output if output.startswith("/") else place / output
    things = {"MODEL": place / "model", "PLAIN": place / "plain", "DATA": place / "data.csv", "OUT": output,
              "GOOD": tmp_path / "good"}  # fmt: skip
    finished = run(*(things.get(word, word) for word in COMMANDS[command]))
    assert finished.status == 1 and "error: cannot write" in finished.err, finished.err
    assert list(tmp_path.iterdir()) == [] and sorted(os.listdir(place)) == ["data.csv", "file", "model", "plain"]
    things["OUT"] = tmp_path / "out.png"
    with pytest.raises(_Started):
        run(*(things.get(word, word) for word in COMMANDS[command]))


def test_every_option_of_an_output_is_tried():
    commands = next(action for action in build_parser()._actions if action.dest == "verb").choices
    without = {module.__name__.rpartition(".")[2] for module in (demo, drift, info)} | {"predict"}
    for verb, parser in commands.items():
        for action in parser._actions:
            if action.dest in ("output", "plot") and verb not in without:
                tried = [
                    words for words in COMMANDS.values() if words[0] == verb and action.option_strings[-1] in words
                ]
                assert tried, f"{verb} --{action.dest}"


@pytest.mark.parametrize("name", ["字" * 85, "é" * 127, "n" * 255, "a" + "字" * 84])
def test_names_of_255_bytes_are_written(name, tmp_path):
    """The staging folder has a longer name, made of this one."""
    require_writable(tmp_path / name)
    for contents in ("1", "2"):
        with staged(tmp_path / name) as folder:
            (folder / "file").write_text(contents)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name / "file").read_text() == "2"


def test_long_names_of_data(place, run, tmp_path):
    long = tmp_path / f"{'d' * 251}.csv"
    long.write_bytes((place / "data.csv").read_bytes())
    data = ("--data", long)
    assert run("predict", place / "model", long).status == 0
    assert run("evaluate", place / "model", *data, "--timed-rows", 0, "--output", tmp_path / "report").status == 0
    finished = run("calibrate", place / "model", *data, *LAYERS, "--output", tmp_path / "out")
    assert finished.status == 0 and open_artifact(tmp_path / "out").calibration["source"] == long.name
