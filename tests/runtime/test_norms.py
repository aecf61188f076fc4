"""RMSNorm and late pooling on every backend, in models of families that every release of transformers has."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from itrex_sweet.runtime.backends.ipex import IpexBackend
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.backends.openvino import OpenVinoBackend
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.encoder import Encoder, Norm
from itrex_sweet.runtime.native import library
from itrex_sweet.runtime.norms import apply_norm
from tests.quantized_encoders import quantized
from tests.runtime.conftest import loaded_or_skipped
from tests.runtime.test_ipex import all_logits, needs_ipex, some_rows
from tests.runtime.test_laws import NEEDS_NATIVE, NEEDS_OPENVINO

BACKENDS = [
    pytest.param(NativeBackend, marks=NEEDS_NATIVE),
    pytest.param(IpexBackend, marks=needs_ipex),
    pytest.param(OpenVinoBackend, marks=NEEDS_OPENVINO),
]


def with_rms_norms(encoder: Encoder, pooling: str = "late") -> Encoder:
    """Returns the encoder with RMSNorm in place of every layer norm, and another pooling of the last head."""
    done: dict[int, Any] = {}

    def changed(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(changed, part))
        if not dataclasses.is_dataclass(part):
            return part
        if id(part) not in done:
            values = {field.name: changed(getattr(part, field.name)) for field in dataclasses.fields(part)}
            values |= {"is_rms": True} if isinstance(part, Norm) else {}
            done[id(part)] = dataclasses.replace(part, **values)
        return done[id(part)]

    found = changed(encoder)
    last = dataclasses.replace(found.probes[-1], head=dataclasses.replace(found.probes[-1].head, pooling=pooling))
    return dataclasses.replace(found, probes=(*found.probes[:-1], last))


@pytest.mark.parametrize("has_bias", [True, False])
def test_norm_equals_that_of_torch(has_bias):
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (torch.randn(size, generator=generator) for size in ((4, 37), 37, 37))
    norm = Norm(weight, bias if has_bias else None, 1e-5, is_rms=True)
    expected = torch.nn.functional.rms_norm(states, (37,), weight, 1e-5) + (bias if has_bias else 0)
    torch.testing.assert_close(apply_norm(norm, states), expected)
    centered = apply_norm(dataclasses.replace(norm, is_rms=False), states)
    assert (centered - expected).abs().max() > 0.1


def test_squares_of_bfloat16_are_in_float32():
    states = torch.full((1, 4096), 3.0, dtype=torch.bfloat16) + torch.linspace(0, 0.1, 4096, dtype=torch.bfloat16)
    norm = Norm(torch.ones(4096), None, 1e-5, is_rms=True)
    expected = torch.nn.functional.rms_norm(states.float(), (4096,), None, 1e-5)
    torch.testing.assert_close(apply_norm(norm, states), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend_class", BACKENDS)
@pytest.mark.parametrize("pooling", ["late", "mean", "first"])
@pytest.mark.parametrize("family", ["bert", "megatron-bert", "modernbert", "modernbert-biases"])
def test_backends_equal_the_reference(backend_of, family, pooling, backend_class):
    plain = backend_of(family)
    encoder = with_rms_norms(plain.encoder, pooling)
    expected = all_logits(TorchBackend(plain.artifact, encoder), some_rows())
    got = all_logits(loaded_or_skipped(lambda: backend_class(plain.artifact, encoder=encoder)), some_rows())
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)
    assert np.abs(expected - all_logits(plain, some_rows())).max() > 0.05


@NEEDS_NATIVE
@pytest.mark.parametrize("isa", [isa for isa, reason in library.available().items() if reason is None])
@pytest.mark.parametrize("recipe", ["static", "dynamic"])
def test_int8_on_every_instruction_set(backend_of, recipe, isa):
    plain = backend_of("modernbert")
    encoder = quantized(with_rms_norms(plain.encoder), recipe)
    backend = NativeBackend(plain.artifact, encoder, isa=isa, threads=2, min_macs_per_thread=0)
    got, expected = all_logits(backend, some_rows()), all_logits(TorchBackend(plain.artifact, encoder), some_rows())
    error = np.abs(got - expected)
    assert np.median(error) < 1e-5 and error.max() < 0.2  # rounding may change a quantized input by one step
    np.testing.assert_array_equal(all_logits(backend, some_rows(), 1), got)


@pytest.mark.parametrize("backend_class", BACKENDS[:2])  # OpenVINO computes in float32 on some processors
def test_bfloat16_is_near_the_reference(backend_of, backend_class):
    plain = backend_of("modernbert")
    encoder = with_rms_norms(plain.encoder)
    backend = loaded_or_skipped(lambda: backend_class(plain.artifact, dtype="bfloat16", encoder=encoder))
    expected = all_logits(TorchBackend(plain.artifact, encoder), some_rows())
    off = np.abs(all_logits(backend, some_rows()) - expected)
    assert 1e-5 < off.max() < 0.15
