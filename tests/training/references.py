"""Reference forwards and gradients, written without the code under test.

Models run layer by layer, with heads written out per family, so that an error in the hooks or in the family table is
found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

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
}
DENSE = {
    "bert": "bert.pooler.dense",
    "roberta": "classifier.dense",
    "xlm-roberta": "classifier.dense",
    "electra": "classifier.dense",
    "distilbert": "pre_classifier",
    "deberta": "pooler.dense",
    "deberta-v2": "pooler.dense",
}
OUT = {
    "bert": "classifier",
    "roberta": "classifier.out_proj",
    "xlm-roberta": "classifier.out_proj",
    "electra": "classifier.out_proj",
    "distilbert": "classifier",
    "deberta": "classifier",
    "deberta-v2": "classifier",
}
ACTIVATION: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bert": torch.tanh,
    "roberta": torch.tanh,
    "xlm-roberta": torch.tanh,
    "electra": F.gelu,
    "distilbert": F.relu,
    "deberta": F.gelu,
    "deberta-v2": F.gelu,
}
TABLE = "deberta.encoder.rel_embeddings.weight"
TABLE_NORM = "deberta.encoder.LayerNorm."


class LayerByLayer:
    """Runs a copy of a plain model's encoder layer by layer.

    The hidden states and DeBERTa's relative-position table are passed by the caller, who chooses their gradients. The
    other arguments of each layer are recorded from one plain forward.
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
        """Returns DeBERTa's relative-position table as its layers receive it, with its graph."""
        return self.model.deberta.encoder.get_rel_embedding() if self.kind.startswith("deberta") else None

    def run(self, index: int, hidden: torch.Tensor, table: torch.Tensor | None, embedded: torch.Tensor) -> torch.Tensor:
        """Returns the hidden states after one layer, and after DeBERTa-v2's convolution behind the first."""
        args, kwargs = self.recorded[index]
        kwargs = dict(kwargs)
        if args:
            args = (hidden, *args[1:])
        else:
            kwargs["hidden_states"] = hidden
        if table is not None:
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


def head_logits(
    kind: str,
    hidden: torch.Tensor,
    dense: tuple[torch.Tensor, torch.Tensor],
    out: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Computes the logits of a family's head without dropout. `dense` and `out`: (weight, bias)."""
    return F.linear(ACTIVATION[kind](F.linear(hidden[:, 0], *dense)), *out)


def classification_head(model: nn.Module, kind: str) -> tuple[tuple, tuple]:
    """Returns ((weight, bias) of the pooler, (weight, bias) of the classifier) of the model's own head."""
    dense, out = model.get_submodule(DENSE[kind]), model.get_submodule(OUT[kind])
    return (dense.weight, dense.bias), (out.weight, out.bias)
