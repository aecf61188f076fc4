"""The subgraphs of an artifact with names, inputs and outputs, in execution order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from itrex_sweet.artifact import CASCADE, Artifact
from itrex_sweet.runtime.dense import build_subgraphs
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.torch_encoder import load_torch_encoder
from itrex_sweet.tasks import REGRESSION


@dataclass(frozen=True)
class TensorSpec:
    """Specification of an input or output tensor.

    Args:
        name: in the file; unique among inputs and outputs.
        dtype: `"int64"`, `"bool"` or `"float32"`.
        shape: sizes, and names of dynamic sizes.
        becomes: name of the input of later subgraphs, for an output.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    becomes: str | None = None


@dataclass(frozen=True)
class Graph:
    """A subgraph.

    Args:
        name: `embed`, `probe_4`, `advance_4_6`; in a cascade `embed_4` and `probe_4` for each model.
        module: takes the inputs in order, returns the output.
        exit_: exit of a probe, a count of layers from 1; otherwise `None`.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    exit_: int | None = None


@dataclass(frozen=True)
class Subgraphs:
    """All subgraphs of an artifact.

    Args:
        graphs: in execution order.
        vocabulary: number of token ids.
        max_tokens: maximum length of a row; `None` without a limit.
        padding_idx: see `TokenBatch`.
        full_depth: all layers and the last exit, in the form of a Hugging Face classifier.
    """

    graphs: tuple[Graph, ...]
    vocabulary: int
    max_tokens: int | None
    padding_idx: int | None
    full_depth: Graph


def subgraphs_of(artifact: Artifact) -> Subgraphs:
    """Builds the subgraphs of an early-exit artifact, or those of every model of a cascade.

    Raises:
        ArtifactError: the weights do not fit the config.
    """
    if artifact.architecture == CASCADE:
        encoders = [load_torch_encoder(stage) for stage in artifact.stages]
        parts = [
            list(_of_model(encoder, stage.exits, f"_{exit_}"))
            for encoder, stage, exit_ in zip(encoders, artifact.stages, artifact.exits, strict=True)
        ]
    else:
        encoders = [load_torch_encoder(artifact, with_correctness_logit=artifact.task.name == REGRESSION)]
        parts = [list(_of_model(encoders[0], artifact.exits, ""))]
    limits = [encoder.max_tokens for encoder in encoders if encoder.max_tokens is not None]
    return Subgraphs(
        graphs=tuple(graph for part in parts for graph in part),
        vocabulary=min(len(encoder.embeddings.words) for encoder in encoders),
        max_tokens=min(limits, default=None),
        padding_idx=encoders[-1].padding_idx,
        full_depth=_full_depth(encoders[-1], parts[-1]),
    )


def _of_model(encoder: Encoder, exits: tuple[int, ...], suffix: str) -> Iterator[Graph]:
    dense = build_subgraphs(encoder)
    token_shape = ("rows", "length")
    mask, positions = TensorSpec("mask", "bool", token_shape), TensorSpec("positions", "int64", token_shape)
    tokens = (
        TensorSpec("input_ids", "int64", token_shape),
        TensorSpec("token_type_ids", "int64", token_shape),
        positions,
        mask,
    )
    shape = (*token_shape, encoder.hidden_size)
    next_states = TensorSpec("next_states", "float32", shape, becomes="states")
    inputs = (TensorSpec("states", "float32", shape), mask, *([positions] if dense.reads_positions else []))
    yield Graph(f"embed{suffix}", dense.embed, tokens, next_states)
    next_pairs = [*pairwise(exits), None]
    for index, (exit_, pair) in enumerate(zip(exits, next_pairs, strict=True)):
        labels = encoder.probes[index].head.classifier.weight.shape[0]
        logits = TensorSpec("logits", "float32", ("rows", labels), becomes="logits")
        yield Graph(f"probe_{exit_}", dense.probe[index], inputs, logits, exit_)
        if pair is not None:
            yield Graph(f"advance_{pair[0]}_{pair[1]}", dense.advance[index], inputs, next_states)


def _full_depth(encoder: Encoder, graphs: list[Graph]) -> Graph:
    """Composes the subgraphs of a model, without the probes of its earlier exits."""
    *earlier, last = graphs
    module = FullDepth([*(graph for graph in earlier if graph.exit_ is None), last], encoder.padding_idx)
    names = ["input_ids", "attention_mask"]
    if encoder.embeddings.token_types is not None:
        names.append("token_type_ids")
    inputs = tuple(TensorSpec(name, "int64", ("rows", "length")) for name in names)
    return Graph("full_depth", module, inputs, last.output)


class FullDepth(nn.Module):
    """Runs all layers of a model with the inputs of a Hugging Face classifier; returns logits (rows, labels)."""

    def __init__(self, graphs: Sequence[Graph], padding_idx: int | None):
        super().__init__()
        self.padding_idx = padding_idx
        self.steps = [(tuple(spec.name for spec in graph.inputs), graph.output.becomes) for graph in graphs]
        self.parts = nn.ModuleList(graph.module for graph in graphs)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.padding_idx is None:
            positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        else:
            counted = (input_ids != self.padding_idx).long()
            positions = counted.cumsum(1) * counted - 1
        values = {
            "input_ids": input_ids,
            "token_type_ids": torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids,
            "positions": positions,
            "mask": attention_mask != 0,
        }
        for (inputs, output), part in zip(self.steps, self.parts, strict=True):
            values[output] = part(*(values[name] for name in inputs))
        return values["logits"]


def example_tokens(subgraphs: Subgraphs, lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Returns example inputs by name, for rows with these lengths, truncated to the model's maximum."""
    lengths = torch.tensor(lengths).clamp(max=subgraphs.max_tokens or max(lengths))
    rows, columns = len(lengths), int(lengths.max())
    ids = (torch.arange(rows * columns) * 7919 + 11) % subgraphs.vocabulary
    if subgraphs.padding_idx is not None:  # would not advance the position
        ids[ids == subgraphs.padding_idx] = (subgraphs.padding_idx + 1) % subgraphs.vocabulary
    positions = torch.arange(columns).expand(rows, -1).contiguous()
    return {
        "input_ids": ids.view(rows, columns),
        "token_type_ids": torch.zeros_like(positions),
        "positions": positions,
        "mask": positions < lengths[:, None],
    }


def run_subgraphs(
    subgraphs: Subgraphs, tokens: dict[str, torch.Tensor]
) -> Iterator[tuple[Graph, dict[str, torch.Tensor], torch.Tensor]]:
    """Runs the subgraphs in order without early exits; yields each with its inputs and its output."""
    values = dict(tokens)
    for graph in subgraphs.graphs:
        inputs = {spec.name: values[spec.name] for spec in graph.inputs}
        with torch.no_grad():
            output = graph.module(*inputs.values())
        yield graph, inputs, output
        values[graph.output.becomes] = output
