"""INT8 weights of private layers are as accurate as those of the trunk's layers, in every family and recipe."""

import copy

import numpy as np
import pytest
import torch

from itrex_sweet.artifact import write_artifact
from itrex_sweet.config import SweetConfig
from itrex_sweet.families import family_of
from itrex_sweet.quantization import worker
from itrex_sweet.quantization.inc_linears import CalibrationInputs, layers_by_input
from itrex_sweet.quantization.observation import LinearObservation
from itrex_sweet.quantization.packing import pack
from itrex_sweet.runtime.backends import torch as torch_backend
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.encoder import float_of
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.weights import load_encoder
from tests.tiny_artifacts import model_and_tensors, random_rows
from tests.tiny_models import FAMILY_CONFIGS, FIRST_TOKEN, ROW_CONFIGS

EXITS = (1, 2, 4)


def rows_of(seed: int, count: int = 256) -> TokenBatch:
    """Returns random rows that begin with the same token, as a tokenizer makes them."""
    rows = random_rows(np.random.default_rng(seed), [5, 9, 17, 30] * (count // 4))
    return TokenBatch.from_rows([[FIRST_TOKEN, *row[1:]] for row in rows])


@pytest.fixture(scope="module", params=[*FAMILY_CONFIGS, *ROW_CONFIGS])
def artifacts(request, tmp_path_factory):
    """Artifacts with the same weights and heads, whose exits probe the trunk's layers or private copies of them."""
    folder = tmp_path_factory.mktemp(request.param)
    model, config, tensors = model_and_tensors(request.param, EXITS)
    shared = write_artifact(folder / "shared", config=config, tensors=tensors)
    config, row = copy.deepcopy(config), family_of(model.config)
    config.sweet = SweetConfig(exits=EXITS, mode="decoupled").to_dict()
    for exit_ in EXITS[:-1]:
        layer, path = f"{row.layers_path}.{exit_ - 1}.", row.private_layer_path(exit_)
        copies = {name.replace(layer, f"{path}."): value for name, value in tensors.items() if name.startswith(layer)}
        tensors = {**tensors, **{name: value.clone() for name, value in copies.items()}}
    return shared, write_artifact(folder / "private", config=config, tensors=tensors)


@pytest.fixture(scope="module")
def inputs(artifacts):
    """Returns what the linear layers of each artifact read: their names by input, the inputs, those for smoothing."""
    found = []
    for artifact in artifacts:
        model, private = worker._float_model(artifact), artifact.private_exits
        row = family_of(model.config)
        layers = layers_by_input(row, model.config.num_hidden_layers, private)

        def collected(*arguments, **options):
            return [torch.cat(states) for states in zip(*CalibrationInputs(*arguments, **options), strict=True)]

        arguments = (model, row, layers, rows_of(0), 8, lambda *_: None, private)
        found.append((layers, collected(*arguments), collected(*arguments, for_smoothing=True)))
    return found


def observe(artifact, inputs, recipe) -> dict[str, LinearObservation]:
    """Observes as the worker does; SmoothQuant's factors are computed here (arXiv 2211.10438, equation 4)."""
    weights, observed = artifact.tensors(), {}
    for names, states, smoothed in zip(*inputs, strict=True):
        parts, factors = [weights[f"{name}.weight"] for name in names], None
        if recipe == "smooth":
            factors = (torch.cat(parts).abs().amax(0) / smoothed.abs().amax(0)).sqrt()
            states, parts = states * factors, [part / factors for part in parts]
        scale = (states.max().clamp(min=0) - states.min().clamp(max=0)).item() / 255
        zero_point = round(-min(states.min().item(), 0.0) / scale)
        for name, part in zip(names, parts, strict=True):
            observed[name] = LinearObservation(part.abs().amax(1) / 127, scale, zero_point, factors)
    return observed


def logits(artifact, rows, tensors=None) -> np.ndarray:
    encoder = load_encoder(artifact, artifact.tensors() if tensors is None else tensors)
    return Executor(TorchBackend(artifact, encoder), artifact.policy).logits_at_every_exit(rows)


def test_key_and_value_weights_suit_all_tokens(artifacts, inputs):
    """The weights of a private layer's keys and values multiply the states of all tokens."""
    rows, errors = rows_of(1), []
    for artifact, read in zip(artifacts, inputs, strict=True):
        packed = pack(artifact.tensors(), observe(artifact, read, "smooth"))
        backend = TorchBackend(artifact, load_encoder(artifact, packed))
        exact = TorchBackend(artifact)
        hidden, found = exact.embed(rows), []
        for place in range(len(EXITS) - 1):
            layers = [each.encoder.probes[place].layer for each in (exact, backend)]
            entering = exact._normed_before_attention(layers[0], hidden.states)
            for name in ("key", "value"):
                before, after = (entering @ float_of(getattr(layer, name)).weight.T for layer in layers)
                found.append(((after - before).norm() / before.norm()).item())
            hidden = exact.advance(place, hidden)
        errors.append(found)
    shared, private = errors
    assert 0 < max(shared) < 0.05
    assert np.all(np.array(private) < 1.2 * np.array(shared)), errors


@pytest.mark.parametrize("recipe", ["static", "smooth"])
def test_private_exits_err_as_the_full_layers(artifacts, inputs, recipe):
    rows, errors = rows_of(1, 96), []
    for artifact, read in zip(artifacts, inputs, strict=True):
        exact = logits(artifact, rows)
        found = logits(artifact, rows, pack(artifact.tensors(), observe(artifact, read, recipe))) - exact
        errors.append(np.sqrt(np.square(found).mean((0, 2))) / exact.std(0).mean(-1))
    shared, private = errors
    assert np.all(private < 0.03 + 1.3 * shared), errors


def test_smoothing_alone_does_not_change_the_function(artifacts, inputs, monkeypatch):
    """Every place that reads a smoothed weight applies the factors: only rounding of inputs is left out here."""

    def without_rounding(layer, states):
        states = states if layer.input_smoothing is None else states * layer.input_smoothing
        return torch.nn.functional.linear(states, layer.weight * layer.weight_scale[:, None], layer.bias)

    monkeypatch.setattr(torch_backend, "int8_linear", without_rounding)
    for artifact, read in zip(artifacts, inputs, strict=True):
        packed = pack(artifact.tensors(), observe(artifact, read, "smooth"))
        float_weights = artifact.tensors()
        for name in list(float_weights):
            path = name.removesuffix(".weight")
            if f"{path}.input_smoothing" in packed:
                weight = packed[name] * packed[f"{path}.weight_scale"][:, None]
                float_weights[name] = weight * packed[f"{path}.input_smoothing"]
        rows = rows_of(2, 16)
        np.testing.assert_allclose(logits(artifact, rows, packed), logits(artifact, rows, float_weights), atol=1e-5)
