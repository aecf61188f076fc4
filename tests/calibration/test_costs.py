"""Costs of rows in layers and by a table, and the measurement of the table."""

import json
import time

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification, open_artifact
from itrex_sweet.artifact import copy_artifact
from itrex_sweet.calibration import cost_measurement
from itrex_sweet.calibration.cost_measurement import cost_table, measure_costs
from itrex_sweet.calibration.costs import CostTable, RowCosts
from itrex_sweet.criteria import is_switched_off
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import random_rows, tiny_artifact, tiny_tokenizer

EXITS = 3
REAL = np.array([[0.0, 1.0], [2.0, 1.5]])  # for batches of 4: 2 ms and a factor of 1.5


@pytest.fixture
def model(tmp_path):
    tiny_artifact(tmp_path / "model", tokenizer=tiny_tokenizer())
    return SweetModelForSequenceClassification.from_pretrained(tmp_path / "model", backend="torch")


def make_batch(*lengths: int) -> TokenBatch:
    return TokenBatch.from_rows(random_rows(np.random.default_rng(0), list(lengths)))


def make_table(**facts) -> CostTable:
    """Returns a table for batches of 1 and 4, lengths 8 and 16: 1 or 0.5 ms per token and exit."""
    through = np.array([[[8.0, 16.0], [4.0, 8.0]]]) * np.arange(1, EXITS + 1)[:, None, None]
    return CostTable((1, 4), (8, 16), through, np.array([[0.8, 1.6], [0.4, 0.8]]), REAL, facts)


def test_costs_include_the_probes_of_enabled_earlier_exits():
    costs = RowCosts(np.tile([10.0, 20.0, 40.0], (4, 1)), np.array([1.0, 2.0, 3.0, 4.0]))
    leaving = np.array([0, 1, 2, 2])
    on, off = Policy((0.5, 0.5), (1.0,) * 3), Policy((1.0, 0.5), (1.0,) * 3)
    assert costs.under(on, leaving).tolist() == [10.0, 22.0, 46.0, 48.0]
    assert costs.under(off, leaving).tolist() == [10.0, 20.0, 43.0, 44.0]
    backward = Policy((1.0, 0.5), (1.0,) * 3, "patience")  # needs every exit
    assert costs.under(backward, leaving).tolist() == [10.0, 22.0, 46.0, 48.0]
    assert costs.select(np.array([3])).under(off, leaving[3:]).tolist() == [44.0]
    assert RowCosts.from_layers((1, 2, 4), 2).under(on, np.array([2, 0])).tolist() == [4.0, 1.0]


def test_table_interpolates_between_entries():
    table = make_table()
    alone = table.of(np.array([8, 12, 16]), 1)
    np.testing.assert_allclose(alone.through[:, 0], [8.0, 12.0, 16.0])
    np.testing.assert_allclose(alone.through[:, 2], [24.0, 36.0, 48.0])
    np.testing.assert_allclose(alone.probe, [0.8, 1.2, 1.6])
    four = table.of(np.array([8]), 4)
    np.testing.assert_allclose(four.through[0], 2.0 + 1.5 * np.array([4.0, 8.0, 12.0]))
    np.testing.assert_allclose(four.probe, 1.5 * 0.4)
    np.testing.assert_allclose(table.of(np.array([8]), 2).through[0, 0], 1.0 + 1.25 * 6.0)  # halfway in the logarithm
    negative = CostTable((1,), (8, 16), table.through[:, :1], table.probe[:1], np.array([[-9.0, 1.0]]), {})
    np.testing.assert_allclose(negative.of(np.array([8]), 1).through[0], [0.0, 7.0, 15.0])
    assert table.covers(np.array([1, 16]), 3) and not table.covers(np.array([17]), 1)
    assert not table.covers(np.array([8]), 8)


def test_measured_costs_match_a_simulated_clock(model, monkeypatch):
    """The executor advances a simulated clock; batches of mixed lengths take 1.5 times as long, plus 2 ms per row."""
    now, answer = [0.0], model.executor.run

    def run(batch, policy=None, batch_size=None, deadline=None):
        leaving = answer(batch, policy).exit_index
        on = np.cumsum([0, *(not is_switched_off(policy, place) for place in range(EXITS - 1))])
        taken = (batch.lengths * (1 + leaving) + 0.1 * on[leaving] * batch.lengths).sum()
        now[0] += 1e-3 * float(taken if len(set(batch.lengths)) == 1 else 1.5 * taken + 2.0 * len(batch))

    monkeypatch.setattr(model.executor, "run", run)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    batch = make_batch(5, 9, 20, 27)
    table = measure_costs(model, batch, (1, 8), "max_probability")
    assert table.lengths == (4, 8, 16, 32) and table.batch_sizes == (1, 8)
    np.testing.assert_allclose(table.through, np.tile(np.arange(1, 4)[:, None, None] * [4, 8, 16, 32], (1, 2, 1)))
    np.testing.assert_allclose(table.probe, np.tile(0.1 * np.array([4, 8, 16, 32]), (2, 1)), rtol=1e-6)
    # One at a time every batch has one length.
    np.testing.assert_allclose(table.on_real_rows, [[0.0, 1.0], [2.0, 1.5]], atol=1e-6)
    costs = table.of(batch.lengths, 8)
    np.testing.assert_allclose(costs.through, 2.0 + 1.5 * batch.lengths[:, None] * [1.0, 2.0, 3.0])


def test_slow_models_are_measured_with_few_calls_and_rows(model, monkeypatch):
    now, calls, answer = [0.0], [], model.executor.run

    def run(batch, policy=None, batch_size=None, deadline=None):
        calls.append((len(batch), len(set(batch.lengths.tolist()))))
        now[0] += 2.0 * len(batch)
        return answer(batch, policy)

    monkeypatch.setattr(model.executor, "run", run)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    batch = make_batch(*np.random.default_rng(0).integers(5, 9, size=500))
    table = measure_costs(model, batch, (8,), "max_probability")
    np.testing.assert_allclose(table.through, 2000.0)
    entries = [rows for rows, lengths in calls if lengths == 1]
    assert len(entries) == 2 * (EXITS + 1) * len(table.lengths)
    corrections = [rows for rows, lengths in calls[1:] if lengths > 1]  # the first call warms up
    assert set(corrections) == {cost_measurement._CORRECTION_ROWS[0]}


def test_stored_table_is_used_only_where_it_is_valid(model, tmp_path, monkeypatch):
    batch = make_batch(3, 4, 7)
    table = measure_costs(model, batch, (1, 8), "max_probability")
    assert (table.through > 0).all() and (table.probe >= 0).all()
    written = copy_artifact(model.artifact, tmp_path / "kept", costs=table.to_dict())
    assert written.costs == json.loads(json.dumps(table.to_dict()))
    again = copy_artifact(open_artifact(written.directory), tmp_path / "copied")
    assert again.costs == written.costs
    kept = SweetModelForSequenceClassification(again, backend="torch")

    def unneeded(*_):
        raise AssertionError("measured although a table is there")

    with monkeypatch.context() as patch:
        patch.setattr(cost_measurement, "measure_costs", unneeded)
        used = cost_table(kept, batch, 8, "max_probability")
        np.testing.assert_allclose(used.through, table.through, atol=1e-5)
        assert used.facts == table.facts
        for other in (make_batch(3, 40), 64, "entropy"):
            with pytest.raises(AssertionError, match="measured"):
                asked = [batch, 8, "max_probability"]
                asked[{TokenBatch: 0, int: 1, str: 2}[type(other)]] = other
                cost_table(kept, *asked)
    costs = dict(again.costs, processor="another one")
    elsewhere = copy_artifact(again, tmp_path / "elsewhere", costs=costs)
    assert CostTable.stored_for(SweetModelForSequenceClassification(elsewhere, backend="torch"), "margin") is None
    kept_there = SweetModelForSequenceClassification(elsewhere, backend="torch")
    assert CostTable.stored_for(kept_there, "max_probability") is None
