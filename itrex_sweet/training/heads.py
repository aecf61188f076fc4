"""Exit heads: the classifiers put after the layers of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import UnsupportedModelError
from itrex_sweet.families import Family
from itrex_sweet.training.dropout import dropout
from itrex_sweet.training.peft_models import without_wrappers
from itrex_sweet.training.private_layer import PrivateLayer


class ExitHead(nn.Module):
    """Reads an exit's logits off the first token, built as the family's own head.

    That is: dropout, dense, activation, dropout, classifier. A head that learns to exit also has a linear layer from
    what `dense` and its activation give to one number, the logit of being right (BERxiT, Xin et al., EACL 2021); its
    gradient goes no further.

    Args:
        dense: the pooler's linear layer, which the head owns; `None` if every exit reads through the model's
            own.
        classifier: the linear layer that gives the logits.
        activation: name of the activation between the two, a key of `transformers.activations.ACT2FN`.
        dropouts: probabilities before `dense` and before `classifier`.
        certainty: the linear layer that gives the logit of being right, of a head that learns to exit.
    """

    def __init__(
        self,
        dense: nn.Linear | None,
        classifier: nn.Linear,
        activation: str,
        dropouts: tuple[float, float],
        certainty: nn.Linear | None = None,
    ):
        super().__init__()
        if dense is not None:
            self.dense = dense
        self.classifier = classifier
        if certainty is not None:
            self.certainty = certainty
        self.activation = ACT2FN[activation]
        self.dropout_before_dense = nn.Dropout(dropouts[0])
        self.dropout_before_classifier = nn.Dropout(dropouts[1])

    def forward(self, first_token: torch.Tensor, shared_dense: nn.Module | None = None) -> torch.Tensor:
        """Logits of one exit.

        Args:
            first_token: (rows, hidden_size), the hidden state of the first token after the exit's last layer.
            shared_dense: the model's own pooler, for a head that owns none. It is handed in rather than kept,
                so that its weights stand once in the state dict and a copied model's heads read its own
                pooler.

        Returns:
            (rows, labels), and behind the labels, from a head that learns to exit, the logit of being right.
        """
        dense = self.dense if shared_dense is None else shared_dense
        return self._answer(first_token, dense, self.dropout_before_dense, self.dropout_before_classifier)

    def _answer(self, first_token: torch.Tensor, dense: nn.Module, *drop: Callable) -> torch.Tensor:
        before_dense, before_classifier = drop
        pooled = self.activation(dense(before_dense(first_token)))
        logits = self.classifier(before_classifier(pooled))
        if not hasattr(self, "certainty"):
            return logits
        return torch.cat([logits, self.certainty(pooled.detach()).to(logits.dtype)], dim=-1)


class PrivateExit(ExitHead):
    """An exit head behind a copy of the layer before the exit, both the exit's own.

    Args:
        layer: computes the first token's state.
        arguments: of `ExitHead`.
    """

    def __init__(self, layer: PrivateLayer, **arguments: Any):
        super().__init__(**arguments)
        self.layer = layer

    def forward(
        self, states: torch.Tensor, generator: torch.Generator | None = None, **others: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits of one exit.

        Args:
            states: (rows, tokens, hidden), entering the exit's last layer.
            generator: draws dropout; `None` for none.
            others: as `PrivateLayer` takes them: `mask`, `table`, `relative_pos`.

        Returns:
            As `ExitHead`.
        """
        first_token = self.layer(states, generator=generator, **others)
        rates = (self.dropout_before_dense.p, self.dropout_before_classifier.p)
        drop = (functools.partial(dropout, rate=rate, generator=generator) for rate in rates)
        return self._answer(first_token, self.dense, *drop)


def head_like_the_models_own(model: nn.Module, family: Family, config: SweetConfig, exit_: int) -> ExitHead:
    """A new, trainable head that starts from the weights of the model's own, on its device, in its type.

    Args:
        model: the Hugging Face classification model, its layers and its head possibly wrapped by PEFT.
        family: where its head lies.
        config: says what the head owns: a layer, a pooler, what says how likely it is right, at first even odds.
        exit_: the count of layers that it stands after.
    """
    dense, classifier = own_head(model, family)
    arguments = {
        "dense": None if config.shares_pooler else _copied(dense),
        "classifier": _copied(classifier),
        "activation": family.activation_of_head(model.config),
        "dropouts": family.dropouts_of_head(model.config),
        "certainty": _zeros_like(classifier) if config.learn_to_exit else None,
    }
    if not config.has_private_layers:
        return ExitHead(**arguments)
    layer = module_at(model, family.layers_path)[exit_ - 1]
    return PrivateExit(PrivateLayer(layer, family, model.config), **arguments)


def own_head(model: nn.Module, family: Family) -> tuple[nn.Linear, nn.Linear]:
    """The two linear layers (pooler, classifier) of the model's own head, without what PEFT wrapped around
    them.

    Raises:
        UnsupportedModelError: the model has no classification head, or another one than its family's.
    """
    hidden, labels = model.config.hidden_size, model.config.num_labels
    return (
        _plain_linear(model, family.head_dense, (hidden, hidden)),
        _plain_linear(model, family.head_out, (labels, hidden)),
    )


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path, also through PEFT's wrappers, which lend their contents' attributes."""
    module: Any = model
    for name in path.split("."):
        module = getattr(module, name, None)
    return module if isinstance(module, nn.Module) else None


def _plain_linear(model: nn.Module, path: str, shape: tuple[int, int]) -> nn.Linear:
    module = module_at(model, path)
    expected = f"a linear layer from {shape[1]} to {shape[0]} features at {path!r}"
    advice = "Load the model with AutoModelForSequenceClassification, and leave its head as it is."
    if module is None:
        raise UnsupportedModelError(f"{type(model).__name__} has no {path!r}: exits need {expected}. {advice}")
    linear = without_wrappers(module)
    if not isinstance(linear, nn.Linear):
        raise UnsupportedModelError(
            f"{type(model).__name__} has {type(linear).__name__} at {path!r}: exits need {expected}. {advice}"
        )
    if tuple(linear.weight.shape) != shape or not linear.weight.is_floating_point():
        raise UnsupportedModelError(
            f"{type(model).__name__} has weights of shape {tuple(linear.weight.shape)} and type "
            f"{linear.weight.dtype} at {path!r}: exits need {expected}, in floating point. {advice}"
        )
    return linear


def _zeros_like(classifier: nn.Linear) -> nn.Linear:
    """A layer to one feature, on the classifier's device and in its type."""
    zeros = _empty_like(classifier, out=1, bias=True)
    nn.init.zeros_(zeros.weight)
    nn.init.zeros_(zeros.bias)
    return zeros


def _empty_like(linear: nn.Linear, out: int, bias: bool) -> nn.Linear:
    """Draws no random numbers, so attaching does not change a seeded run."""
    weight = linear.weight
    return nn.utils.skip_init(nn.Linear, weight.shape[1], out, bias=bias, device=weight.device, dtype=weight.dtype)


def _copied(linear: nn.Linear) -> nn.Linear:
    weight, bias = linear.weight, linear.bias
    copied = _empty_like(linear, out=weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        copied.weight.copy_(weight)
        if bias is not None:
            copied.bias.copy_(bias)
    return copied
