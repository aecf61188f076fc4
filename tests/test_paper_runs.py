"""The paper's runs on every model they stand ready for, in tiny random form: from data to a result that is recorded."""

from __future__ import annotations

import dataclasses
import gzip
import json
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
    """The room of the paper's runs, on tiny data and with results elsewhere."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import record
    from paper import plan, run

    rows = [{"sentence": f"the room was {'good' if k % 2 else 'bad'}", "label": k % 2} for k in range(24)]
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    for split, count in {"train": 12, "train_20k": 24, "validation": 10}.items():
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows[:count])
    monkeypatch.setattr(record, "DATA", tmp_path / "data")
    monkeypatch.setattr(plan, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(plan, "RUNS", tmp_path / "runs")
    yield run
    for name in [name for name in sys.modules if name.split(".")[0] in ("paper", "record", "fine_tuning", "ideas")]:
        del sys.modules[name]


def weights(folder: Path, model: str) -> None:
    """Random weights as small as they can be, as deep as the model's."""
    torch.manual_seed(0)
    config = tiny_config(FAMILY[model.split("-")[0]], num_layers=LAYERS[model], num_labels=2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.fixture()
def train(paper, tmp_path, monkeypatch):
    """Runs methods on the tiny data, seed 0."""

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
def test_a_model_runs_from_data_to_results(paper, train, model, tmp_path, capsys):
    methods = ("multi-model", "sweet", "after-0.3+teacher")
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
        for point in found["validation"]["curves"]["max_probability"]:
            assert sum(point[:-1]) == pytest.approx(1.0, abs=1e-3)
    assert found["settings"]["plain"] == paper.plan.Run("sst2", "multi-model", 0, 1e-3, model, 1).name
    train(model, *methods)
    assert "0 runs are missing" in capsys.readouterr().out


def test_a_recipe_brings_its_plain_fine_tuning(paper, train, capsys):
    train("bert-base", "after-cut-first")
    shown = capsys.readouterr().out
    plain = paper.plan.Run("sst2", "multi-model", 0, 1e-3, "bert-base", 1)
    recipe = paper.plan.Run("sst2", "after-cut-first", 0, 1e-3, "bert-base", 1)
    assert "2 runs are missing" in shown and shown.index(plain.name) < shown.index(recipe.name)
    assert recipe.read()["settings"]["plain"] == plain.name
    begun = AutoModelForSequenceClassification.from_pretrained(plain.full_depth_model)
    first = AutoModelForSequenceClassification.from_pretrained(plain.folder / "exit_1")
    assert (begun.config.num_hidden_layers, first.config.num_hidden_layers) == (12, 1)


def test_every_idea_changes_what_is_learned(paper, train, monkeypatch):
    import numpy as np
    from fine_tuning import GRADED, LOW, METHODS, Method
    from ideas import opening_cuts, rate_of_heads, rate_of_segments

    recipe = METHODS["after-cut-first"]
    controls = {
        "heads-x1": dataclasses.replace(recipe, idea=rate_of_heads(1.0)),
        "segments-x1": dataclasses.replace(recipe, idea=rate_of_segments(1.0, 1.0, 1.0, 1.0)),
        "open": Method({**METHODS["graded"].options}, idea=opening_cuts(GRADED, GRADED)),
        "low": Method({**METHODS["graded"].options, "gradient_scale": LOW}),
    }
    for name, control in controls.items():
        monkeypatch.setitem(METHODS, name, control)
    monkeypatch.setattr(paper.plan, "EVERY_METHOD", tuple(METHODS))
    ideas = {name for name, how in METHODS.items() if how is not None and how.idea is not None}
    train("bert-base", "after-cut-first", "graded", "low", *ideas, epochs=3, learning_rate=1e-2)

    runs = {name: paper.plan.Run("sst2", name, 0, 1e-2, "bert-base", 3) for name in METHODS}

    def difference(one, other):
        said, beside = (np.load(runs[name].folder / "pool.npz")["logits"] for name in (one, other))
        return np.abs(said - beside).max()

    assert difference("heads-x1", "after-cut-first") == difference("segments-x1", "after-cut-first") == 0
    assert difference("open", "graded") == 0
    for name in ideas - set(controls):
        assert difference(name, "low" if name == "opening" else "after-cut-first") > 1e-4, name
    exported = {name for name in ideas if (runs[name].folder / "config.json").exists()}
    assert ideas - exported == {name for name in ideas if not METHODS[name].exportable}


def test_the_hub_ids_and_exits_of_the_paper(paper):
    models = paper.plan.MODELS
    assert {name for name, model in models.items() if model.weights is None} == {"minilm"}
    for name, layers in LAYERS.items():
        exits = models[name].exits
        assert len(exits) == 4 and exits[0] == 1 and exits[-1] == layers and "/" in models[name].weights


def test_differences_in_pairs(paper):
    import numpy as np
    from paper.paired import complete, mean_and_error, p_value, sign_flips

    assert sign_flips(np.array([1.0, 2.0, 3.0])) == 2 / 8, "all pluses, and all minuses"
    assert sign_flips(np.array([2.0, -1.0, 0.5])) == 6 / 8, "only 2 - 1 - 0.5 and its mirror are nearer to 0"
    assert mean_and_error(np.array([1.0, 3.0])) == "+2.0 ± 1.0" and mean_and_error(np.array([-1.0])) == "-1.0"
    assert p_value(np.ones(12)) == "< 0.001" and p_value(np.ones(3)) == "0.250"
    found = {("rte", "sweet", 0): {}, ("rte", "joint", 0): {}, ("rte", "sweet", 1): {}, ("cola", "joint", 0): {}}
    assert complete(found, ("sweet", "joint")) == [("rte", 0)]


def test_the_first_seed_chooses_the_learning_rate(paper):
    plan = paper.plan
    asked = plan.Plan(("rte",), ("sweet",), (0, 1), (1e-5, 1e-4, 1e-3))
    assert [run.name for run in asked.missing()][-1] == "rte-sweet-1-0.0001", "nothing tried yet: the middle one"

    def ran(seed, rate, scores):
        path = plan.Run("rte", "sweet", seed, rate).path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"pool": {"score": scores}, "settings": {"learning_rate": rate}, "seconds": 1}))

    ran(0, 1e-5, [0.5, 0.6])
    ran(0, 1e-4, [0.4, 0.5])
    ran(0, 1e-3, [0.6, 0.7])
    ran(1, 1e-4, [0.9, 0.9])
    like = plan.Run("rte", "sweet", 0, 0.0)
    assert plan.by_learning_rate(like) == pytest.approx({1e-5: 0.55, 1e-4: 0.45, 1e-3: 0.65})
    assert plan.reported("rte", "sweet", 1) is None, "its only run is of another rate"
    assert [run.name for run in asked.missing()] == ["rte-sweet-1-0.001"]
    assert plan.best_learning_rate(like, (1e-5, 1e-4)) == 1e-5


def test_curves_by_the_clock_are_averaged_at_equal_shares_of_the_time(paper):
    from paper.pictures import by_time
    from paper.recipes import by_the_clock

    def task(full, **curves):
        return {"seeds": [5], "full": {"float32": full}, "curves": {"float32": curves}}

    recipe, joint = paper.plan.RECIPE, "joint"
    tasks = {
        "cola": task(2.0, **{recipe: [[[2.0, 0.7], [1.0, 0.5]]], joint: [[[1.0, 0.6], [2.0, 0.6]]]}),
        "rte": task(4.0, **{recipe: [[[1.0, 0.3], [4.0, 0.9]]], joint: [[[2.0, 0.6], [4.0, 0.8]]]}),
    }
    shares, heights = by_time(tasks, "float32", recipe)
    assert (shares[0], shares[-1]) == (0.5, 1.0), "no answer on cola before"
    assert (heights[0], heights[-1]) == pytest.approx((0.5, 0.8))
    foot = {"machine": {"cpu": "", "cores": 1}, "versions": {"torch": "", "transformers": ""}, "commit": ""}
    assert "| float32 | -10.0 | 50% |" in by_the_clock({"tasks": tasks, **foot})
    for found in tasks.values():  # another seed, on which the recipe is 20 points better everywhere
        found["seeds"] = [5, 6]
        curves = found["curves"]["float32"]
        curves[joint] *= 2
        curves[recipe].append([[cost, score + 0.2] for cost, score in curves[recipe][0]])
    lines = by_the_clock({"tasks": tasks, **foot}).splitlines()
    assert {
        "| float32 | +0.0 | 50% |",
        "| float32, seed 5 alone | -10.0 | 50% |",
        "| float32, seed 6 alone | +10.0 | 50% |",
    } <= set(lines)


def test_trials_stand_beside_what_they_are_trials_of(paper):
    from fine_tuning import METHODS
    from paper import recipes
    from record import provenance

    reported = (*paper.plan.METHODS, paper.plan.RECIPE)
    assert set(METHODS) - {"sweet+lora", "joint+lora"} - set(reported) == set(recipes.TRIED) - set(reported)

    def ran(task, method, epochs, area):
        run = paper.plan.Run(task, method, 1, recipes.TRIED_AT, epochs=epochs)
        run.path.parent.mkdir(parents=True, exist_ok=True)
        run.path.write_text(json.dumps({**provenance(), "pool": {"score": [0.5, 0.625], "area": area}}))

    ran("sst2", paper.plan.RECIPE, 2, 0.61)
    ran("sst2", "graded", 4, 0.62)
    ran("mnli", "after-0", 2, 0.63)
    ran("rte", paper.plan.RECIPE, 2, 0.64)
    lines = recipes.trials().splitlines()
    assert "| seed 1 | sst2 | mnli |" in lines, "on rte nothing was tried"
    rows = {line.split("`")[1]: line for line in lines if "`" in line}
    assert rows.keys() == {paper.plan.RECIPE, "graded", "after-0"}
    assert ", 4 epochs (" in rows["graded"] and rows["graded"].endswith("| 50.0/62.5, 62.00 | – |")
    assert "epoch" not in rows["after-0"] and rows["after-0"].endswith("| – | 50.0/62.5, 63.00 |")
