"""The simulated curve matches the executor; its ends are the first and the last exit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.evaluation import Curve, CurvePoint, ExitOutcomes
from itrex_sweet.evaluation.curve import make_curve, threshold_grid, timed_subset
from itrex_sweet.policy import Policy


def random_outcomes(rows, exits, labels, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, exits, labels)).astype(np.float32)
    depths = tuple(range(1, exits + 1))
    return ExitOutcomes(logits, rng.integers(0, labels, rows), depths, depths)


def test_simulated_points_match_the_executor(model, texts, labels, outcomes):
    grid = threshold_grid(outcomes, model.policy)
    assert len(grid) == 20
    curve = make_curve(outcomes, model.policy, grid)
    batch, layers_run = model.read(texts), np.array(model.artifact.layers_run)
    for point in curve.points:
        answers = model.executor.run(batch, model.policy.with_threshold(point.threshold))
        assert point.metric == pytest.approx(np.mean(answers.logits.argmax(axis=1) == np.array(labels)))
        assert point.mean_layers == pytest.approx(layers_run[answers.exit_index].mean())


def test_ends_are_the_first_and_the_last_exit(model, outcomes):
    curve = make_curve(outcomes, model.policy, threshold_grid(outcomes, model.policy))
    first, last = curve.points[0], curve.points[-1]
    right = outcomes.logits.argmax(axis=2) == outcomes.labels[:, None]
    assert (first.threshold, last.threshold) == (0.0, 1.0)
    assert first.mean_layers == model.artifact.layers_run[0] and first.metric == pytest.approx(right[:, 0].mean())
    assert last.mean_layers == model.artifact.layers_run[-1] and last.metric == pytest.approx(right[:, -1].mean())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60),
    exits=st.integers(1, 5),
    labels=st.integers(2, 4),
    points=st.integers(2, 30),
    seed=st.integers(0, 1000),
)
def test_thresholds_and_layers_increase(rows, exits, labels, points, seed):
    outcomes = random_outcomes(rows, exits, labels, seed)
    policy = Policy.uniform(exits)
    grid = threshold_grid(outcomes, policy, points)
    assert grid[0] == 0.0 and grid[-1] == 1.0 and len(grid) <= points
    assert list(grid) == sorted(set(grid))
    curve = make_curve(outcomes, policy, grid)
    layers = [point.mean_layers for point in curve.points]
    assert layers == sorted(layers)
    assert layers[0] == 1 and layers[-1] == exits
    metrics = [point.metric for point in curve.points]
    assert min(metrics) - 1e-9 <= curve.area <= max(metrics) + 1e-9


def test_thresholds_lie_between_confidences(outcomes, model):
    confidences = outcomes.confidences(model.policy)[:, :-1]
    for threshold in threshold_grid(outcomes, model.policy)[1:-1]:
        assert np.abs(confidences - threshold).min() > 1e-6


def test_rows_with_non_finite_logits_do_not_leave_early():
    outcomes = random_outcomes(20, 3, 2, 0)
    outcomes.logits[:5, 0] = np.nan
    curve = make_curve(outcomes, Policy.uniform(3), [0.0, 1.0])
    assert curve.points[0].mean_layers == pytest.approx((5 * 2 + 15 * 1) / 20)  # NaN never leaves early


def curve_of(*points: tuple[float, float], cheapest: int = 1, depth: int = 4) -> Curve:
    made = [CurvePoint(place / 10, metric, layers) for place, (layers, metric) in enumerate(points)]
    return Curve(tuple(made), cheapest, depth, 100)


def test_area_under_the_curve():
    assert curve_of((1, 0.8), (4, 0.8)).area == pytest.approx(0.8)
    assert curve_of((1, 0.5), (4, 1.0)).area == pytest.approx(0.75)
    # A trapezium of width 1 and heights 0.6, 0.9, then 2 at 0.9.
    assert curve_of((1, 0.6), (2, 0.9), (4, 0.9)).area == pytest.approx((0.75 + 2 * 0.9) / 3)
    # Costs of a cascade above the depth are ignored: at 4 layers its metric is 0.8.
    assert curve_of((1, 0.5), (7, 1.1)).area == pytest.approx((0.5 + 0.8) / 2)
    assert curve_of((1, 0.5), (3, 0.7), (5, 0.7), (7, 0.1)).area == pytest.approx((2 * 0.6 + 0.7) / 3)
    assert curve_of((4, 0.9), (4, 0.9), cheapest=4).area == pytest.approx(0.9)


def test_timed_points_include_both_ends_and_are_spaced():
    thresholds = [place / 19 for place in range(20)]
    layers = [1.0] * 10 + [1 + 5 * place / 9 for place in range(10)]
    timed = timed_subset(thresholds, layers, 5)
    assert timed[0] == 0.0 and timed[-1] == 1.0 and len(timed) == 5
    ratios = np.diff(np.log([layers[thresholds.index(value)] for value in timed]))
    assert ratios.min() > 0.3 and ratios.max() < 0.6, "even in the logarithm, no cost twice"
    assert timed_subset(thresholds, layers, 0) == ()
    assert timed_subset(thresholds, layers, 50) == tuple(thresholds)


def test_speedups_are_relative_to_full_depth():
    curve = make_curve(
        random_outcomes(9, 2, 2, 0), Policy.uniform(2), [0.0, 0.7, 1.0], milliseconds={0.0: 2.0, 1.0: 8.0}
    )
    assert [point.speedup for point in curve.points] == [4.0, None, 1.0]
    assert [point.milliseconds for point in curve.points] == [2.0, None, 8.0]
