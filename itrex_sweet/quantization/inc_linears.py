"""The model that Neural Compressor observes: the encoder's linear layers, with their inputs in the float model.

Layers with the same input (query, key and value of an encoder layer) are concatenated to one linear layer, so that they
share the range and the smoothing factors of the input. The rest of the model (embeddings, softmax, norms, heads) stays
in float and is not part of it, so that no model code has to be exported or traced.
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

_PROJECTIONS = ("query", "key", "value", "query_key_value")
_SAME_INPUT = (("query_key_value",), _PROJECTIONS[:3], ("attention_output",), ("up", "gate"), ("up_gate",), ("down",))
_TOKENS_PER_BATCH = 1024  # limits the memory of the inputs of all layers


def layers_by_input(family: Family, depth: int, private: Sequence[int] = ()) -> list[tuple[str, ...]]:
    """Returns the module paths of the linear layers to quantize, grouped by their input.

    Args:
        depth: number of encoder layers.
        private: exits with private layers.
    """
    layers = [f"{family.layers_path}.{index}" for index in range(depth)]
    layers += [family.private_layer_path(exit_) for exit_ in private]
    return [
        tuple(f"{path}.{family.layer[name]}" for name in names if name in family.layer)
        for path in layers
        for names in _SAME_INPUT
        if names[0] in family.layer
    ]


class Linears(torch.nn.Module):
    """A module of independent linear layers, without biases.

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
        """Returns each layer's output (tokens, out) for its input."""
        return tuple(linear(states) for linear, states in zip(self.linears, inputs, strict=True))

    def path(self, index: int) -> str:
        """Returns the path of a layer in this module."""
        return f"linears.{index}"


class CalibrationInputs:
    """A re-iterable of the inputs of the quantized layers in the float model, batch by batch.

    Batches contain rows of equal length, so that padding does not widen a range. A private layer of an exit runs only
    for the first token, so only the first tokens' inputs are observed there. Smoothing factors are an exception: key
    and value weights multiply the states of all tokens, in float, and before layer 1 the first token has the same state
    in every row. Factors of that state would leave these weights few bits where it is small and other tokens are not.

    Args:
        model: the Hugging Face classification model, in evaluation mode.
        family: of the model.
        layers: from `layers_by_input`.
        rows: calibration rows.
        batch_size: maximum number of rows per batch.
        report: called with (rows done, rows).
        private: exits with private layers.
        smoothing: factors (in,) by which each input is multiplied, if given.
        for_smoothing: the inputs determine smoothing factors; query, key and value of private layers are observed on
            all tokens.
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
        for_smoothing: bool = False,
    ):
        self.model, self.family, self.private = model, family, private
        self.encoder = model.get_submodule(family.backbone)
        # The last of a group: in DeBERTa, the relative position embeddings also go through query and key.
        self.hooked = [(paths[-1], model.get_submodule(paths[-1])) for paths in layers]
        on_all_tokens = tuple(
            f".{family.layer[name]}" for name in _PROJECTIONS if for_smoothing and name in family.layer
        )
        self.of_first_token = {
            path for path, _ in self.hooked if is_of_private_layer(path) and not path.endswith(on_all_tokens)
        }
        self.rows, self.batch_size, self.report, self.smoothing = rows, batch_size, report, smoothing
        self.has_token_types = "token_types" in family.embeddings

    def __iter__(self) -> Iterator[Inputs]:
        """Yields the inputs of each batch, (tokens, in), or (rows, in) for what is observed on first tokens.

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
        captured: dict[str, torch.Tensor] = {}

        def capture(path: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
            def hook(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
                states = arguments[0]
                if not torch.isfinite(states).all():
                    raise QuantizationError(
                        f"the input of {path} holds NaN or infinite values: the weights are corrupt, or activations "
                        "overflow on the calibration rows. Check them with `itrex-sweet predict`."
                    )
                captured[path] = states[:, 0] if path in self.of_first_token else states.flatten(0, -2)

            return hook

        handles = [module.register_forward_pre_hook(capture(path)) for path, module in self.hooked]
        handles += run_private_layers(self.model, self.family, self.private)
        try:
            self.encoder(**batch)
        finally:
            for handle in handles:
                handle.remove()
        inputs = [captured[path] for path, _ in self.hooked]
        if self.smoothing is not None:
            inputs = [states * factors for states, factors in zip(inputs, self.smoothing, strict=True)]
        return tuple(inputs)
