"""Tests of the orders in which the outputs of projections are read."""

import numpy as np
import pytest
import torch

from itrex_sweet.runtime.encoder import Linear, QuantizedLinear
from itrex_sweet.runtime.head_order import halves_of_neighbors, repeated_heads, with_outputs
from itrex_sweet.runtime.rotary_attention import rotate

HEADS, SIZE, TOKENS = 3, 8, 5
FREQUENCIES = torch.tensor([1.0, 0.3, 0.1, 0.01])


def rotated_neighbors(heads: np.ndarray) -> np.ndarray:
    """Multiplies the elements 2 i and 2 i + 1, as one complex number, by that of their angle."""
    pairs = heads[..., ::2] + 1j * heads[..., 1::2]
    turned = pairs * np.exp(1j * np.arange(TOKENS)[:, None] * FREQUENCIES.numpy())
    return np.stack([turned.real, turned.imag], axis=-1).reshape(heads.shape)


def test_scores_of_halves_equal_those_of_neighbors():
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, TOKENS, HEADS * SIZE))
    expected = np.einsum(
        "hid,hjd->hij",
        *(rotated_neighbors(each.reshape(TOKENS, HEADS, SIZE).swapaxes(0, 1)) for each in (query, key)),
    )
    order, positions = halves_of_neighbors(HEADS, SIZE), torch.arange(TOKENS)[None]
    heads = (torch.from_numpy(each[:, order]).view(1, TOKENS, HEADS, SIZE).transpose(1, 2) for each in (query, key))
    found = [rotate(each, positions, FREQUENCIES.double())[0].numpy() for each in heads]
    np.testing.assert_allclose(np.einsum("hid,hjd->hij", *found), expected, atol=1e-6)


def test_heads_repeat_side_by_side():
    states = torch.arange(2 * SIZE)
    expected = states.view(2, SIZE).repeat_interleave(3, dim=0).flatten()
    np.testing.assert_array_equal(states.numpy()[repeated_heads(2, 3, SIZE)], expected)


@pytest.mark.parametrize("has_bias", [True, False])
def test_outputs_of_layers_in_float_and_int8(has_bias):
    rng, order = np.random.default_rng(1), np.array([2, 0, 2])
    weight, bias, scale = rng.standard_normal((4, 3)), rng.standard_normal(4) if has_bias else None, rng.random(4)
    in_float = with_outputs(Linear(weight, bias), order)
    quantized = QuantizedLinear(weight.astype(np.int8), scale, bias, 0.1, 3, None)
    in_int8 = with_outputs(quantized, order)
    np.testing.assert_array_equal(in_float.weight, weight[order])
    np.testing.assert_array_equal(in_int8.dequantized().weight, quantized.dequantized().weight[order])
    for each in (in_float, in_int8):
        assert each.bias is None if bias is None else np.array_equal(each.bias, bias[order])
    assert (in_int8.input_scale, in_int8.input_zero_point) == (0.1, 3)
