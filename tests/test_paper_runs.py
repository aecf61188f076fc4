"""Tests of the paper's runs on every supported model with tiny random weights: from data to a recorded result."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.tiny_artifacts import tiny_tokenizer
from tests.tiny_models import tiny_config

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
FAMILY = {"bert": "bert", "deberta": "deberta-v3"}
LAYERS = {"bert-base": 12, "bert-large": 24, "deberta-base": 12, "deberta-large": 24}

pytestmark = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="benchmarks run in the default environment"
)


@pytest.fixture()
def paper(tmp_path, monkeypatch):
    """Returns the module `paper.run`, with tiny data and temporary folders."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import record
    from paper import plan, run, store

    rows = [{"sentence": f"the room was {'good' if k % 2 else 'bad'}", "label": k % 2} for k in range(24)]
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    for split, count in {"train": 12, "train_20k": 24, "validation": 10}.items():
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows[:count])
    monkeypatch.setattr(record, "DATA", tmp_path / "data")
    monkeypatch.setattr(plan, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(store, "PAPER", tmp_path / "paper.json")
    monkeypatch.setattr(store, "TRIALS", tmp_path / "paper_trials.json")
    yield run
    for name in [name for name in sys.modules if name.split(".")[0] in ("paper", "record", "fine_tuning")]:
        del sys.modules[name]


def weights(folder: Path, model: str) -> None:
    """Saves tiny random weights with the depth of a model."""
    torch.manual_seed(0)
    config = tiny_config(FAMILY[model.split("-")[0]], num_layers=LAYERS[model], num_labels=2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.fixture()
def train(paper, tmp_path, monkeypatch):
    """Returns a function that runs methods on the tiny data with seed 0."""

    def run(model: str, *methods: str, epochs: int = 1, learning_rate: float = 1e-3) -> None:
        folder = tmp_path / f"{model}-weights"
        if not folder.exists():
            weights(folder, model)
        what = ["--model", model, "--weights", str(folder), "--tasks", "sst2", "--rows", "12", "--seeds", "0"]
        how = ["--epochs", str(epochs), "--learning-rates", str(learning_rate), "--threads", "1", "--float32"]
        monkeypatch.setattr(sys, "argv", ["run.py", *what, *how, "--methods", *methods])
        paper.main()

    return run


@pytest.mark.parametrize("model", LAYERS)
def test_run_of_a_model(paper, train, model, tmp_path, capsys):
    methods = ("multi-model", "sweet", "after-cut-first")
    train(model, *methods)
    assert "3 runs are missing" in capsys.readouterr().out
    exits = paper.plan.MODELS[model].exits
    assert exits[-1] == AutoConfig.from_pretrained(tmp_path / f"{model}-weights").num_hidden_layers
    for method in methods:
        run = paper.plan.reported("sst2", method, 0, model, 1)
        found = run.read()
        assert found["settings"]["exits"] == list(exits) and found["settings"]["rows"] == 12
        assert (found["pool"]["rows"], found["validation"]["rows"]) == (12, 10)
        assert len(found["validation"]["score"]) == 4 and 0.0 <= found["validation"]["area"] <= 1.0
        assert {"max_probability", "entropy"} <= found["validation"]["areas"].keys()
        for point in found["validation"]["curve"]:
            assert sum(point[:-1]) == pytest.approx(1.0, abs=1e-3)
    assert found["settings"]["plain"] == paper.plan.Run("sst2", "multi-model", 0, 1e-3, model, 1).name
    train(model, *methods)
    assert "0 runs are missing" in capsys.readouterr().out


def test_recipe_runs_plain_fine_tuning_first(paper, train, capsys):
    train("bert-base", "after-cut-first")
    shown = capsys.readouterr().out
    plain = paper.plan.Run("sst2", "multi-model", 0, 1e-3, "bert-base", 1)
    recipe = paper.plan.Run("sst2", "after-cut-first", 0, 1e-3, "bert-base", 1)
    assert "2 runs are missing" in shown and shown.index(plain.name) < shown.index(recipe.name)
    assert recipe.read()["settings"]["plain"] == plain.name
    begun = AutoModelForSequenceClassification.from_pretrained(plain.full_depth_model)
    first = AutoModelForSequenceClassification.from_pretrained(plain.folder / "exit_1")
    assert (begun.config.num_hidden_layers, first.config.num_hidden_layers) == (12, 1)


def test_hub_ids_and_exits(paper):
    models = paper.plan.MODELS
    assert {name for name, model in models.items() if model.weights is None} == {"minilm"}
    for name, layers in LAYERS.items():
        exits = models[name].exits
        assert len(exits) == 4 and exits[0] == 1 and exits[-1] == layers and "/" in models[name].weights


def test_paired_differences(paper):
    import numpy as np
    from paper.paired import complete, mean_and_error, p_value, sign_flips

    assert sign_flips(np.array([1.0, 2.0, 3.0])) == 2 / 8, "all signs + or all -"
    assert sign_flips(np.array([2.0, -1.0, 0.5])) == 6 / 8, "only 2 - 1 - 0.5 and its negative are nearer to 0"
    assert mean_and_error(np.array([1.0, 3.0])) == "+2.0 ± 1.0" and mean_and_error(np.array([-1.0])) == "-1.0"
    assert p_value(np.ones(12)) == "< 0.001" and p_value(np.ones(3)) == "0.250"
    found = {("rte", "sweet", 0): {}, ("rte", "joint", 0): {}, ("rte", "sweet", 1): {}, ("cola", "joint", 0): {}}
    assert complete(found, ("sweet", "joint")) == [("rte", 0)]


def test_first_seed_selects_the_learning_rate(paper):
    from paper import store

    plan = paper.plan
    requested = plan.Plan(("rte",), ("sweet",), (0, 1), (1e-5, 1e-4, 1e-3))
    assert [run.name for run in requested.missing()][-1] == "rte-sweet-1-0.0001", "no result yet: the middle one"

    def add(seed, rate, scores):
        result = {"pool": {"score": scores}, "settings": {"learning_rate": rate}, "seconds": 1}
        store.add(plan.Run("rte", "sweet", seed, rate).name, result)

    add(0, 1e-5, [0.5, 0.6])
    add(0, 1e-4, [0.4, 0.5])
    add(0, 1e-3, [0.6, 0.7])
    add(1, 1e-4, [0.9, 0.9])
    like = plan.Run("rte", "sweet", 0, 0.0)
    assert plan.by_learning_rate(like) == pytest.approx({1e-5: 0.55, 1e-4: 0.45, 1e-3: 0.65})
    assert plan.reported("rte", "sweet", 1) is None, "its only run has another rate"
    assert [run.name for run in requested.missing()] == ["rte-sweet-1-0.001"]
    assert plan.best_learning_rate(like, (1e-5, 1e-4)) == 1e-5


def test_curves_are_averaged_at_equal_shares_of_time(paper):
    from paper.pictures import by_time
    from paper.time_report import minimum_gains

    def task(full, **curves):
        return {"seeds": [5], "full": {"float32": full}, "curves": {"float32": curves}}

    recipe, joint = paper.plan.RECIPE, "joint"
    tasks = {
        "cola": task(2.0, **{recipe: [[[2.0, 0.7], [1.0, 0.5]]], joint: [[[1.0, 0.6], [2.0, 0.6]]]}),
        "rte": task(4.0, **{recipe: [[[1.0, 0.3], [4.0, 0.9]]], joint: [[[2.0, 0.6], [4.0, 0.8]]]}),
    }
    shares, heights = by_time(tasks, "float32", recipe)
    assert (shares[0], shares[-1]) == (0.5, 1.0), "cola has no policy before"
    assert (heights[0], heights[-1]) == pytest.approx((0.5, 0.8))
    foot = {"machine": {"cpu": "", "cores": 1}, "versions": {"torch": "", "transformers": ""}, "commit": "", "date": ""}
    assert "| float32 | -10.0 | 50% |" in minimum_gains({"tasks": tasks, **foot})
    for found in tasks.values():  # a second seed with a recipe 20 points better
        found["seeds"] = [5, 6]
        curves = found["curves"]["float32"]
        curves[joint] *= 2
        curves[recipe].append([[cost, score + 0.2] for cost, score in curves[recipe][0]])
    lines = minimum_gains({"tasks": tasks, **foot}).splitlines()
    assert {
        "| float32 | +0.0 | 50% |",
        "| float32, seed 5 alone | -10.0 | 50% |",
        "| float32, seed 6 alone | +10.0 | 50% |",
    } <= set(lines)


def test_report_of_trials(paper):
    from paper import recipes, store
    from record import provenance

    assert {*paper.plan.METHODS, paper.plan.RECIPE} - {"paper"} <= recipes.TRIED.keys()

    def add(task, method, epochs, area, trial=True):
        name = paper.plan.Run(task, method, 1, recipes.TRIED_AT, epochs=epochs).name
        result = {**provenance(), "pool": {"score": [0.5, 0.625], "area": area}}
        if trial:
            store.write(store.TRIALS, {**store.read(store.TRIALS), name: result})
        else:
            store.add(name, result)

    add("sst2", paper.plan.RECIPE, 2, 0.61, trial=False)
    add("sst2", "graded", 4, 0.62)
    add("mnli", "after-0", 2, 0.63)
    add("rte", paper.plan.RECIPE, 2, 0.64, trial=False)
    lines = recipes.trials().splitlines()
    assert "| seed 1 | sst2 | mnli |" in lines, "rte has no trial"
    rows = {line.split("`")[1]: line for line in lines if "`" in line}
    assert rows.keys() == {paper.plan.RECIPE, "graded", "after-0"}
    assert ", 4 epochs (" in rows["graded"] and rows["graded"].endswith("| 50.0/62.5, 62.00 | – |")
    assert "epoch" not in rows["after-0"] and rows["after-0"].endswith("| – | 50.0/62.5, 63.00 |")


def test_concurrent_writes_to_the_store(paper, tmp_path):
    from paper import store

    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from paper import store\n"
        "folder = pathlib.Path(sys.argv[2]); store.PAPER, store.RUNS = folder / 'paper.json', folder / 'runs'\n"
        "for number in range(30): store.add(f'{sys.argv[3]}-{number}', {'number': number})\n"
    )
    command = [sys.executable, "-c", code, str(BENCHMARKS), str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)]) for rank in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(store.read()) == 90 and not list(tmp_path.glob("*.unfinished"))
