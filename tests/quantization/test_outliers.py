"""Smoothing and recipes on models whose norms have outlier channels, as ModernBERT and DeBERTa have them."""

import logging

import numpy as np
import pytest
import torch

from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.artifact import write_artifact
from itrex_sweet.families import family_of
from itrex_sweet.quantization import quantizer as quantizer_file
from itrex_sweet.quantization.packing import pack, quantizable_layers
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.weights import load_encoder
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import WORDS, model_and_tensors, random_rows, tiny_tokenizer

EXITS = (1, 2, 4)
CHANNELS, FACTOR = (3, 17), 60.0


def add_outliers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scales two channels of each norm before a linear layer, and divides that layer's columns: the same function."""
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    for norm, linear in (("attn_norm", "attn.Wqkv"), ("mlp_norm", "mlp.Wi")):
        for name in tensors:
            if name.endswith(f"{norm}.weight"):
                path = name.removesuffix(f"{norm}.weight")
                for channel in CHANNELS:
                    changed[name][channel] *= FACTOR
                    if f"{path}{norm}.bias" in changed:
                        changed[f"{path}{norm}.bias"][channel] *= FACTOR
                    changed[f"{path}{linear}.weight"][:, channel] /= FACTOR
    return changed


@pytest.fixture(scope="module", params=["modernbert", "modernbert-biases"])
def artifacts(request, tmp_path_factory):
    """Artifacts of a pre-norm model with gates, and of the same model with outliers."""
    folder = tmp_path_factory.mktemp("outliers")
    _, config, tensors = model_and_tensors(request.param, EXITS)
    return [
        write_artifact(folder / name, config=config, tensors=each)
        for name, each in (("plain", tensors), ("outliers", add_outliers(tensors)))
    ]


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return TokenBatch.from_rows(random_rows(rng, [5, 9, 17, 30] * 6))


def logits(artifact, batch, tensors=None) -> np.ndarray:
    encoder = load_encoder(artifact, artifact.tensors() if tensors is None else tensors)
    return Executor(TorchBackend(artifact, encoder), artifact.policy).logits_at_every_exit(batch)


def test_smoothing_does_not_change_the_float_function(artifacts, batch):
    """Weights divided by the factors, and inputs multiplied by them, differ from the float layers by rounding only."""
    artifact = artifacts[1]
    tensors = artifact.tensors()
    observed = observe_with_hooks(artifact, batch, "smooth").linears
    packed = pack(tensors, observed)
    smoothed = 0
    for path, found in observed.items():
        follows_a_norm = path.endswith("Wi") or (path.endswith("Wqkv") and ".layers.0." not in path)
        if follows_a_norm:
            assert found.input_smoothing[list(CHANNELS)].max() < 0.5 * found.input_smoothing.median(), path
        weight = packed[f"{path}.weight"].float() * packed[f"{path}.weight_scale"][:, None]
        undone = weight * packed[f"{path}.input_smoothing"]
        bound = 0.51 * packed[f"{path}.weight_scale"][:, None] * packed[f"{path}.input_smoothing"]
        assert ((undone - tensors[f"{path}.weight"]).abs() <= bound + 1e-7).all(), path
        smoothed += 1
    kinds = {path.rsplit(".", 1)[-1] for path in observed}
    assert smoothed == 4 * 4 and kinds == {"Wqkv", "Wo", "Wi"}


def test_smoothing_reduces_the_error_of_outliers(artifacts, batch):
    plain, artifact = artifacts
    expected = logits(artifact, batch)
    np.testing.assert_allclose(expected, logits(plain, batch), rtol=1e-3, atol=1e-3)
    errors = {}
    for recipe in ("static", "smooth"):
        packed = pack(artifact.tensors(), observe_with_hooks(artifact, batch, recipe).linears)
        errors[recipe] = np.abs(logits(artifact, batch, packed) - expected).mean()
    assert errors["smooth"] < 0.5 * errors["static"], errors


def add_context_outliers(tensors: dict[str, torch.Tensor], value: str, output: str) -> dict[str, torch.Tensor]:
    """Scales two channels of each layer's values, and divides the columns of the layer after it: the same function.

    Post-norm layers have no other place for outliers without a change of the function: the output of a norm is also the
    residual.
    """
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in tensors:
        path, found, part = name.partition(f".{value}.")
        if found:
            changed[name][list(CHANNELS)] *= 40 * FACTOR
            if part == "weight":
                changed[f"{path}.{output}.weight"][:, list(CHANNELS)] /= 40 * FACTOR
    return changed


@pytest.mark.parametrize("family", ["deberta-v3", "bert"])
def test_auto_holds_on_other_rows_or_names_the_layers_in_float(family, tmp_path, monkeypatch, caplog):
    """Static scales fail on outliers in private and shared layers; what `auto` selects is as accurate on other rows."""
    monkeypatch.setattr(quantizer_file, "observe", observe_with_hooks)
    _, config, tensors = model_and_tensors(family, EXITS, mode="decoupled")
    layer = family_of(config).layer
    tensors = add_context_outliers(tensors, layer["value"], layer["attention_output"])
    source = write_artifact(tmp_path / "float", config=config, tensors=tensors, tokenizer=tiny_tokenizer(family))
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 14))) for _ in range(1000)]
    caplog.set_level(logging.INFO, "itrex_sweet.quantization")
    artifact = SweetQuantizer.from_pretrained(source.directory).quantize(
        texts[:400], tmp_path / "int8", rows=100, max_drop=0.04
    )
    facts = artifact.quantization
    assert "\nstatic " in caplog.text and (facts["recipe"] != "static" or facts["float_layers"])
    layers = quantizable_layers(artifact)
    assert facts["integer_layers"] == len(set(layers) - set(facts["float_layers"]))
    predictions = [
        model.executor.logits_at_every_exit(model.read(texts[400:])).argmax(-1)
        for model in map(SweetModelForSequenceClassification.from_pretrained, (source.directory, artifact.directory))
    ]
    assert ((predictions[0] != predictions[1]).mean(0) <= 0.04 + 0.02).all()
