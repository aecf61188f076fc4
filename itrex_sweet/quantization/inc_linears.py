"""The input of Neural Compressor: the encoder's linear layers, and their inputs in the float model.

Layers that read the same tensor (query, key and value of an encoder layer) stand in one linear layer, their outputs
side by side: so they share the range of that input and its smoothing, and nothing has to be reconciled afterwards.
The rest of the model (embeddings, softmax, norms, heads) stays in float and is not shown, so no family's code has to be
exported or traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from itrex_sweet.errors import QuantizationError
from itrex_sweet.families import Family, is_of_private_layer
from itrex_sweet.quantization.private_layers import run_private_layers
from itrex_sweet.runtime.ragged import TokenBatch, groups_of_equal_length

Inputs = tuple[torch.Tensor, ...]  # (tokens, in) float32 of one batch, for each linear layer of `Linears`

_SAME_INPUT = (("query_key_value",), ("query", "key", "value"), ("attention_output",), ("up",), ("down",))
_TOKENS_PER_BATCH = 1024  # bounds the memory for the inputs of all layers at once


def layers_by_input(family: Family, depth: int, private: Sequence[int] = ()) -> list[tuple[str, ...]]:
    """Paths, from the classification model, of the linear layers that are quantized; those of one input together.

    Args:
        depth: of the model.
        private: exits that have layers of their own.
    """
    layers = [f"{family.layers_path}.{index}" for index in range(depth)]
    layers += [family.private_layer_path(exit_) for exit_ in private]
    return [
        tuple(f"{path}.{family.layer[name]}" for name in names)
        for path in layers
        for names in _SAME_INPUT
        if names[0] in family.layer
    ]


class Linears(torch.nn.Module):
    """Linear layers side by side, each with an input of its own; biases do not matter here.

    Args:
        weights: (out, in) of each.
    """

    def __init__(self, weights: Sequence[torch.Tensor]):
        super().__init__()
        self.linears = torch.nn.ModuleList()
        for weight in weights:
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            linear.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
            self.linears.append(linear)
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> Inputs:
        """Every layer's output, (tokens, out), from its input."""
        return tuple(linear(states) for linear, states in zip(self.linears, inputs, strict=True))

    def path(self, index: int) -> str:
        """Returns the path of a layer in this module."""
        return f"linears.{index}"


class CalibrationInputs:
    """The inputs of the quantized layers in the float model, batch by batch; can be gone through again.

    Rows of equal length run together, so there is no padding that could widen a range. An exit's private layer runs for
    the first token alone, so the inputs there are those of first tokens.

    Args:
        model: the Hugging Face classification model, in evaluation mode.
        family: its row in the table.
        layers: what `layers_by_input` gave.
        rows: the texts to calibrate on.
        batch_size: rows at a time, at most.
        report: called with (rows done, rows).
        private: exits that have layers of their own, in the model too.
        smoothing: (in,) by which each input is multiplied, if given.
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        layers: Sequence[tuple[str, ...]],
        rows: TokenBatch,
        batch_size: int,
        report: Callable[[int, int], None],
        private: Sequence[int] = (),
        smoothing: Sequence[torch.Tensor] | None = None,
    ):
        self.model, self.family, self.private = model, family, private
        self.encoder = model.get_submodule(family.backbone)
        # The last of a group: DeBERTa sends its table of relative positions through query and key too.
        self.taps = [(paths[-1], model.get_submodule(paths[-1])) for paths in layers]
        self.rows, self.batch_size, self.report, self.smoothing = rows, batch_size, report, smoothing
        self.has_token_types = "token_types" in family.embeddings

    def __iter__(self) -> Iterator[Inputs]:
        """(tokens, in) of every input, for each batch; (rows, in) in private layers.

        Raises:
            QuantizationError: an input is NaN or infinite; the message names the layer.
        """
        done = 0
        for batch in self._batches():
            yield self._inputs(batch)
            done += len(batch["input_ids"])
            self.report(done, len(self.rows))

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        for group in groups_of_equal_length(self.rows.cu_seqlens):
            size = max(1, min(self.batch_size, _TOKENS_PER_BATCH // group.shape[1]))
            for start in range(0, len(group), size):
                tokens = group[start : start + size]
                batch = {"input_ids": torch.from_numpy(self.rows.input_ids[tokens])}
                if self.has_token_types:
                    batch["token_type_ids"] = torch.from_numpy(self.rows.token_type_ids[tokens])
                yield {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}

    @torch.no_grad()
    def _inputs(self, batch: dict[str, torch.Tensor]) -> Inputs:
        seen: dict[str, torch.Tensor] = {}

        def tap(path: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
            def keep(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
                states = arguments[0]
                if not torch.isfinite(states).all():
                    raise QuantizationError(
                        f"the input of {path} holds NaN or infinite values: the float model is broken or overflows on "
                        "the calibration rows. Does it answer them (`itrex-sweet predict`)?"
                    )
                seen[path] = states[:, 0] if is_of_private_layer(path) else states.reshape(-1, states.shape[-1])

            return keep

        handles = [module.register_forward_pre_hook(tap(path)) for path, module in self.taps]
        handles += run_private_layers(self.model, self.family, self.private)
        try:
            self.encoder(**batch)
        finally:
            for handle in handles:
                handle.remove()
        inputs = [seen[path] for path, _ in self.taps]
        if self.smoothing is not None:
            inputs = [states * factors for states, factors in zip(inputs, self.smoothing, strict=True)]
        return tuple(inputs)
