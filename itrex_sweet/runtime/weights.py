"""Reading an artifact's tensors into an `Encoder`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ArtifactError
from itrex_sweet.families import Family, family_of
from itrex_sweet.runtime.encoder import (
    AnyLinear,
    Convolution,
    Embeddings,
    Encoder,
    Head,
    Layer,
    Linear,
    Norm,
    QuantizedLinear,
    RelativeTerms,
    float_of,
)


def load_encoder(
    artifact: Artifact, tensors: Mapping[str, torch.Tensor] | None = None, with_certainty: bool | None = None
) -> Encoder:
    """Reads an artifact's weights: float32, and 8-bit integers where it was quantized.

    Args:
        artifact: opened by `open_artifact`.
        tensors: instead of those of its weights file, under the same names.
        with_certainty: whether heads also give what they learned of being right; by default, if they did.

    Raises:
        ArtifactError: a tensor is missing or has a shape that does not fit.
        UnsupportedModelError: the config is of no family in the table.
    """
    config = artifact.model_config()
    tensors = artifact.tensors() if tensors is None else tensors
    with_certainty = artifact.learned_to_exit if with_certainty is None else with_certainty
    return _Reader(artifact, config, family_of(config), tensors, with_certainty).encoder()


class _Reader:
    """Takes tensors by canonical name out of one artifact, checking shapes."""

    def __init__(
        self,
        artifact: Artifact,
        config: Any,
        family: Family,
        tensors: Mapping[str, torch.Tensor],
        with_certainty: bool,
    ):
        self.with_certainty = with_certainty
        self.artifact, self.config, self.family, self.tensors = artifact, config, family, tensors
        self.hidden = config.hidden_size
        self.eps = family.eps_of_norms(config)

    def encoder(self) -> Encoder:
        config, family = self.config, self.family
        depth, heads = config.num_hidden_layers, config.num_attention_heads
        embeddings = self.embeddings()
        uncounted = config.pad_token_id if family.positions_skip_padding else None
        table = self.relative_table()
        return Encoder(
            embeddings=embeddings,
            layers=tuple(self.layer(index, table) for index in range(depth)),
            heads=tuple(self.head(exit_, depth) for exit_ in self.artifact.exits),
            num_labels=config.num_labels,
            num_attention_heads=heads,
            activation=getattr(config, family.hidden_act),
            score_scale=(self.head_size * self.score_terms) ** 0.5,
            uncounted_token=uncounted,
            max_tokens=_max_tokens(embeddings.positions, uncounted),
            relative_index=None if table is None else self.relative_index(),
        )

    # ------------------------------------------------------------------ tensors by path

    def tensor(self, name: str, shape: tuple[int | None, ...]) -> torch.Tensor:
        """In float32."""
        return self.stored(name, shape).float()

    def stored(self, name: str, shape: tuple[int | None, ...]) -> torch.Tensor:
        """As it is stored."""
        if name not in self.tensors:
            raise ArtifactError(f"{self.artifact.directory}: the weights lack {name!r}; write the artifact anew.")
        tensor = self.tensors[name].contiguous()
        if len(shape) != tensor.dim() or any(
            want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
        ):
            raise ArtifactError(
                f"{self.artifact.directory}: {name!r} has shape {tuple(tensor.shape)}, the config needs {shape}."
            )
        return tensor

    def linear(self, path: str, out: int | None, in_: int | None = None) -> Linear:
        weight = self.tensor(f"{path}.weight", (out, in_ or self.hidden))
        has_bias = f"{path}.bias" in self.tensors
        return Linear(weight, self.tensor(f"{path}.bias", (weight.shape[0],)) if has_bias else None)

    def projection(self, path: str, out: int | None, in_: int | None = None) -> AnyLinear:
        """A linear layer of the encoder, quantized or not."""
        if not self.is_quantized(path):
            return self.linear(path, out, in_)
        weight = self.stored(f"{path}.weight", (out, in_ or self.hidden))
        has_bias = f"{path}.bias" in self.tensors
        return QuantizedLinear(
            weight=weight,
            weight_scale=self.tensor(f"{path}.weight_scale", (weight.shape[0],)),
            bias=self.tensor(f"{path}.bias", (weight.shape[0],)) if has_bias else None,
            **self.input_range(path, weight.shape[1]),
        )

    def is_quantized(self, path: str) -> bool:
        stored = self.tensors.get(f"{path}.weight")
        return stored is not None and stored.dtype == torch.int8

    def input_range(self, path: str, size: int) -> dict[str, Any]:
        """How the input of a quantized layer becomes integers."""
        is_static = f"{path}.input_scale" in self.tensors
        is_smoothed = f"{path}.input_smoothing" in self.tensors
        return {
            "input_scale": self.tensor(f"{path}.input_scale", ()).item() if is_static else None,
            "input_zero_point": int(self.stored(f"{path}.input_zero_point", ()).item()) if is_static else None,
            "input_smoothing": self.tensor(f"{path}.input_smoothing", (size,)) if is_smoothed else None,
        }

    def norm(self, path: str, size: int | None = None) -> Norm:
        shape = (size or self.hidden,)
        return Norm(self.tensor(f"{path}.weight", shape), self.tensor(f"{path}.bias", shape), self.eps)

    def in_backbone(self, path: str) -> str:
        return f"{self.family.backbone}.{path}"

    def in_layer(self, index: int, path: str) -> str:
        return f"{self.family.layers_path}.{index}.{path}"

    # ------------------------------------------------------------------ parts

    def embeddings(self) -> Embeddings:
        paths = {name: self.in_backbone(path) for name, path in self.family.embeddings.items()}
        words = self.tensor(f"{paths['words']}.weight", (self.config.vocab_size, None))
        size = words.shape[1]

        def optional(name: str) -> str | None:
            path = paths.get(name)
            return path if path is not None and f"{path}.weight" in self.tensors else None

        def table(name: str) -> torch.Tensor | None:
            path = optional(name)
            return self.tensor(f"{path}.weight", (None, size)) if path else None

        before, after = optional("projection_before_norm"), optional("projection_after_norm")
        return Embeddings(
            words=words,
            positions=table("positions"),
            token_types=table("token_types"),
            norm=self.norm(paths["norm"], self.hidden if before else size),
            projection_before_norm=self.linear(before, self.hidden, size) if before else None,
            projection_after_norm=self.linear(after, self.hidden, size) if after else None,
        )

    def layer(self, index: int, table: torch.Tensor | None) -> Layer:
        paths = {name: self.in_layer(index, path) for name, path in self.family.layer.items()}
        query, key, value = self.projections(paths)
        up = self.projection(paths["up"], None)
        return Layer(
            query=query,
            key=key,
            value=value,
            attention_output=self.projection(paths["attention_output"], self.hidden, query.weight.shape[0]),
            attention_norm=self.norm(paths["attention_norm"]),
            up=up,
            down=self.projection(paths["down"], self.hidden, up.weight.shape[0]),
            output_norm=self.norm(paths["output_norm"]),
            relative=None if table is None else self.relative_terms(index, table, query, key),
            convolution=self.convolution() if index == 0 else None,
        )

    def projections(self, paths: Mapping[str, str]) -> tuple[AnyLinear, AnyLinear, AnyLinear]:
        if "query_key_value" not in paths:
            return tuple(self.projection(paths[name], None) for name in ("query", "key", "value"))
        path = paths["query_key_value"]
        query_bias, value_bias = (self.tensor(paths[name], (self.hidden,)) for name in ("query_bias", "value_bias"))
        biases = (query_bias, None, value_bias)
        weights = self.split_by_head(self.stored(f"{path}.weight", (3 * self.hidden, self.hidden)))
        if not self.is_quantized(path):
            return tuple(Linear(weight.float(), bias) for weight, bias in zip(weights, biases, strict=True))
        scales = self.split_by_head(self.tensor(f"{path}.weight_scale", (3 * self.hidden,)))
        inputs = self.input_range(path, self.hidden)
        return tuple(
            QuantizedLinear(weight, scale, bias, **inputs)
            for weight, scale, bias in zip(weights, scales, biases, strict=True)
        )

    def split_by_head(self, fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query, key and value rows of a tensor whose rows are interleaved by head."""
        by_head = fused.view(self.config.num_attention_heads, 3, self.head_size, *fused.shape[1:])
        return tuple(part.reshape(self.hidden, *fused.shape[1:]) for part in by_head.unbind(1))

    def head(self, exit_: int, depth: int) -> Head:
        dense, path = self.family.head_paths(exit_, depth, self.artifact.shares_pooler)
        classifier = self.linear(path, self.config.num_labels)
        if self.with_certainty:
            classifier = _with_row(classifier, self.certainty(exit_, depth))
        return Head(
            dense=self.linear(dense, self.hidden),
            activation=self.family.activation_of_head(self.config),
            classifier=classifier,
        )

    def certainty(self, exit_: int, depth: int) -> Linear:
        """What gives the logit of being right; the last exit, which answers whoever comes, has learned none."""
        if exit_ == depth:
            return Linear(torch.zeros(1, self.hidden), torch.zeros(1))
        return self.linear(self.family.certainty_path(exit_), 1)

    # ------------------------------------------------------------------ DeBERTa

    @property
    def head_size(self) -> int:
        return self.hidden // self.config.num_attention_heads

    @property
    def score_terms(self) -> int:
        """Terms summed in a score: content, and DeBERTa's relative ones (He et al. 2021, equation 4)."""
        return 1 + len(self.position_terms) if self.family.attention == "disentangled" else 1

    @property
    def position_terms(self) -> list[str]:
        return [term for term in self.config.pos_att_type or [] if term in ("c2p", "p2c")]

    @property
    def max_distance(self) -> int:
        configured = getattr(self.config, "max_relative_positions", -1)
        return configured if configured >= 1 else self.config.max_position_embeddings

    @property
    def buckets(self) -> int:
        """Relative positions on either side of zero that the table tells apart."""
        configured = getattr(self.config, "position_buckets", -1)
        return configured if configured > 0 else self.max_distance

    def relative_table(self) -> torch.Tensor | None:
        """(2 span, hidden): the table that all layers share, normed where the model norms it."""
        if self.family.attention != "disentangled" or not getattr(self.config, "relative_attention", False):
            return None
        name = f"{self.in_backbone(self.family.relative['table'])}.weight"
        table = self.tensor(name, (2 * self.buckets, self.hidden))
        norms = (getattr(self.config, "norm_rel_ebd", None) or "none").lower().split("|")
        if "layer_norm" in [norm.strip() for norm in norms]:
            norm = self.norm(self.in_backbone(self.family.relative["table_norm"]))
            table = torch.nn.functional.layer_norm(table, table.shape[-1:], norm.weight, norm.bias, norm.eps)
        return table

    def relative_terms(self, index: int, table: torch.Tensor, query: AnyLinear, key: AnyLinear) -> RelativeTerms:
        shared = getattr(self.config, "share_att_key", False)

        def projected(name: str, content: AnyLinear) -> torch.Tensor:
            path = self.in_layer(index, self.family.relative[name])
            linear = float_of(content) if shared else self.linear(path, self.hidden)
            rows = torch.nn.functional.linear(table, linear.weight, linear.bias)
            return rows.view(len(rows), self.config.num_attention_heads, -1).transpose(0, 1).contiguous()

        return RelativeTerms(
            key=projected("position_key", key) if "c2p" in self.position_terms else None,
            query=projected("position_query", query) if "p2c" in self.position_terms else None,
        )

    def relative_index(self) -> torch.Tensor:
        """Row of the table for every distance between two positions, logarithmic beyond half the buckets in v2."""
        reach = max(self.config.max_position_embeddings, 2 * self.max_distance)
        distances = torch.arange(-(reach - 1), reach)
        if getattr(self.config, "position_buckets", -1) > 0:
            distances = _log_buckets(distances, self.config.position_buckets, self.max_distance)
        return (distances + self.buckets).clamp(0, 2 * self.buckets - 1)

    def convolution(self) -> Convolution | None:
        width = getattr(self.config, "conv_kernel_size", 0) or 0
        if width <= 0 or "convolution" not in self.family.relative:
            return None
        path = self.in_backbone(self.family.relative["convolution"])
        groups = getattr(self.config, "conv_groups", 1)
        return Convolution(
            weight=self.tensor(f"{path}.weight", (self.hidden, self.hidden // groups, width)),
            bias=self.tensor(f"{path}.bias", (self.hidden,)),
            groups=groups,
            activation=getattr(self.config, "conv_act", "tanh"),
            norm=self.norm(self.in_backbone(self.family.relative["convolution_norm"])),
        )


def _with_row(classifier: Linear, row: Linear) -> Linear:
    """One layer for both: the row comes behind the classifier's."""
    bias = torch.zeros(len(classifier.weight)) if classifier.bias is None else classifier.bias
    return Linear(torch.cat([classifier.weight, row.weight]), torch.cat([bias, row.bias]))


def _max_tokens(positions: torch.Tensor | None, uncounted_token: int | None) -> int | None:
    if positions is None:
        return None
    return len(positions) if uncounted_token is None else len(positions) - uncounted_token - 1


def _log_buckets(distances: torch.Tensor, buckets: int, max_distance: int) -> torch.Tensor:
    """Exact up to half the buckets, logarithmic beyond (DeBERTa-v2's position buckets), in float32 as trained."""
    half = buckets // 2
    magnitude = distances.abs().clamp(min=half).float()
    steps = torch.log(magnitude / half) / torch.log(torch.tensor((max_distance - 1) / half)) * (half - 1)
    logarithmic = (torch.ceil(steps) + half) * distances.sign()
    return torch.where(distances.abs() <= half, distances.float(), logarithmic).long()
