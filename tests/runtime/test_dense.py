"""Tests that dense subgraphs, eager and traced, equal the reference backend for any content of the padding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.dense import build_subgraphs
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from tests.quantized_encoders import quantized, with_int8_words
from tests.tiny_models import FAMILY_CONFIGS, ROW_CONFIGS

EVERY_FAMILY = [*FAMILY_CONFIGS, *ROW_CONFIGS, *(f"{family}+private" for family in FAMILY_CONFIGS)]
CLOSE = dict(rtol=1e-4, atol=1e-5)


def a_batch(backend, seed: int = 0, rows: int = 6, longest: int = 11) -> TokenBatch:
    """Returns rows of many lengths, one of a single token, some with masked tokens inside."""
    rng = np.random.default_rng(seed)
    lengths = np.array([longest, 1, *rng.integers(2, longest, rows - 2)])
    ids = rng.integers(5, 60, (rows, longest))
    mask = np.arange(longest)[None, :] < lengths[:, None]
    mask[0, [2, 3, 7]] = False
    tables = backend.encoder.embeddings.token_types
    types = rng.integers(0, 1 if tables is None else len(tables), ids.shape)
    return TokenBatch.from_padded(ids, mask, types, backend.padding_idx)


def padded(batch: TokenBatch, length: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Returns ids, token types, positions and mask; ids in the padding are random."""
    mask = torch.arange(length)[None, :] < torch.from_numpy(batch.lengths)[:, None]
    ids = torch.from_numpy(rng.integers(5, 60, tuple(mask.shape)))
    types, positions = torch.zeros_like(ids), torch.zeros_like(ids)
    for tensor, values in ((ids, batch.input_ids), (types, batch.token_type_ids), (positions, batch.position_ids)):
        tensor[mask] = torch.from_numpy(values)
    return ids, types, positions, mask


def traced(encoder: Encoder, batch: tuple[torch.Tensor, ...]):
    """Traces each subgraph with this batch."""
    dense = build_subgraphs(encoder)
    states = dense.embed(*batch)
    rest = (batch[3], batch[2]) if dense.reads_positions else (batch[3],)
    trace = lambda module, inputs: torch.jit.freeze(torch.jit.trace(module, inputs, check_trace=False))  # noqa: E731
    return dataclasses.replace(
        dense,
        embed=trace(dense.embed, batch),
        probe=tuple(trace(module, (states, *rest)) for module in dense.probe),
        advance=tuple(trace(module, (states, *rest)) for module in dense.advance),
    )


@torch.inference_mode()
def logits_of(dense, batch: tuple[torch.Tensor, ...]) -> np.ndarray:
    """Returns the logits, (rows, exits, outputs)."""
    states = dense.embed(*batch)
    rest = (batch[3], batch[2]) if dense.reads_positions else (batch[3],)
    logits = []
    for place, probe in enumerate(dense.probe):
        logits.append(probe(states, *rest))
        if place < len(dense.advance):
            states = dense.advance[place](states, *rest)
    return torch.stack(logits, dim=1).numpy()


def expected(backend, batch: TokenBatch) -> np.ndarray:
    return Executor(backend, None).outputs_at_every_exit(batch)


@pytest.mark.parametrize("spare", [0, 5])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_equals_the_reference(backend_of, family, spare):
    backend = backend_of(family)
    batch = a_batch(backend)
    inputs = padded(batch, batch.lengths.max() + spare, np.random.default_rng(1))
    got = logits_of(build_subgraphs(backend.encoder), inputs)
    np.testing.assert_allclose(got, expected(backend, batch), **CLOSE)


@pytest.mark.parametrize("family", [*FAMILY_CONFIGS, "bert+private", "deberta-v2-conv+private"])
def test_traced_subgraphs_with_other_shapes(backend_of, family):
    backend = backend_of(family)
    rng = np.random.default_rng(2)
    dense = traced(backend.encoder, padded(a_batch(backend, seed=3, rows=3, longest=8), 8, rng))
    for rows, longest in ((6, 11), (2, 9), (5, 30)):
        batch = a_batch(backend, rows=rows, longest=longest)
        inputs = padded(batch, batch.lengths.max() + 1, rng)
        np.testing.assert_allclose(logits_of(dense, inputs), expected(backend, batch), **CLOSE)


def test_single_tokens(backend_of):
    backend = backend_of("bert")
    batch = TokenBatch.from_rows([[7], [9]])
    got = logits_of(build_subgraphs(backend.encoder), padded(batch, 1, np.random.default_rng(0)))
    np.testing.assert_allclose(got, expected(backend, batch), **CLOSE)


@pytest.mark.parametrize("recipe", ["static", "smooth", "dynamic", "mixed"])
@pytest.mark.parametrize("family", ["bert", "electra", "deberta-v3", "bert+private", "deberta+private", "modernbert"])
def test_int8_layers_equal_the_reference(backend_of, family, recipe):
    plain = backend_of(family)
    encoder = quantized(plain.encoder, recipe)
    batch = a_batch(plain)
    reference = expected(TorchBackend(plain.artifact, encoder), batch)
    inputs = padded(batch, batch.lengths.max() + 2, np.random.default_rng(1))
    for_trace = padded(a_batch(plain, seed=3, rows=3, longest=8), 9, np.random.default_rng(2))
    for dense in (build_subgraphs(encoder), traced(encoder, for_trace)):
        off = np.abs(logits_of(dense, inputs) - reference)
        assert np.median(off) < 1e-4
        assert off.max() < 0.02  # rounding may change a quantized input by one step
    assert np.abs(reference - expected(plain, batch)).max() > 1e-3  # it is not the float model that answered


@pytest.mark.parametrize("family", ["bert", "electra", "deberta-v3", "modernbert"])
def test_int8_word_embeddings_equal_the_reference(backend_of, family):
    plain = backend_of(family)
    encoder = with_int8_words(plain.encoder)
    batch = a_batch(plain)
    reference = expected(TorchBackend(plain.artifact, encoder), batch)
    inputs = padded(batch, batch.lengths.max() + 2, np.random.default_rng(1))
    for_trace = padded(a_batch(plain, seed=3, rows=3, longest=8), 9, np.random.default_rng(2))
    for dense in (build_subgraphs(encoder), traced(encoder, for_trace)):
        np.testing.assert_allclose(logits_of(dense, inputs), reference, **CLOSE)
    assert np.abs(reference - expected(plain, batch)).max() > 1e-4


def test_weights_are_shared(backend_of):
    encoder = backend_of("bert").encoder
    dense = build_subgraphs(encoder)
    of_first = encoder.trunk[0].up.weight.data_ptr()
    assert dense.advance[0].layers[0].rest.up.weight.data_ptr() == dense.probe[0].rest.up.weight.data_ptr() == of_first
