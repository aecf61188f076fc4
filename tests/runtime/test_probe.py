"""Tests that a probe equals the full layer before its exit, and that the last layer is never run in full."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm, linear, rms_norm

from itrex_sweet.artifact import write_artifact
from itrex_sweet.families import family_of
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.backends.torch import TorchBackend, _FullLayer, _run_head
from itrex_sweet.runtime.dense import build_subgraphs
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.norms import apply_norm
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import model_and_tensors
from tests.tiny_models import FAMILY_CONFIGS, ROW_CONFIGS, unrotated

TOLERANCE = 1e-4
EXITS = ((1, 2, 4), (3, 4), (4,))
ACTIVATIONS = {"tanh": torch.tanh, "gelu": torch.nn.functional.gelu, "relu": torch.relu}


def padded_batch(config, longest: int, seed: int = 0):
    """Returns right-padded rows of many lengths (one token, the longest), one with masked columns inside."""
    rng = np.random.default_rng(seed)
    lengths = [longest, 1, 5, 5, longest - 3, 2, 9, longest]
    ids = rng.integers(5, config.vocab_size, (len(lengths), longest))
    mask = (np.arange(longest)[None, :] < np.array(lengths)[:, None]).astype(int)
    mask[6, 3] = mask[7, 2] = mask[7, 3] = 0
    ids[mask == 0] = config.pad_token_id or 0
    if config.model_type == "mpnet":
        ids[6, 3] = ids[7, 2:4] = 6  # masked padding tokens between others do not count for its distances here
        ids[4, 2] = ids[0, 5] = config.pad_token_id  # not masked
    batch = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if getattr(config, "type_vocab_size", 0) > 1 and config.model_type != "distilbert":
        batch["token_type_ids"] = torch.tensor(rng.integers(0, config.type_vocab_size, ids.shape))
    return batch


def logits_of_full_layers(model, tensors, exits, batch):
    """Computes every exit's logits with full layers of transformers, private layers on the states of the model."""
    row = family_of(model.config)
    activation = ACTIVATIONS[row.activation_of_head(model.config)]
    own = states_of_private_layers(model, row, tensors, exits, batch["attention_mask"])
    with torch.inference_mode():
        output = model(**batch, output_hidden_states=True)
        logits = []
        for exit_ in exits[:-1]:

            def apply(function, path, states):
                weight, bias = (tensors.get(f"{path}.{part}") for part in ("weight", "bias"))
                if function is linear:
                    return linear(states, weight, bias)
                if row.model_type == "eurobert":
                    return rms_norm(states, states.shape[-1:], weight, model.config.rms_norm_eps)
                return layer_norm(states, states.shape[-1:], weight, bias, row.eps_of_norms(model.config))

            dense, classifier = row.head_paths(exit_, exits[-1], shares_pooler=False)
            final_norm, head_norm = row.norm_paths(exit_, exits[-1])
            states = own.get(exit_, output.hidden_states[exit_])[:, 0]
            states = apply(layer_norm, final_norm, states) if final_norm else states
            pooled = activation(apply(linear, dense, states))
            pooled = apply(layer_norm, head_norm, pooled) if head_norm else pooled
            logits.append(apply(linear, classifier, pooled))
        return torch.stack([*logits, output.logits], dim=1).numpy()


def states_of_private_layers(model, row, tensors, exits, mask):
    """Returns exit → states after its private layer, filled by the model's next forward."""
    found = {}
    for exit_ in exits[:-1]:
        path, shared = f"{row.private_layer_path(exit_)}.", model.get_submodule(f"{row.layers_path}.{exit_ - 1}")
        of_layer = {name.removeprefix(path): value for name, value in tensors.items() if name.startswith(path)}
        if of_layer:
            private = copy.deepcopy(shared)
            private.load_state_dict(of_layer)

            def run(_, args, kwargs, private=private, exit_=exit_):
                if row.attention == "rotary":
                    args, kwargs = unrotated(args, kwargs, mask)
                states = private(*args, **kwargs)
                found[exit_] = states[0] if isinstance(states, tuple) else states

            shared.register_forward_pre_hook(run, with_kwargs=True)
    return found


@pytest.mark.parametrize(
    ("family", "exits", "mode"),
    [
        *((family, exits, mode) for family in FAMILY_CONFIGS for exits in EXITS for mode in ("sweet", "decoupled")),
        *((family, EXITS[0], "decoupled") for family in ROW_CONFIGS),
    ],
    ids=str,
)
def test_probes_equal_full_layers(family, exits, mode, tmp_path):
    model, config, tensors = model_and_tensors(family, exits, mode=mode)
    backend = load_backend(write_artifact(tmp_path, config=config, tensors=tensors))
    batch = padded_batch(config, longest=backend.max_tokens or 48)
    packed = TokenBatch.from_padded(
        *(batch[name].numpy() for name in ("input_ids", "attention_mask")),
        batch["token_type_ids"].numpy() if "token_type_ids" in batch else None,
        backend.padding_idx,
    )
    got = Executor(backend, Policy.uniform(len(exits))).logits_at_every_exit(packed, batch_size=3)
    expected = logits_of_full_layers(model, tensors, exits, batch)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_a_scaled_rotation_applies_to_the_first_token(backend_of):
    """A probe for the first token equals the layer in full, which rotates every query."""
    encoder = backend_of("modernbert").encoder
    rotated = [dataclasses.replace(layer.rotary, scaling=1.7) for layer in encoder.trunk]
    trunk = [dataclasses.replace(layer, rotary=new) for layer, new in zip(encoder.trunk, rotated, strict=True)]
    last = dataclasses.replace(encoder.probes[-1], layer=trunk[-1])
    scaled = dataclasses.replace(encoder, segments=(tuple(trunk[:-1]),), probes=(last,))
    batch = TokenBatch.from_rows([[2, 7, 9, 11, 3], [2, 8, 3]])
    subgraphs = build_subgraphs(scaled)
    reference = TorchBackend(backend_of("modernbert").artifact, scaled)
    hidden = reference.embed(batch)
    states = reference._layer(_FullLayer.from_layer(trunk[-1]), hidden.states, hidden.groups())
    first = apply_norm(last.norm, states[torch.from_numpy(batch.cu_seqlens[:-1])])
    expected = _run_head(last.head, first, batch.cu_seqlens)
    np.testing.assert_allclose(reference.probe(0, hidden), expected, atol=1e-5)
    row = hidden.states[None, :5], torch.ones(1, 5, dtype=torch.bool), torch.arange(5)[None]
    np.testing.assert_allclose(subgraphs.probe[0](*row).detach(), expected[:1], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "bert+private"])
@pytest.mark.parametrize("threshold, full_layers", [(1.0, [0, 1, 2]), (0.0, [])])
def test_full_layers_run_only_for_remaining_rows(backend_of, monkeypatch, family, threshold, full_layers):
    backend = backend_of(family)
    run = []
    layer, trunk = backend._layer, [id(of_trunk) for of_trunk in backend.encoder.trunk]
    monkeypatch.setattr(
        backend, "_layer", lambda full, *rest: run.append(trunk.index(id(full.layer))) or layer(full, *rest)
    )
    batch = TokenBatch.from_rows([[2, 7, 3], [2, 9, 9, 3]])
    Executor(backend, Policy.uniform(3, threshold)).run(batch)
    assert run == full_layers  # layer 3, the last of four, is never run in full


def test_next_segment_gets_the_remaining_rows(backend_of, monkeypatch):
    backend = backend_of("bert")
    rows = [[2, word, word + 1, 3] for word in range(5, 45)]
    batch = TokenBatch.from_rows(rows)
    first = Executor(backend, Policy.uniform(3, 1.0)).logits_at_every_exit(batch)[:, 0]
    confidences = torch.softmax(torch.from_numpy(first), -1).amax(-1).numpy()
    threshold = float(np.median(confidences))
    tokens_run = []
    layer = backend._layer
    monkeypatch.setattr(
        backend, "_layer", lambda full, states, groups: tokens_run.append(len(states)) or layer(full, states, groups)
    )
    Executor(backend, Policy((threshold, 0.0), (1.0,) * 3), batch_size=len(rows)).run(batch)
    assert tokens_run == [4 * int((confidences <= threshold).sum())]


def test_cascade_equals_its_models(backend_of):
    cascade = backend_of("cascade")
    batch = TokenBatch.from_rows([[2, word, word + 2, 3] for word in range(5, 30)])
    together = Executor(cascade, Policy.uniform(3)).logits_at_every_exit(batch)
    for place, stage in enumerate(cascade.stages):
        alone = Executor(stage, Policy.uniform(1)).logits_at_every_exit(batch)[:, 0]
        np.testing.assert_allclose(together[:, place], alone, atol=1e-5)
        answers = Executor(
            cascade, Policy.uniform(3).with_threshold([0.0 if at == place else 1.0 for at in range(2)])
        ).run(batch)
        np.testing.assert_allclose(answers.logits, alone, atol=1e-5)
