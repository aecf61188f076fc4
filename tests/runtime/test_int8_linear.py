"""Tests of the INT8 reference: exact int32 sums, and outputs near those of the float layer."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.runtime import int8_linear
from itrex_sweet.runtime.encoder import Linear, QuantizedLinear


def layer_of(weight: torch.Tensor, bias=None, *, smoothing=None, scale=None, zero_point=None) -> QuantizedLinear:
    folded = weight if smoothing is None else weight / smoothing
    scales = folded.abs().amax(dim=1) / 127
    return QuantizedLinear(
        torch.round(folded / scales[:, None]).to(torch.int8), scales, bias, scale, zero_point, smoothing
    )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 5),
    size=st.integers(1, 700),
    out=st.integers(1, 9),
    zero=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_int_matmul_equals_int32_sums(rows, size, out, zero, seed):
    generator = np.random.default_rng(seed)
    quantized = generator.integers(0, 256, (rows, size), dtype=np.uint8)
    weight = generator.integers(-127, 128, (out, size), dtype=np.int8)
    expected = (quantized.astype(np.int32) - zero) @ weight.astype(np.int32).T
    sums = int8_linear.int_matmul(torch.from_numpy(quantized), torch.tensor([[zero]]), torch.from_numpy(weight))
    assert sums.dtype == torch.int32
    np.testing.assert_array_equal(sums.numpy(), expected)


def test_largest_sums_are_exact():
    quantized, weight = torch.full((1, 4097), 255, dtype=torch.uint8), torch.full((1, 4097), 127, dtype=torch.int8)
    assert int8_linear.int_matmul(quantized, torch.tensor([[0]]), weight).item() == 4097 * 255 * 127


def test_quantization_rounds_ties_to_even_and_saturates():
    states = torch.tensor([[0.5, 1.5, -0.5, 300.0, -300.0, float("nan")]])
    quantized = int8_linear.quantize(states, torch.tensor([[1.0]]), torch.tensor([[10]]))
    assert quantized.tolist() == [[10, 12, 10, 255, 0, 10]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20))
def test_per_row_parameters_cover_the_row(values):
    states = torch.tensor([values])
    scale, zero_point = int8_linear.per_row_qparams(states)
    back = (int8_linear.quantize(states, scale, zero_point).float() - zero_point) * scale
    assert 0 <= zero_point.item() <= 255
    assert (back - states).abs().max() <= 1.01 * scale.item() or states.abs().max() < 1e-30


def test_constant_rows_have_a_positive_scale():
    scale, zero_point = int8_linear.per_row_qparams(torch.tensor([[0.0, 0.0], [3.0, 3.0], [-2.0, -2.0]]))
    assert torch.isfinite(scale).all()
    assert scale[0].item() == 1.0
    assert zero_point.flatten().tolist() == [0, 0, 255]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("per_row", [False, True])
def test_output_is_near_the_float_layer(smooth, per_row):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(24, 64, generator=generator), torch.randn(24, generator=generator)
    states = torch.randn(30, 64, generator=generator)
    smoothing = 0.5 + torch.rand(64, generator=generator) if smooth else None
    seen = states if smoothing is None else states * smoothing
    scale = None if per_row else ((seen.max() - seen.min()) / 255).item()
    zero_point = None if per_row else int(torch.round(-seen.min() / scale))
    layer = layer_of(weight, bias, smoothing=smoothing, scale=scale, zero_point=zero_point)
    exact = torch.nn.functional.linear(states, weight, bias)
    assert (int8_linear.int8_linear(layer, states) - exact).norm() / exact.norm() < 0.02
    from_float = layer.dequantized()
    assert isinstance(from_float, Linear)
    assert (from_float.weight - weight).norm() / weight.norm() < 0.02
    worse = dataclasses.replace(layer, weight_scale=layer.weight_scale * 1.1)
    assert (int8_linear.int8_linear(worse, states) - exact).norm() / exact.norm() > 0.05


def test_rows_are_independent_with_scales_per_row():
    generator = torch.Generator().manual_seed(1)
    layer = layer_of(torch.randn(8, 16, generator=generator))
    states = torch.randn(4, 16, generator=generator) * torch.tensor([[0.01], [1.0], [100.0], [3.0]])
    together = int8_linear.int8_linear(layer, states)
    for row in range(4):
        torch.testing.assert_close(together[row : row + 1], int8_linear.int8_linear(layer, states[row : row + 1]))
