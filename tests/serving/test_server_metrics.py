"""Metrics of a server: their values, and their format as Prometheus' own parser reads it."""

import numpy as np
import pytest

from itrex_sweet.serving.exposition import Exposition
from itrex_sweet.serving.histogram import Histogram, quantiles
from itrex_sweet.serving.metrics import metrics_text
from itrex_sweet.serving.observer import Observer
from tests.serving.observed import add_model, answer

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed: the extra [test]")


def read(text: str) -> dict:
    """Returns the samples of a document: {(name, sorted labels): value}; checks that names and series occur once.

    The parser adds `_total` to the names of counters that lack it, which are those of text-embeddings-inference.
    """
    samples, names = {}, []
    for family in parser.text_string_to_metric_families(text):
        names.append(family.name)
        for sample in family.samples:
            name = sample.name.removesuffix("_total") if sample.name.startswith("te_") else sample.name
            key = (name, *sorted(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    assert len(names) == len(set(names))
    return samples


@pytest.fixture()
def observer():
    observer = Observer()
    add_model(observer)
    return observer


def test_requests_and_rows_are_counted(observer):
    model = observer.models["m"]
    answer(observer, model, [0])
    answer(observer, model, [0, 1, 2], late=[False, True, False], batch=True, lengths=[1, 2, 300])
    answer(observer, model, [2, 2], quality=0.5, batch=True)
    observer.begin("/predict").failed(429, "overloaded")
    observer.begin("/predict").failed(422, "tokenizer")
    waiting = observer.begin("/predict")
    found = read(metrics_text(observer))

    def of(name, **labels):
        return found[(name, *sorted(labels.items()))]

    assert of("te_request_count", method="single") == 3 and of("te_request_count", method="batch") == 2
    assert of("te_request_success", method="single") == 1 and of("te_request_success", method="batch") == 2
    assert of("te_request_failure", err="overloaded") == of("te_request_failure", err="tokenization") == 1
    assert of("te_predict_count") == of("te_request_input_length_count") == 6
    assert of("te_request_input_length_sum") == 5 + 303 + 10
    assert of("te_request_input_length_bucket", le="2") == 2  # bounds are included
    assert of("te_request_duration_count") == 3 and of("te_predict_duration_count") == 6
    assert of("te_request_queue_duration_sum") == pytest.approx(3 * 0.002)
    assert of("te_request_tokenization_duration_sum") == pytest.approx(3 * 0.001)
    assert of("te_predict_inference_duration_sum") == pytest.approx(6 * 0.003)
    assert of("te_queue_size") == 4
    assert of("itrex_sweet_rows_total", model="m", exit="1", stopped_by="confidence") == 2
    assert of("itrex_sweet_rows_total", model="m", exit="4", stopped_by="deadline") == 1
    assert of("itrex_sweet_rows_total", model="m", exit="6", stopped_by="full_depth") == 3
    assert of("itrex_sweet_layers_saved_total", model="m") == 5 + 5 + 2
    assert of("itrex_sweet_layers_full_total", model="m") == 6 * 6
    assert of("itrex_sweet_degraded_rows_total", model="m") == 2
    assert of("itrex_sweet_queue_rows", model="m", exit="1") == 3
    assert of("itrex_sweet_queue_tokens", model="m", exit="4") == 20
    assert of("itrex_sweet_quality", model="m") == 0.75
    assert of("itrex_sweet_requests_in_flight") == 1
    assert of("itrex_sweet_info", model="m", version=found_version(found), backend="native") == 1
    assert of("itrex_sweet_request_duration_seconds_count", model="m", route="/predict") == 3
    waiting.succeeded()
    assert read(metrics_text(observer))[("itrex_sweet_requests_in_flight",)] == 0


def found_version(found: dict) -> str:
    (labels,) = [dict(key[1:]) for key in found if key[0] == "itrex_sweet_info"]
    return labels["version"]


def test_many_requests_are_counted_once(observer):
    """Requests are counted in groups; none is left out and none is counted twice at the border of two groups."""
    for count in range(1, 400):
        answer(observer, observer.models["m"], [count % 3])
        if count % 150 == 0:
            metrics_text(observer)
    found = read(metrics_text(observer))
    assert found[("te_request_count", ("method", "single"))] == 399
    exits = [
        sum(value for key, value in found.items() if key[0] == "itrex_sweet_rows_total" and ("exit", exit_) in key)
        for exit_ in ("1", "4", "6")
    ]
    assert exits == [133, 133, 133]


def test_a_request_ends_once(observer):
    seen = answer(observer, observer.models["m"], [0])
    seen.failed(424, "backend")
    found = read(metrics_text(observer))
    assert not [key for key in found if key[0] == "te_request_failure"]
    assert found[("itrex_sweet_requests_in_flight",)] == 0


def test_segments_are_counted_by_exit(observer):
    model = observer.models["m"]
    for exit_index, rows, tokens, seconds in ((0, 32, 800, 0.01), (0, 4, 100, 0.002), (2, 8, 200, 0.03)):
        model.segment_ran(exit_index, rows, tokens, seconds)
    for _ in range(2):  # a second reading counts nothing again
        found = read(metrics_text(observer))
        assert found[("itrex_sweet_segments_total", ("exit", "1"), ("model", "m"))] == 2
        assert found[("itrex_sweet_segment_rows_total", ("exit", "6"), ("model", "m"))] == 8
        assert found[("itrex_sweet_segment_seconds_total", ("exit", "1"), ("model", "m"))] == pytest.approx(0.012)
        assert found[("te_batch_next_size_sum", ("model", "m"))] == 36
        assert found[("te_batch_next_tokens_bucket", ("le", "128"), ("model", "m"))] == 1


def test_a_replaced_model_continues_its_counts(observer):
    before = observer.models["m"]
    answer(observer, before, [0, 1])
    after = add_model(observer)
    answer(observer, after, [2])
    answer(observer, before, [0])  # began before the replacement
    answer(observer, before, [0], quality=0.5)
    observer.count()
    assert after.rows.sum() == 5 and after.degraded == 1 and after.drift.rows == 1
    found = read(metrics_text(observer))
    assert found[("te_predict_count",)] == 5
    observer.remove_model("m")
    assert not [key for key in read(metrics_text(observer)) if ("model", "m") in key]


def test_label_values_are_escaped():
    document = Exposition()
    value = 'a"b\\c\nd'
    document.gauge("x", "A line\nand\\another.", [({"model": value}, 1.5)])
    assert read(document.text()) == {("x", ("model", value)): 1.5}


def test_histograms_are_cumulative():
    histogram = Histogram((1.0, 2.0, 4.0))
    values = np.array([0.5, 1.0, 1.5, 2.0, 9.0])
    histogram.add(values[:2])
    histogram.add(values[2:])
    document = Exposition()
    document.histogram("h", "Values.", [({"a": "b"}, histogram)])
    found = read(document.text())
    for bound in ("1", "2", "4"):
        assert found[("h_bucket", ("a", "b"), ("le", bound))] == (values <= float(bound)).sum()
    assert found[("h_bucket", ("a", "b"), ("le", "+Inf"))] == found[("h_count", ("a", "b"))] == 5
    assert found[("h_sum", ("a", "b"))] == values.sum()


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_within_a_bucket_of_the_true_ones(seed):
    values = np.random.default_rng(seed).lognormal(0, 1, 500)
    bounds = 0.01 * 1.15 ** np.arange(80)
    counts = np.bincount(np.searchsorted(bounds, values), minlength=81)
    found = quantiles(bounds, np.stack([counts, np.zeros_like(counts)]), (0.05, 0.5, 0.95, 0.99))
    np.testing.assert_allclose(found[0], np.quantile(values, (0.05, 0.5, 0.95, 0.99), method="inverted_cdf"), rtol=0.16)
    assert np.isnan(found[1]).all()
