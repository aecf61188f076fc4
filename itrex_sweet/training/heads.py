"""Exit heads: the classifiers of the exits."""

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
from itrex_sweet.training.peft_models import merged_module_copy, unwrap_module
from itrex_sweet.training.private_layer import PrivateLayer


class ExitHead(nn.Module):
    """A classification head on the first token, with the layers of the family's own head.

    The layers are: norm of the token's state in a pre-norm model, dropout, dense, activation, norm where the family has
    one, dropout, classifier. With `learn_to_exit` a linear layer computes from
    the detached pooled output one more number, the logit of the probability that the prediction is correct (BERxiT,
    Xin et al., EACL 2021).

    Args:
        dense: linear layer of the pooler; `None` if all exits share the model's own.
        classifier: linear layer that computes the logits.
        activation: name of the activation between the two, a key of `transformers.activations.ACT2FN`.
        dropouts: probabilities before `dense` and before `classifier`.
        correctness: linear layer that computes the correctness logit; a submodule named `certainty`, the name that it
            has in saved models.
        final_norm: norm of the hidden state, in a pre-norm model.
        norm: norm before `classifier`, where the family has one.
    """

    def __init__(
        self,
        dense: nn.Linear | None,
        classifier: nn.Linear,
        activation: str,
        dropouts: tuple[float, float],
        correctness: nn.Linear | None = None,
        final_norm: nn.Module | None = None,
        norm: nn.Module | None = None,
    ):
        super().__init__()
        if final_norm is not None:
            self.final_norm = final_norm
        if dense is not None:
            self.dense = dense
        if norm is not None:
            self.norm = norm
        self.classifier = classifier
        if correctness is not None:
            self.certainty = correctness
        self.activation = ACT2FN[activation]
        self.dropout_before_dense = nn.Dropout(dropouts[0])
        self.dropout_before_classifier = nn.Dropout(dropouts[1])

    def forward(self, first_token: torch.Tensor, shared_dense: nn.Module | None = None) -> torch.Tensor:
        """Computes the logits of one exit.

        Args:
            first_token: (rows, hidden_size), the hidden state of the first token after the exit's last layer.
            shared_dense: the model's own pooler, for a head without one. It is an argument and not a submodule, so that
                the state dict holds its weights once and the heads of a copied model use the copy's pooler.

        Returns:
            (rows, labels); with `learn_to_exit` (rows, labels + 1), the last column being the correctness logit.
        """
        dense = self.dense if shared_dense is None else shared_dense
        return self._classify(first_token, dense, self.dropout_before_dense, self.dropout_before_classifier)

    def _classify(self, first_token: torch.Tensor, dense: nn.Module, *dropouts: Callable) -> torch.Tensor:
        before_dense, before_classifier = dropouts
        if hasattr(self, "final_norm"):
            first_token = self.final_norm(first_token)
        pooled = self.activation(dense(before_dense(first_token)))
        if hasattr(self, "norm"):
            pooled = self.norm(pooled)
        logits = self.classifier(before_classifier(pooled))
        if not hasattr(self, "certainty"):
            return logits
        return torch.cat([logits, self.certainty(pooled.detach()).to(logits.dtype)], dim=-1)


class PrivateExitHead(ExitHead):
    """An exit head with a private copy of the layer before the exit.

    Args:
        layer: computes the hidden state of the first token.
        arguments: as for `ExitHead`.
    """

    def __init__(self, layer: PrivateLayer, **arguments: Any):
        super().__init__(**arguments)
        self.layer = layer

    def forward(
        self,
        hidden_states: torch.Tensor,
        generator: torch.Generator | None = None,
        **layer_inputs: torch.Tensor | None,
    ) -> torch.Tensor:
        """Computes the logits of one exit.

        Args:
            hidden_states: (rows, tokens, hidden), input of the exit's last layer.
            generator: draws dropout; `None` for no dropout.
            layer_inputs: `mask`, `table`, `relative_pos` and `bias` of `PrivateLayer`.

        Returns:
            As `ExitHead`.
        """
        first_token = self.layer(hidden_states, generator=generator, **layer_inputs)
        rates = (self.dropout_before_dense.p, self.dropout_before_classifier.p)
        dropouts = (functools.partial(dropout, rate=rate, generator=generator) for rate in rates)
        return self._classify(first_token, self.dense, *dropouts)


def create_exit_head(model: nn.Module, family: Family, config: SweetConfig, exit_: int) -> ExitHead:
    """Creates a trainable exit head, initialized from the model's own head, with its device and dtype.

    A private layer is a copy of the model's. In the first half of the model it attends to all tokens evenly, see
    `PrivateLayer.attend_evenly`. The layer that predicts correctness (`learn_to_exit`) starts from zeros, a probability
    of one half.

    Args:
        model: the Hugging Face classification model; PEFT may have wrapped its layers and its head.
        family: the model's family.
        config: selects a private layer, an own pooler, and correctness prediction.
        exit_: number of layers before the exit.
    """
    dense, classifier = classification_head(model, family)
    final_norm, norm = family.norm_paths(model.config.num_hidden_layers, model.config.num_hidden_layers)
    arguments = {
        "dense": None if config.shares_pooler else _copy(dense),
        "classifier": _copy(classifier),
        "activation": family.activation_of_head(model.config),
        "dropouts": family.dropouts_of_head(model.config),
        "correctness": _zero_linear_like(classifier) if config.learn_to_exit else None,
        "final_norm": final_norm and _copy_of_norm(model, final_norm),
        "norm": norm and _copy_of_norm(model, norm),
    }
    if not config.has_private_layers:
        return ExitHead(**arguments)
    layer = PrivateLayer(get_module(model, family.layers_path)[exit_ - 1], family, model.config, exit_ - 1)
    if 2 * exit_ <= model.config.num_hidden_layers:  # a deeper layer's first token has learned where to attend
        layer.attend_evenly()
    return PrivateExitHead(layer, **arguments)


def classification_head(model: nn.Module, family: Family) -> tuple[nn.Linear, nn.Linear]:
    """Returns the linear layers (pooler, classifier) of the model's own head, without PEFT wrappers.

    Raises:
        UnsupportedModelError: no classification head, or not the one of its family.
    """
    hidden, labels = model.config.hidden_size, model.config.num_labels
    return (
        _linear_at(model, family.head_dense, (hidden, hidden)),
        _linear_at(model, family.head_out, (labels, hidden)),
    )


def get_module(model: nn.Module, path: str) -> nn.Module | None:
    """Returns the module at a dotted path, or `None`. PEFT wrappers forward attributes to the wrapped module."""
    module: Any = model
    for name in path.split("."):
        module = getattr(module, name, None)
    return module if isinstance(module, nn.Module) else None


def _linear_at(model: nn.Module, path: str, shape: tuple[int, int]) -> nn.Linear:
    module = get_module(model, path)
    expected = f"a linear layer from {shape[1]} to {shape[0]} features at {path!r}"
    advice = "Load the model with AutoModelForSequenceClassification, and leave its head as it is."
    if module is None:
        raise UnsupportedModelError(f"{type(model).__name__} has no {path!r}: exits need {expected}. {advice}")
    linear = unwrap_module(module)
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


def _copy_of_norm(model: nn.Module, path: str) -> nn.Module:
    module = get_module(model, path)
    if module is None:
        raise UnsupportedModelError(f"{type(model).__name__} has no {path!r}: exits need a norm there.")
    return merged_module_copy(module).requires_grad_()


def _zero_linear_like(classifier: nn.Linear) -> nn.Linear:
    """Returns a linear layer to one feature with zero weights, with the classifier's device and dtype."""
    zeros = _empty_like(classifier, out=1, bias=True)
    nn.init.zeros_(zeros.weight)
    nn.init.zeros_(zeros.bias)
    return zeros


def _empty_like(linear: nn.Linear, out: int, bias: bool) -> nn.Linear:
    """Returns an uninitialized layer. It draws no random numbers, so that attaching does not change a seeded run."""
    weight = linear.weight
    return nn.utils.skip_init(nn.Linear, weight.shape[1], out, bias=bias, device=weight.device, dtype=weight.dtype)


def _copy(linear: nn.Linear) -> nn.Linear:
    weight, bias = linear.weight, linear.bias
    copied = _empty_like(linear, out=weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        copied.weight.copy_(weight)
        if bias is not None:
            copied.bias.copy_(bias)
    return copied
