"""Tests of `itrex-sweet bench`."""

import itertools
import os
import types

import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.commands import bench
from itrex_sweet.commands.bench import threads


def test_default_backends(run, artifact):
    finished = run("bench", artifact, "--rows", 6, "--repeats", 1, "--batch-size", 1, 4)
    assert finished.status == 0, finished.err
    assert "torch" in finished.out and "random tokens" in finished.out and "nothing about real texts" in finished.out
    lines = [line.split() for line in finished.out.splitlines() if line.startswith("torch ")]
    assert [line[1] for line in lines] == ["1", "1", "4", "4"]


def test_json_output_on_a_data_file(run, artifact, corpus):
    argv = ["bench", artifact, "--data", corpus / "numbers.jsonl", "--engines", "torch", "--rows", 10, "--repeats", 2]
    facts = run(*argv, "--batch-size", 1, 8, "--json").json()
    assert facts["rows"] == 10 and facts["exits"] == [1, 2, 4] and not facts["left_out"]
    assert [(row["batch_size"], row["policy"]) for row in facts["timings"]] == [
        (size, policy) for size in (1, 8) for policy in ("full depth", "stored policy")
    ]
    model = SweetModelForSequenceClassification.from_pretrained(artifact, backend="torch")
    rows = model.read([f"the room was {word}" for word in ("good", "bad")])
    assert facts["mean_tokens"] == pytest.approx(float(rows.lengths.mean()))  # all sentences are of that form
    for row in facts["timings"]:
        assert row["milliseconds_per_row"] > 0 and row["rows_per_second"] > 0
        assert row["mean_layers"] == 4 if row["policy"] == "full depth" else 1 <= row["mean_layers"] <= 4
        assert (row["p95"] is not None) == (row["batch_size"] == 1) and (row["p95"] or 1) >= (row["p50"] or 0)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 256), (1000.0, 16)])
def test_fewer_rows_of_slow_models_are_timed(run, artifact, monkeypatch, seconds, expected):
    calls = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: seconds * next(calls))
    monkeypatch.setattr(bench, "time", clock)
    argv = ["bench", artifact, "--engines", "torch", "--batch-size", 32, "--repeats", 1, "--json"]
    assert run(*argv).json()["rows"] == expected
    assert run(*argv, "--rows", 20).json()["rows"] == 20


def test_load_time_is_reported(run, artifact):
    facts = run("bench", artifact, "--rows", 4, "--repeats", 1, "--json").json()
    assert set(facts["loaded"]) == {row["engine"] for row in facts["timings"]}
    assert all(took["seconds"] > 0 for took in facts["loaded"].values())
    if "native" in facts["loaded"]:
        assert facts["loaded"]["native"]["weight_bytes"] > 1000
    assert "Loaded torch in" in run("bench", artifact, "--rows", 4, "--repeats", 1).out


def test_fixed_row_length(run, artifact):
    argv = ["bench", artifact, "--engines", "torch", "--rows", 3, "--tokens", 7, "--repeats", 1, "--json"]
    facts = run(*argv, "--threads", 1).json()
    assert facts["mean_tokens"] == 7.0 and facts["machine"]["threads"] == 1


def test_number_of_threads(run, artifact):
    before = os.sched_getaffinity(0)
    finished = run("bench", artifact, "--engines", "torch", "--rows", 2, "--threads", 4096)
    assert finished.status == 1 and "cores" in finished.err
    with threads(1):
        assert len(os.sched_getaffinity(0)) == 1 or len(before) <= 2  # two siblings of one core may stay
    assert os.sched_getaffinity(0) == before


def test_unavailable_backend_is_an_error(run, artifact):
    finished = run("bench", artifact, "--engines", "torch", "nothing", "--rows", 2)
    assert finished.status == 1 and "nothing" in finished.err and not finished.out
