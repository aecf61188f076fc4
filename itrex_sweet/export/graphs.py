"""An artifact's subgraphs with names, inputs and outputs, in the order in which a row meets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from itrex_sweet.artifact import CASCADE, Artifact
from itrex_sweet.runtime.dense import build_subgraphs
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.torch_encoder import load_torch_encoder


@dataclass(frozen=True)
class Port:
    """An input or output.

    Args:
        name: in the file; an output's differs from that of every input.
        dtype: `"int64"`, `"bool"` or `"float32"`.
        shape: numbers, and names of sizes that vary from call to call.
        becomes: the input of later subgraphs that an output is.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    becomes: str | None = None


@dataclass(frozen=True)
class Graph:
    """One subgraph.

    Args:
        name: `embed`, `probe_4`, `advance_4_6`; in a cascade `embed_4` and `probe_4`, one model each.
        module: takes the inputs in order, gives the output.
        exit_: the exit that it answers, a count of layers from 1, if it is a probe.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    output: Port
    exit_: int | None = None


@dataclass(frozen=True)
class Subgraphs:
    """All subgraphs of an artifact.

    Args:
        graphs: in the order in which a row meets them.
        vocabulary: number of token ids.
        max_tokens: longest row, or `None` where positions are not bounded.
        padding_idx: see `TokenBatch`.
    """

    graphs: tuple[Graph, ...]
    vocabulary: int
    max_tokens: int | None
    padding_idx: int | None


def subgraphs_of(artifact: Artifact) -> Subgraphs:
    """Builds the subgraphs of an early-exit artifact, or those of every model of a cascade.

    Raises:
        ArtifactError: the weights do not fit the config.
    """
    if artifact.architecture == CASCADE:
        encoders = [load_torch_encoder(stage) for stage in artifact.stages]
        parts = [
            _of_model(encoder, stage.exits, f"_{exit_}")
            for encoder, stage, exit_ in zip(encoders, artifact.stages, artifact.exits, strict=True)
        ]
    else:
        encoders = [load_torch_encoder(artifact, with_certainty=False)]
        parts = [_of_model(encoders[0], artifact.exits, "")]
    limits = [encoder.max_tokens for encoder in encoders if encoder.max_tokens is not None]
    return Subgraphs(
        graphs=tuple(graph for part in parts for graph in part),
        vocabulary=min(len(encoder.embeddings.words) for encoder in encoders),
        max_tokens=min(limits, default=None),
        padding_idx=encoders[-1].padding_idx,
    )


def _of_model(encoder: Encoder, exits: tuple[int, ...], suffix: str) -> Iterator[Graph]:
    dense = build_subgraphs(encoder)
    by_token = ("rows", "length")
    mask, positions = Port("mask", "bool", by_token), Port("positions", "int64", by_token)
    tokens = (Port("input_ids", "int64", by_token), Port("token_type_ids", "int64", by_token), positions, mask)
    shape = (*by_token, encoder.hidden_size)
    next_states = Port("next_states", "float32", shape, becomes="states")
    inputs = (Port("states", "float32", shape), mask, *([positions] if dense.reads_positions else []))
    yield Graph(f"embed{suffix}", dense.embed, tokens, next_states)
    following = [*pairwise(exits), None]
    for place, (exit_, between) in enumerate(zip(exits, following, strict=True)):
        labels = encoder.probes[place].head.classifier.weight.shape[0]
        logits = Port("logits", "float32", ("rows", labels), becomes="logits")
        yield Graph(f"probe_{exit_}", dense.probe[place], inputs, logits, exit_)
        if between is not None:
            yield Graph(f"advance_{between[0]}_{between[1]}", dense.advance[place], inputs, next_states)


def tokens_like(subgraphs: Subgraphs, lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Inputs of rows with these lengths, cut to what the model takes, by name; ids run through the vocabulary."""
    lengths = torch.tensor(lengths).clamp(max=subgraphs.max_tokens or max(lengths))
    rows, columns = len(lengths), int(lengths.max())
    ids = (torch.arange(rows * columns) * 7919 + 11) % subgraphs.vocabulary
    positions = torch.arange(columns).expand(rows, -1).contiguous()
    return {
        "input_ids": ids.view(rows, columns),
        "token_type_ids": torch.zeros_like(positions),
        "positions": positions,
        "mask": positions < lengths[:, None],
    }


def walk(
    subgraphs: Subgraphs, tokens: dict[str, torch.Tensor]
) -> Iterator[tuple[Graph, dict[str, torch.Tensor], torch.Tensor]]:
    """Runs the subgraphs one after the other on some rows, none leaving: each with its inputs and its output."""
    values = dict(tokens)
    for graph in subgraphs.graphs:
        inputs = {port.name: values[port.name] for port in graph.inputs}
        with torch.no_grad():
            output = graph.module(*inputs.values())
        yield graph, inputs, output
        values[graph.output.becomes] = output
