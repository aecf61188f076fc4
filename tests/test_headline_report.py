"""Tests of the README's table, which is written from the results file."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def headline_report(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import headline_report

    monkeypatch.setattr(headline_report, "RESULT", tmp_path / "headline.json")
    yield headline_report
    sys.modules.pop("headline_report")


def test_no_table_without_results(headline_report):
    assert headline_report.table() == ""


def test_scores_are_means_over_seeds_and_missing_methods_are_dashes(headline_report):
    methods = {
        "plain": {"name": "plain", "score": [80.0, 84.0], "texts_per_second": [100.0, 120.0]},
        "ours": {"name": "exits", "score": [82.0, 82.0], "texts_per_second": [1500.0, 1700.0]},
    }
    result = {
        "date": "2026-11-26T13:00:39+00:00",
        "commit": "0123456789abcdef",
        "machine": {"cpu": "CPU", "cores": 2},
        "versions": {"torch": "2", "transformers": "5"},
        "settings": {"model": "MiniLM", "seeds": [0, 1], "threads": 2, "batch": 32, "budget": "Budget."},
        "tasks": {
            "sst2": {"rows": 872, "metric": "accuracy", "methods": methods},
            "qnli": {"rows": 5463, "metric": "accuracy", "methods": {"plain": methods["plain"]}},
        },
    }
    headline_report.RESULT.write_text(json.dumps(result))
    lines = headline_report.table().splitlines()
    assert lines[2] == "| plain | 82.0 ± 2.8 | 110 | 82.0 ± 2.8 | 110 |"
    assert lines[3] == "| **exits** | **82.0 ± 0.0** | **1,600** | – | – |"
    assert "validation rows (SST2 872, QNLI 5463), mean ± standard deviation of 2 seeds" in lines[5]
    assert lines[-1].endswith("; 2026-11-26, commit 0123456789.")
