"""Buckets of relative positions equal those of transformers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.deberta.modeling_deberta import build_relative_position
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from itrex_sweet.runtime.position_bias import biases
from itrex_sweet.runtime.relative_positions import position_bias, relative_index

REACH = 2048


def index_of(log_buckets: int, max_distance: int) -> np.ndarray:
    model = SimpleNamespace(log_buckets=log_buckets, max_distance=max_distance, buckets=log_buckets or max_distance)
    return relative_index(model, REACH)


@pytest.mark.parametrize(
    ("buckets", "max_distance"),
    [(256, 512), (256, 1024), (128, 512), (64, 512), (32, 128), (8, 24), (8, 64), (48, 100), (7, 30), (2, 16)],
)
def test_log_buckets_equal_those_of_transformers(buckets, max_distance):
    distances = torch.arange(1 - REACH, REACH)
    expected = make_log_bucket_position(distances, buckets, max_distance).long() + buckets
    np.testing.assert_array_equal(index_of(buckets, max_distance), expected.clamp(0, 2 * buckets - 1).numpy())


def test_distances_without_buckets_equal_those_of_transformers():
    states = torch.zeros(1, 40, 4)
    expected = build_relative_position(states, states).clamp(-16, 15)[0] + 16
    index = index_of(0, 16)
    places = np.arange(40)
    np.testing.assert_array_equal(index[places[:, None] - places + REACH - 1], expected.numpy())


def test_biases_equal_those_of_transformers():
    table = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
    of_distances = position_bias(table, REACH)
    distances = torch.arange(1 - REACH, REACH)
    buckets = MPNetEncoder.relative_position_bucket(distances)
    np.testing.assert_array_equal(of_distances, table[buckets.numpy()].T)
    positions = torch.tensor([[0, 2, 300, 299]])
    found = biases(torch.from_numpy(position_bias(table, 200)), positions, positions)
    expected = table[MPNetEncoder.relative_position_bucket(positions[0][None] - positions[0][:, None]).numpy()]
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), expected)  # distances beyond 199 are in the last bucket
