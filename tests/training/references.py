"""Reference forwards and gradients, written without the code under test.

Models run layer by layer, with heads written out per family, so that an error in the hooks or in the family table is
found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

LAYERS = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "xlm-roberta": "roberta.encoder.layer",
    "electra": "electra.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "deberta": "deberta.encoder.layer",
    "deberta-v2": "deberta.encoder.layer",
    "modernbert": "model.layers",
    "mpnet": "mpnet.encoder.layer",
    "gte": "gte.layers",
    "eurobert": "model.layers",
    "roformer": "roformer.encoder.layer",
}
DENSE = {
    "bert": "bert.pooler.dense",
    "roberta": "classifier.dense",
    "xlm-roberta": "classifier.dense",
    "electra": "classifier.dense",
    "distilbert": "pre_classifier",
    "deberta": "pooler.dense",
    "deberta-v2": "pooler.dense",
    "modernbert": "head.dense",
    "mpnet": "classifier.dense",
    "gte": "gte.pooler.dense",
    "eurobert": "dense",
    "roformer": "classifier.dense",
}
OUT = {
    "bert": "classifier",
    "roberta": "classifier.out_proj",
    "xlm-roberta": "classifier.out_proj",
    "electra": "classifier.out_proj",
    "distilbert": "classifier",
    "deberta": "classifier",
    "deberta-v2": "classifier",
    "modernbert": "classifier",
    "mpnet": "classifier.out_proj",
    "gte": "classifier",
    "eurobert": "classifier",
    "roformer": "classifier.out_proj",
}
FINAL_NORM = {"modernbert": "model.final_norm", "eurobert": "model.norm"}
HEAD_NORM = {"modernbert": "head.norm"}
ACTIVATION: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bert": torch.tanh,
    "roberta": torch.tanh,
    "xlm-roberta": torch.tanh,
    "electra": F.gelu,
    "distilbert": F.relu,
    "deberta": F.gelu,
    "deberta-v2": F.gelu,
    "modernbert": F.gelu,
    "mpnet": torch.tanh,
    "gte": torch.tanh,
    "eurobert": F.gelu,
    "roformer": F.gelu,
}
TABLES = ("deberta.encoder.rel_embeddings.weight", "mpnet.encoder.relative_attention_bias.weight")
TABLE_NORM = "deberta.encoder.LayerNorm."


class LayerByLayer:
    """Runs a copy of a plain model's encoder layer by layer.

    The hidden states and the relative positions that layers share (DeBERTa's table, MPNet's bias) are passed by the
    caller, who chooses their gradients. The other arguments of each layer are recorded from one plain forward.
    """

    def __init__(self, model: PreTrainedModel, batch: dict[str, torch.Tensor]):
        self.model = copy.deepcopy(model)
        self.kind = model.config.model_type
        self.layers = self.model.get_submodule(LAYERS[self.kind])
        self.inputs = {key: value for key, value in batch.items() if key != "labels"}
        self.recorded: list[tuple[tuple, dict]] = []
        hooks = [layer.register_forward_pre_hook(self._record, with_kwargs=True) for layer in self.layers]
        with torch.no_grad():
            self.model(**self.inputs)
        for hook in hooks:
            hook.remove()

    def _record(self, layer: nn.Module, args: tuple, kwargs: dict) -> None:
        self.recorded.append((args, kwargs))

    def embed(self) -> torch.Tensor:
        """Returns the input of the first layer, with its graph."""
        captured: list[torch.Tensor] = []

        def capture(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            captured.append(args[0] if args else kwargs["hidden_states"])

        hook = self.layers[0].register_forward_pre_hook(capture, with_kwargs=True)
        self.model(**self.inputs)
        hook.remove()
        return captured[0]

    def table(self) -> torch.Tensor | None:
        """Returns the relative positions as the layers receive them, with their graph."""
        if self.kind == "mpnet":
            return self.model.mpnet.encoder.compute_position_bias(self.inputs["input_ids"])
        return self.model.deberta.encoder.get_rel_embedding() if self.kind.startswith("deberta") else None

    def run(self, index: int, hidden: torch.Tensor, table: torch.Tensor | None, embedded: torch.Tensor) -> torch.Tensor:
        """Returns the hidden states after one layer, and after DeBERTa-v2's convolution behind the first."""
        args, kwargs = self.recorded[index]
        kwargs = dict(kwargs)
        if args:
            args = (hidden, *args[1:])
        else:
            kwargs["hidden_states"] = hidden
        if table is not None and self.kind == "mpnet":
            args = (*args[:-1], table)
        elif table is not None:
            kwargs["rel_embeddings"] = table
        output = self.layers[index](*args, **kwargs)
        output = output if isinstance(output, torch.Tensor) else output[0]
        if index == 0 and getattr(getattr(self.model, "deberta", None), "encoder", None) is not None:
            conv = getattr(self.model.deberta.encoder, "conv", None)
            if conv is not None:
                output = conv(embedded, output, self.inputs["attention_mask"])
        return output

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())


Weights = tuple[torch.Tensor, torch.Tensor | None]  # weight and bias


@dataclass(frozen=True)
class Head:
    """The weights that compute logits from the hidden states after the last layer of an exit.

    Args:
        pooling: `"mean"`, it reads the mean over tokens and not the first token; `"late"`, its logits are the mean of
            the tokens' logits.
    """

    dense: Weights
    out: Weights
    final_norm: Weights | None = None
    norm: Weights | None = None
    pooling: str = "first"


def head_logits(kind: str, hidden: torch.Tensor, head: Head, mask: torch.Tensor) -> torch.Tensor:
    """Computes the logits of a family's head without dropout; `mask` (rows, length) is the attention mask."""
    size = hidden.shape[-1:]
    if head.final_norm is not None:
        if kind == "eurobert":
            hidden = F.rms_norm(hidden, size, head.final_norm[0], 1e-5)
        else:
            hidden = F.layer_norm(hidden, size, *head.final_norm, 1e-5)
    pooled = hidden[:, 0]
    if head.pooling == "mean":
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    if head.pooling == "late":
        of_tokens = F.linear(ACTIVATION[kind](F.linear(hidden, *head.dense)), *head.out)
        return (of_tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    pooled = ACTIVATION[kind](F.linear(pooled, *head.dense))
    if head.norm is not None:
        pooled = F.layer_norm(pooled, size, *head.norm, 1e-5)
    return F.linear(pooled, *head.out)


def classification_head(model: nn.Module, kind: str) -> Head:
    """Returns the model's own head."""

    def weights(path: str | None) -> Weights | None:
        module = None if path is None else model.get_submodule(path)
        return None if module is None else (module.weight, getattr(module, "bias", None))

    return Head(
        dense=weights(DENSE[kind]),
        out=weights(OUT[kind]),
        final_norm=weights(FINAL_NORM.get(kind)),
        norm=weights(HEAD_NORM.get(kind)),
        pooling=getattr(model.config, "classifier_pooling", "first"),
    )


def exit_head(named: dict[str, torch.Tensor], exit_: int, shared_dense: Weights | None = None) -> Head:
    """Returns the head of an exit before the last from named parameters, with the model's own pooler if it is given."""

    def weights(name: str) -> Weights | None:
        path = f"sweet_exits.{exit_}.{name}"
        return (named[f"{path}.weight"], named.get(f"{path}.bias")) if f"{path}.weight" in named else None

    return Head(
        dense=shared_dense or weights("dense"),
        out=weights("classifier"),
        final_norm=weights("final_norm"),
        norm=weights("norm"),
    )
