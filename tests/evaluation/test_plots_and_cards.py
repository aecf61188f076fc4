"""Plots, model cards and tables."""

import builtins
import importlib.util
import subprocess
import sys

import pytest

from itrex_sweet.artifact import write_card
from itrex_sweet.errors import ArtifactError, MissingExtraError
from itrex_sweet.evaluation import Curve, CurvePoint, evaluate, plot_curves, render_card
from itrex_sweet.evaluation.model_card import _cell
from itrex_sweet.evaluation.report import Report
from itrex_sweet.evaluation.tables import markdown_table, plain_table
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import tiny_artifact


def curve(timed: bool = True) -> Curve:
    points = [CurvePoint(x / 4, 0.7 + x / 40, 1 + x, 0.5 + x if timed and x % 2 == 0 else None) for x in range(5)]
    return Curve(tuple(points), 1, 5, 100)


@pytest.mark.parametrize("timed", [True, False])
def test_plot_of_several_curves(tmp_path, timed):
    pytest.importorskip("matplotlib")
    path = plot_curves({"sweet": curve(timed), "joint": curve(timed)}, tmp_path / "new" / "c.png", title="both")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert (width > 2 * height) == timed, "a second panel for milliseconds"


def test_stored_policy_is_marked(tmp_path):
    pytest.importorskip("matplotlib")
    report = Report((), Policy((0.5,), (1.0, 1.0)), 100, 0.72, 2.5, 0, 0.9, milliseconds=1.2)
    pictures = [
        plot_curves({"sweet": curve(timed)}, tmp_path / f"{timed}-{len(reports)}.png", reports=reports).read_bytes()
        for timed in (True, False)
        for reports in ({}, {"sweet": report})
    ]
    assert len(set(pictures)) == 4


def test_plots_do_not_import_pyplot():
    pytest.importorskip("matplotlib")
    script = (
        "import sys, tempfile\n"
        "from itrex_sweet.evaluation import Curve, CurvePoint, plot_curves\n"
        "curve = Curve((CurvePoint(0.0, 0.5, 1.0), CurvePoint(1.0, 0.9, 2.0)), 1, 2, 10)\n"
        "plot_curves({'a': curve}, tempfile.mkdtemp() + '/c.png')\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    with pytest.raises(MissingExtraError, match=r"pip install 'itrex-sweet\[plot\]'"):
        plot_curves({"a": curve()}, tmp_path / "c.png")


def test_unwritable_path_is_an_artifact_error(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        plot_curves({"a": curve()}, tmp_path / "file" / "c.png")


def test_evaluation_needs_no_matplotlib(model, texts, labels, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        assert not name.startswith("matplotlib")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert evaluate(model, texts, labels, timed_rows=0).report.rows == len(texts)


def test_card_holds_results_and_valid_front_matter(model, texts, labels):
    yaml = pytest.importorskip("yaml")
    evaluation = evaluate(model, texts, labels, points=5, timed_rows=10, repeats=1)
    card = render_card(model.artifact, evaluation, data="some texts", base_model="org/base-1.0", dataset="glue")
    _, front, body = card.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["pipeline_tag"] == "text-classification" and "early-exit" in matter["tags"]
    assert matter["base_model"] == "org/base-1.0" and matter["datasets"] == ["glue"]
    assert matter["metrics"] == ["accuracy"]
    for row in [*evaluation.report.cells()[1], *evaluation.curve.cells()[1]]:
        assert "| " + " | ".join(row) + " |" in body
    assert f"{evaluation.curve.area:.4f}" in body and evaluation.machine.processor in body
    assert evaluation.versions["torch"] in body and "some texts" in body
    assert "SweetModelForSequenceClassification.from_pretrained" in body


def test_front_matter_quotes_unusual_names(model):
    yaml = pytest.importorskip("yaml")
    card = render_card(model.artifact, dataset="no", base_model="1234")
    matter = yaml.safe_load(card.split("---\n")[1])
    assert matter["datasets"] == ["no"] and matter["base_model"] == "1234"
    assert "base_model" not in render_card(model.artifact, base_model="/home/someone/model").split("---\n")[1]


def test_card_names_exits_with_private_layers(model, tmp_path):
    card = render_card(tiny_artifact(tmp_path, mode="decoupled"))
    assert "Exits 1 and 2 have private copies of their last layers" in card
    assert "private copies" not in render_card(model.artifact)


def test_card_is_written_beside_the_weights(model):
    write_card(model.artifact, render_card(model.artifact))
    assert (model.artifact.directory / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name")


def test_tables_are_aligned():
    table = plain_table(["exit", "accuracy"], [["1", "9.5 %"], ["policy", "100.0 %"]])
    lines = table.splitlines()
    assert lines[0] == "exit    accuracy"
    assert lines[2] == "1          9.5 %" and lines[3] == "policy   100.0 %"
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2, 4], "1, 2, 4"),
        ([], "none"),
        (
            {"rows": 83, "most_frequent": 0.55, "1": 1.0, "association": {"1": 9.06}},
            "rows 83, most frequent 0.55, 1 1.0, association (1 9.06)",
        ),
        ([[0, 1], "a|b"], "(0, 1), a\\|b"),
        (None, "null"),
        (True, "true"),
        ("two\nlines", "two lines"),
    ],
)
def test_settings_in_a_card_are_plain_text(value, text):
    assert _cell(value) == text
