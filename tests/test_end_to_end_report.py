"""The page of the comparison from strings to labels."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield pytest.importorskip("end_to_end.report")
    for name in [name for name in sys.modules if name == "record" or name.split(".")[0] == "end_to_end"]:
        del sys.modules[name]


def contender(kind: str, accuracy: float, batches: float, single: float, **more) -> dict:
    times = {size: {"median": value, "quartiles": [value, value]} for size, value in (("32", batches), ("1", single))}
    return {"kind": kind, "accuracy": accuracy, "milliseconds": times, "configuration": {}, **more}


def result(rival: float) -> dict:
    contenders = {
        "early exit, chosen": contender("ours", 0.895, 0.05, 0.1, layers=1.2),
        "early exit, certified": contender("ours", 0.899, 0.1, 0.2, layers=2.0),
        "full depth": contender("ours", 0.9, 0.3, 0.6, layers=6.0),
        "fixed exit 1": contender("rival", rival, 0.04, 0.2, layers=1.0),
        "OpenVINO INT8": contender("peer", 0.9, 0.5, 1.0),
        "ONNX Runtime INT8": contender("peer", 0.9, 0.6, 0.8),
        "torch fp32": contender("peer", 0.9, 0.01, 0.01),  # no INT8 peer
    }
    split = {size: {"early exit, chosen": dict(all=50, tokenizer=3, engine=45, other=2)} for size in ("32", "1")}
    policies = {"rows": 100, "plain": 0.9, "certified-32": {"refused": "too few rows"}}
    task = {"title": "SST-2", "rows": 872, "plain": 0.9, "policies": policies, "split": split, "contenders": contenders}
    return {
        "date": "2026-01-01T00:00:00+00:00",
        "commit": "0" * 40,
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"torch": "2", "transformers": "5"},
        "settings": {"threads": 2, "texts": 512, "kept": 0.99},
        "engines": {"OpenVINO INT8": {"openvino": "2026"}},
        "cold": {"early exit": 0.3},
        "tasks": {"sst2": task},
    }


def test_ratios_are_against_the_fastest_int8_peer(report):
    task = result(0.8)["tasks"]["sst2"]
    assert report.best_peer(task, "32") == "OpenVINO INT8" and report.best_peer(task, "1") == "ONNX Runtime INT8"
    assert report.ratio(task, "early exit, chosen", "32") == pytest.approx(10)
    assert report.ratio(task, "early exit, chosen", "1") == pytest.approx(8)
    summary = report.summary(result(0.8))
    assert "99.4 % | 10.0 × | 8.0 ×" in summary and "in 1 of 1 tasks" in summary and "openvino 2026" in summary


def test_means_leave_out_tasks_that_lose_too_much(report):
    kept, lost = result(0.8), result(0.8)["tasks"]["sst2"]
    lost["contenders"]["early exit, chosen"] = contender("ours", 0.5, 0.001, 0.001, layers=1.0)
    kept["tasks"]["rte"] = lost
    summary = report.summary(kept)
    assert "500.0 ×" in summary and "in 1 of 2 tasks" in summary
    assert "**mean** |  |  | **10.0 ×** | **8.0 ×**" in summary


def test_static_rivals_need_our_accuracy_and_our_speed(report):
    assert report.beaten_by(result(0.8)["tasks"]["sst2"], "32") == []
    task = result(0.895)["tasks"]["sst2"]
    assert report.beaten_by(task, "32") == ["fixed exit 1"] and report.beaten_by(task, "1") == []
    assert "fixed exit 1 (89.5 %, 1.25 × our speed) | none" in report.static_rivals({"sst2": task})


def test_every_part_is_rendered(report):
    page = "\n".join(report.sections(result(0.8)))
    for part in (
        "### SST-2",
        "end_to_end_sst2.png",
        "too few rows",
        "| early exit | 0.30 |",
        "| 10 % |",
        "OpenVINO INT8, full",
    ):
        assert part in page
