"""Tests that a private layer equals the Hugging Face layer for the first token, in outputs and gradients."""

import copy
import inspect

import pytest
import torch

from itrex_sweet.errors import UnsupportedModelError
from itrex_sweet.families import family_of
from itrex_sweet.training.dropout import ExitGenerators, dropout
from itrex_sweet.training.heads import get_module
from itrex_sweet.training.private_layer import PrivateLayer
from tests.tiny_models import FAMILY_CONFIGS, tiny_batch, tiny_model, unrotated


def layer_calls(model, batch):
    """Returns (layer, args, kwargs, output) of each layer of one forward."""
    layers = get_module(model, family_of(model.config).layers_path)
    calls = []
    hooks = [
        layer.register_forward_hook(lambda *call: calls.append(call), with_kwargs=True, always_call=True)
        for layer in layers
    ]
    model(**{name: value for name, value in batch.items() if name != "labels"})
    for hook in hooks:
        hook.remove()
    return calls


def first_token(output):
    return (output if isinstance(output, torch.Tensor) else output[0])[:, 0]


def run_private_layer(private, layer, batch, args, kwargs, **options):
    states = (args[0] if args else kwargs["hidden_states"]).detach()
    relative = {"table": kwargs.get("rel_embeddings"), "relative_pos": kwargs.get("relative_pos")}
    if type(layer).__name__ == "MPNetLayer":
        bias = inspect.signature(layer.forward).bind(*args, **kwargs).arguments["position_bias"]
        relative["bias"] = bias[0, :, 0].detach()
    return private(states, batch["attention_mask"], **relative, **options)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_output_and_gradients_equal_the_layers(family, padded):
    model = tiny_model(family, num_layers=2)
    batch = tiny_batch(rows=5, length=40, padded=padded)
    if padded:
        batch["attention_mask"][0, 3] = 0
    for index, (layer, args, kwargs, output) in enumerate(layer_calls(model, batch)):
        if family_of(model.config).attention == "rotary":
            args, kwargs = unrotated(args, kwargs, batch["attention_mask"])
            output = layer(*args, **kwargs)
        private = PrivateLayer(layer, family_of(model.config), model.config, index)
        ours, theirs = run_private_layer(private, layer, batch, args, kwargs), first_token(output)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

        direction = torch.randn(theirs.shape)
        named = dict(layer.named_parameters())
        expected = torch.autograd.grad((theirs * direction).sum(), list(named.values()), retain_graph=True)
        gradients = torch.autograd.grad((ours * direction).sum(), [p for _, p in private.named_parameters()])
        found = {name: gradient for (name, _), gradient in zip(private.named_parameters(), gradients, strict=True)}
        assert found.keys() == named.keys()
        for name, gradient in zip(named, expected, strict=True):
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_names_are_the_familys_and_weights_are_copies(family):
    model = tiny_model(family, num_layers=2)
    layer = get_module(model, family_of(model.config).layers_path)[1]
    before = copy.deepcopy(layer.state_dict())
    private = PrivateLayer(layer, family_of(model.config), model.config, 1)
    assert private.state_dict().keys() == before.keys()
    with torch.no_grad():
        for parameter in private.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_an_even_layer_gives_the_same_for_tokens_in_any_order(family):
    """Disentangled attention is left out, since its positions still count."""
    model = tiny_model(family, num_layers=2)
    batch = tiny_batch(rows=3, length=9, padded=False)
    layer, args, kwargs, _ = layer_calls(model, batch)[1]
    before = copy.deepcopy(layer.state_dict())
    private = PrivateLayer(layer, family_of(model.config), model.config, 1)
    copied = run_private_layer(private, layer, batch, args, kwargs)
    private.attend_evenly()
    states = (args[0] if args else kwargs["hidden_states"]).detach()
    other = states[:, [0, 4, 3, 2, 1, 8, 7, 6, 5]]
    even = private(states, batch["attention_mask"])
    torch.testing.assert_close(private(other, batch["attention_mask"]), even, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(even, copied, atol=1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    changed = [name for name, tensor in private.state_dict().items() if not torch.equal(tensor, before[name])]
    words = ("query", "q_", "attn.q", "in_proj", "Wqkv")
    assert changed and all(any(word in name for word in words) for name in changed)


def test_integer_weights_are_rejected():
    model = tiny_model("bert", num_layers=1)
    layer = model.bert.encoder.layer[0]
    integers = torch.zeros(layer.output.dense.weight.shape, dtype=torch.int8)
    layer.output.dense.weight = torch.nn.Parameter(integers, requires_grad=False)
    with pytest.raises(UnsupportedModelError, match=r"torch\.int8 at 'output\.dense'"):
        PrivateLayer(layer, family_of(model.config), model.config, 0)


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v3", "modernbert"])
def test_dropout_is_drawn_from_the_generator_only(family):
    model = tiny_model(family, num_layers=2, dropout=0.3)
    batch = tiny_batch(rows=5, length=12)
    layer, args, kwargs, _ = layer_calls(model, batch)[1]
    private = PrivateLayer(layer, family_of(model.config), model.config, 1)

    def run(seed):
        return run_private_layer(private, layer, batch, args, kwargs, generator=torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    torch.testing.assert_close(run(0), run(0), rtol=0, atol=0)
    assert not torch.equal(run(0), run(1))
    assert not torch.equal(run(0), run_private_layer(private, layer, batch, args, kwargs))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("place", ["attention", "attention_output", "down", "table"])
def test_dropout_is_applied_in_the_places_of_the_layer(place):
    """Compares the outputs with a dropout probability of 1 in one place."""
    model = tiny_model("deberta-v3", num_layers=1)
    batch = tiny_batch(rows=3, length=9)
    [(layer, args, kwargs, _)] = layer_calls(model, batch)
    private = PrivateLayer(layer, family_of(model.config), model.config, 0)
    private._rates = {place: 1.0}
    dropouts = {
        "attention": layer.attention.self.dropout,
        "attention_output": layer.attention.output.dropout,
        "down": layer.output.dropout,
        "table": layer.attention.self.pos_dropout,
    }
    dropouts[place].p = 1.0
    found = run_private_layer(private, layer, batch, args, kwargs, generator=torch.Generator())
    torch.testing.assert_close(found, first_token(layer(*args, **kwargs)), rtol=1e-4, atol=1e-5)


def test_dropout_keeps_the_mean():
    states = torch.ones(200, 200)
    dropped = dropout(states, 0.25, torch.Generator().manual_seed(0))
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropout(states, 0.25, None) is states


def test_generators_differ_by_exit_and_seed_and_continue():
    cpu = torch.device("cpu")

    def numbers(*seed, exit_=1):
        return torch.rand(3, generator=ExitGenerators(*seed).of(exit_, cpu)).tolist()

    assert numbers(1, 2) == numbers(1, 2)
    assert len({tuple(each) for each in (numbers(1, 2), numbers(1, 3), numbers(2, 2), numbers(1, 2, exit_=2))}) == 4
    generators = ExitGenerators(1, 2)
    first = torch.rand(3, generator=generators.of(1, cpu)).tolist()
    torch.rand(3, generator=generators.of(2, cpu))
    assert torch.rand(3, generator=generators.of(1, cpu)).tolist() != first == numbers(1, 2)
