"""Reads an artifact's tensors into an `Encoder`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.artifact.checking import check_tensors_of
from itrex_sweet.artifact.stored_tensor import StoredTensor
from itrex_sweet.artifact.validation.tensors import QUANTIZED
from itrex_sweet.families import family_of
from itrex_sweet.families.rotary import inverse_frequencies
from itrex_sweet.runtime.encoder import (
    AnyLinear,
    Convolution,
    Embeddings,
    Encoder,
    Head,
    Layer,
    Linear,
    Norm,
    Probe,
    QuantizedLinear,
    QuantizedTable,
    RelativeTerms,
    Rotary,
    float_of,
)
from itrex_sweet.runtime.head_order import halves_of_neighbors, repeated_heads, with_outputs
from itrex_sweet.runtime.relative_positions import normed, position_bias, projected_by_head, relative_index

if TYPE_CHECKING:
    import torch


def load_encoder(
    artifact: Artifact, tensors: Mapping[str, torch.Tensor] | None = None, with_correctness_logit: bool | None = None
) -> Encoder:
    """Reads an artifact's weights into NumPy arrays: float32, and 8-bit integers where it was quantized.

    Args:
        artifact: opened by `open_artifact`.
        tensors: instead of those of its weights file, under the same names; in 8-bit integers, if need be.
        with_correctness_logit: whether heads also compute correctness logits; by default, if they were trained to.

    Raises:
        ArtifactError: a tensor is missing, has a shape or type that does not fit, or holds numbers out of range.
        UnsupportedModelError: the config is of no family in the table.
    """
    if tensors is None:
        stored = artifact.stored_tensors()
    else:
        stored = {name: StoredTensor.of_torch(tensor, artifact.directory) for name, tensor in tensors.items()}
        check_tensors_of(artifact, stored, of_its_files=False)
    config = artifact.resolved_config()
    with_correctness_logit = artifact.learned_to_exit if with_correctness_logit is None else with_correctness_logit
    return _Reader(artifact, Architecture(config, family_of(config)), stored, with_correctness_logit).encoder()


class _Reader:
    """Reads the parts of an encoder from checked tensors of one artifact."""

    def __init__(
        self,
        artifact: Artifact,
        model: Architecture,
        tensors: Mapping[str, StoredTensor],
        with_correctness_logit: bool,
    ):
        self.artifact, self.model, self.tensors = artifact, model, tensors
        self.with_correctness_logit = with_correctness_logit
        self.config, self.family, self.hidden = model.config, model.family, model.hidden
        self.eps = model.family.eps_of_norms(model.config)
        self.positions = model.layer_positions

    def encoder(self) -> Encoder:
        config, family, model = self.config, self.family, self.model
        embeddings = self.embeddings()
        padding_idx = config.pad_token_id if family.positions_skip_padding else None
        table = self.relative_table()
        segments, probes = self.plan(table)
        return Encoder(
            embeddings=embeddings,
            segments=segments,
            probes=probes,
            num_labels=config.num_labels,
            num_attention_heads=model.heads,
            activation=getattr(config, family.hidden_act),
            score_scale=(model.head_size * model.score_terms) ** 0.5,
            padding_idx=padding_idx,
            max_tokens=self.max_tokens(embeddings.positions, padding_idx),
            relative_index=None if table is None else self.relative_index(),
            position_bias=self.position_bias(),
            norm_first=family.norm_first,
        )

    def max_tokens(self, positions: np.ndarray | None, padding_idx: int | None) -> int | None:
        """Returns the maximum number of tokens of a row; `None` without a limit."""
        if self.positions is not None:
            return self.config.max_position_embeddings  # of the texts that the model was trained on
        if positions is None:
            return None
        return len(positions) if padding_idx is None else len(positions) - padding_idx - 1

    # ------------------------------------------------------------------ tensors by path

    def tensor(self, name: str) -> np.ndarray:
        """Returns a tensor in float32."""
        return self.tensors[name].as_float32()

    def optional(self, name: str) -> np.ndarray | None:
        """Returns a tensor in float32; `None` if it is absent."""
        return self.tensor(name) if name in self.tensors else None

    def linear(self, path: str) -> Linear:
        return Linear(self.tensor(f"{path}.weight"), self.optional(f"{path}.bias"))

    def projection(self, path: str) -> AnyLinear:
        """Returns a linear layer of the encoder, quantized or not."""
        if not self.is_quantized(path):
            return self.linear(path)
        return QuantizedLinear(
            weight=self.tensors[f"{path}.weight"].values,
            weight_scale=self.tensor(f"{path}.weight_scale"),
            bias=self.optional(f"{path}.bias"),
            **self.input_range(path),
        )

    def is_quantized(self, path: str) -> bool:
        return self.tensors[f"{path}.weight"].dtype == QUANTIZED

    def input_range(self, path: str) -> dict[str, Any]:
        """Returns the quantization parameters of the input of a quantized layer."""
        is_static = f"{path}.input_scale" in self.tensors
        return {
            "input_scale": self.tensor(f"{path}.input_scale").item() if is_static else None,
            "input_zero_point": int(self.tensors[f"{path}.input_zero_point"].values) if is_static else None,
            "input_smoothing": self.optional(f"{path}.input_smoothing"),
        }

    def norm(self, path: str) -> Norm:
        return Norm(self.tensor(f"{path}.weight"), self.optional(f"{path}.bias"), self.eps, self.family.rms_norm)

    def in_backbone(self, path: str) -> str:
        return f"{self.family.backbone}.{path}"

    # ------------------------------------------------------------------ the plan

    def plan(self, table: np.ndarray | None) -> tuple[tuple[tuple[Layer, ...], ...], tuple[Probe, ...]]:
        """Returns segments and probes; see `Encoder`."""
        path, exits = self.family.layers_path, self.artifact.exits
        trunk = [
            self.layer(f"{path}.{index}", index, table, self.convolution() if index == 0 else None)
            for index in range(self.model.depth)
        ]
        borders = (0, *(exit_ - 1 for exit_ in exits))
        segments = tuple(tuple(trunk[start:stop]) for start, stop in pairwise(borders))
        # DeBERTa-v2's convolution beside the first layer is no part of a private copy of it.
        private = {
            exit_: self.layer(self.family.private_layer_path(exit_), exit_ - 1, table, None, is_private=True)
            for exit_ in self.artifact.private_exits
        }
        probes = tuple(
            Probe(private.get(exit_, trunk[exit_ - 1]), self.head(exit_), self.final_norm(exit_)) for exit_ in exits
        )
        return segments, probes

    # ------------------------------------------------------------------ parts

    def embeddings(self) -> Embeddings:
        paths = {name: self.in_backbone(path) for name, path in self.family.embeddings.items()}

        def table(name: str) -> np.ndarray | None:
            return self.optional(f"{paths[name]}.weight") if name in paths else None

        def projection(name: str) -> Linear | None:
            return self.linear(paths[name]) if f"{paths.get(name)}.weight" in self.tensors else None

        return Embeddings(
            words=self.words(paths["words"]),
            positions=table("positions"),
            token_types=table("token_types"),
            norm=self.norm(paths["norm"]) if "norm" in paths else None,
            projection_before_norm=projection("projection_before_norm"),
            projection_after_norm=projection("projection_after_norm"),
        )

    def words(self, path: str) -> np.ndarray | QuantizedTable:
        """Returns the table of word embeddings, quantized or not."""
        if not self.is_quantized(path):
            return self.tensor(f"{path}.weight")
        return QuantizedTable(self.tensors[f"{path}.weight"].values, self.tensor(f"{path}.weight_scale"))

    def layer(
        self,
        path: str,
        index: int,
        table: np.ndarray | None,
        convolution: Convolution | None,
        is_private: bool = False,
    ) -> Layer:
        """Reads the layer at a path, which is one of the trunk or a private copy of the trunk's layer `index`.

        A private copy has neither rotation nor window.
        """
        paths = {name: f"{path}.{below}" for name, below in self.family.layer.items()}
        positions = None if self.positions is None or is_private else self.positions[index]
        query, key, value = self.projections(paths, is_rotated=positions is not None)
        up, gate = self.up_and_gate(paths)
        return Layer(
            query=query,
            key=key,
            value=value,
            attention_output=self.projection(paths["attention_output"]),
            attention_norm=self.norm(paths["attention_norm"]) if self.model.has_attention_norm(index) else None,
            up=up,
            down=self.projection(paths["down"]),
            output_norm=self.norm(paths["output_norm"]),
            relative=None if table is None else self.relative_terms(path, table, query, key),
            convolution=convolution,
            gate=gate,
            rotary=None if positions is None else self.rotary(positions.theta),
            window=None if positions is None else positions.window,
        )

    def projections(self, paths: Mapping[str, str], is_rotated: bool) -> tuple[AnyLinear, ...]:
        """Returns query, key and value, each with as many heads as the query."""
        if "query_key_value" not in paths:
            query, key, value = (self.projection(paths[name]) for name in ("query", "key", "value"))
            heads, groups, size = self.model.heads, self.model.key_value_heads, self.model.head_size
            if groups != heads:
                order = repeated_heads(groups, heads // groups, size)
                key, value = with_outputs(key, order), with_outputs(value, order)
            if is_rotated and self.family.rotates_neighbors:
                order = halves_of_neighbors(heads, size)
                query, key = with_outputs(query, order), with_outputs(key, order)
            return query, key, value
        query, key, value = self.split(paths["query_key_value"], 3, by_head=self.family.splits_by_head)
        if "query_bias" in paths:
            query = dataclasses.replace(query, bias=self.tensor(paths["query_bias"]))
            key = dataclasses.replace(key, bias=None)
            value = dataclasses.replace(value, bias=self.tensor(paths["value_bias"]))
        return query, key, value

    def up_and_gate(self, paths: Mapping[str, str]) -> tuple[AnyLinear, AnyLinear | None]:
        if "up_gate" in paths:
            return self.split(paths["up_gate"], 2)
        return self.projection(paths["up"]), self.projection(paths["gate"]) if "gate" in paths else None

    def split(self, path: str, parts: int, by_head: bool = False) -> tuple[AnyLinear, ...]:
        """Splits the outputs of a linear layer into layers of equal size, in blocks, or interleaved by head."""
        whole = self.projection(path)

        def rows(array: np.ndarray | None) -> tuple[np.ndarray | None, ...]:
            if array is None:
                return (None,) * parts
            if not by_head:
                return tuple(np.split(array, parts))
            interleaved = array.reshape(self.model.heads, parts, -1, *array.shape[1:])
            return tuple(interleaved[:, part].reshape(-1, *array.shape[1:]) for part in range(parts))

        names = ("weight", "bias", *(("weight_scale",) if isinstance(whole, QuantizedLinear) else ()))
        split = {name: rows(getattr(whole, name)) for name in names}
        return tuple(dataclasses.replace(whole, **{name: split[name][part] for name in names}) for part in range(parts))

    def rotary(self, theta: float) -> Rotary:
        return Rotary(np.array(inverse_frequencies(theta, self.model.head_size), dtype=np.float32))

    def head(self, exit_: int) -> Head:
        dense, path = self.family.head_paths(exit_, self.model.depth, self.artifact.shares_pooler)
        _, norm = self.family.norm_paths(exit_, self.model.depth)
        classifier = self.linear(path)
        if self.with_correctness_logit:
            classifier = _with_row(classifier, self.correctness_logit(exit_))
        return Head(
            dense=self.linear(dense),
            activation=self.family.activation_of_head(self.config),
            classifier=classifier,
            norm=self.norm(norm) if norm is not None else None,
            pooling=self.family.pooling_of(self.config, exit_),
        )

    def final_norm(self, exit_: int) -> Norm | None:
        """Reads the norm after an exit's last layer, in a pre-norm model."""
        path, _ = self.family.norm_paths(exit_, self.model.depth)
        return None if path is None else self.norm(path)

    def correctness_logit(self, exit_: int) -> Linear:
        """Returns the layer that computes the correctness logit; zeros for the last exit, which has none."""
        if exit_ == self.model.depth:
            return Linear(np.zeros((1, self.hidden), np.float32), np.zeros(1, np.float32))
        return self.linear(self.family.correctness_path(exit_))

    # ------------------------------------------------------------------ relative positions

    def relative_table(self) -> np.ndarray | None:
        """Returns the table that all layers share, normalized if the model does so: (2 buckets, hidden)."""
        if not self.model.is_relative:
            return None
        table = self.tensor(f"{self.in_backbone(self.family.relative['table'])}.weight")
        if not self.model.norms_table:
            return table
        return normed(table, self.norm(self.in_backbone(self.family.relative["table_norm"])))

    def relative_terms(self, layer: str, table: np.ndarray, query: AnyLinear, key: AnyLinear) -> RelativeTerms:
        def projected(name: str, content: AnyLinear) -> np.ndarray:
            path = f"{layer}.{self.family.relative[name]}"
            linear = float_of(content) if self.model.shares_position_weights else self.linear(path)
            return projected_by_head(table, linear, self.model.heads)

        terms = self.model.position_terms
        return RelativeTerms(
            key=projected("position_key", key) if "c2p" in terms else None,
            query=projected("position_query", query) if "p2c" in terms else None,
        )

    def relative_index(self) -> np.ndarray:
        """Returns the row of the table for every distance between two positions."""
        reach = max(self.config.max_position_embeddings, 2 * self.model.max_distance)
        return relative_index(self.model, reach)

    def position_bias(self) -> np.ndarray | None:
        """Returns the bias of every head and distance; `None` if the family has none."""
        if not self.model.bias_buckets:
            return None
        table = self.tensor(f"{self.in_backbone(self.family.relative['bias'])}.weight")
        return position_bias(table, self.config.max_position_embeddings)

    def convolution(self) -> Convolution | None:
        if not self.model.convolution_width:
            return None
        path = self.in_backbone(self.family.relative["convolution"])
        return Convolution(
            weight=self.tensor(f"{path}.weight"),
            bias=self.tensor(f"{path}.bias"),
            groups=self.model.convolution_groups,
            activation=getattr(self.config, "conv_act", None) or "tanh",
            norm=self.norm(self.in_backbone(self.family.relative["convolution_norm"])),
        )


def _with_row(classifier: Linear, row: Linear) -> Linear:
    """Returns a classifier with one more output, appended to its rows."""
    bias = np.zeros(len(classifier.weight), np.float32) if classifier.bias is None else classifier.bias
    return Linear(np.concatenate([classifier.weight, row.weight]), np.concatenate([bias, row.bias]))
