"""The description of a Hugging Face family: paths of layers, projections and heads. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXIT_HEADS = "sweet_exits"  # the submodule of the classification model that holds the exit heads, by exit
PRIVATE_LAYER = "layer"  # below an exit there

_LAYER_DROPOUTS = {
    "attention": "attention_probs_dropout_prob",
    "attention_output": "hidden_dropout_prob",
    "down": "hidden_dropout_prob",
    "table": "hidden_dropout_prob",
}


@dataclass(frozen=True)
class Family:
    """Paths and config fields of one family. Paths are attribute paths, separated by dots.

    Args:
        model_type: `config.model_type` of the family.
        backbone: attribute of the classification model that holds the encoder.
        layers: path of the list of layers, below the backbone.
        layer: canonical name of each projection and norm → path below a layer.
        embeddings: canonical name of each embedding table and norm → path below the backbone. Optional ones may be
            absent from the checkpoint, and a family without `"norm"` adds the tables only.
        head_dense: path of the linear layer of the pooler, from the model.
        head_out: path of the linear layer that gives the logits, from the model.
        head_activation: its activation between the two; `config.NAME` reads it from the config.
        head_dropouts: config keys, first one set wins, of the dropout before `head_dense` and before `head_out`.
        hidden_act: config key of the feed-forward activation.
        inner_size: config key of the size between the feed-forward layers.
        layer_dropouts: place of a dropout in a layer → config key of its probability: `"attention"` (the attention
            weights), `"attention_output"` and `"down"` (the outputs of these linear layers), `"inner"` (the input of
            `down`), `"table"` (relative positions).
        norm_eps: config key of the epsilon of the norms, or the epsilon itself.
        rms_norm: norms divide by the root mean square and do not subtract the mean (RMSNorm, arXiv 1910.07467).
        positions_skip_padding: position ids count the tokens that are not the padding token, from
            `pad_token_id + 1` (fairseq's convention), and not the columns, from 0.
        attention: `"absolute"`, `"disentangled"` (DeBERTa: relative positions enter the scores), `"rotary"` (queries
            and keys are rotated, `families.rotary`), or `"biased"` (MPNet: absolute, and a learned value for each head
            and bucket of distances is added to the scores).
        key_value_heads: config key of the number of heads of keys and values, each of which serves several query heads
            (arXiv 2305.13245); as many as query heads where the config does not set it, or without a key.
        relative: canonical name of each part of disentangled or biased attention → path below the backbone (what the
            layers share) or below a layer.
        defaults: value of a config field where `config.json` leaves it out, as in transformers.
        own_names: name of a config field in this family → the generic name that transformers gives it.
        norm_first: layers are pre-norm, `x + part(norm(x))`, and a final norm follows the last one.
        first_attention_norm: the first layer has a norm before its attention, in a pre-norm family.
        final_norm: path of the final norm, below the backbone.
        head_norm: path of the norm between activation and classifier of the head, from the model.
        splits_by_head: the rows of `query_key_value` are interleaved by head (q, k, v of head 0, then of head 1, …);
            otherwise all of q come first, then all of k, then all of v.
        biases: kind of part, `"attention"`, `"up"` (`up` and `gate`), `"down"`, `"norm"` or `"head"` (its first linear
            layer) → whether parts of this kind have a bias, or the config key that says so. Without an entry they have.
        pooling: config key of the state that the head reads; `None` for the first token. Exits before the last always
            read the first token.
        poolings: value of that key → kind of pooling, see `runtime.encoder.Head`.
        fixed: value of each config field that the family's code in transformers does not read, but takes for given.
        local_layers: layers with rotary positions differ in frequencies and window, as the config says; otherwise all
            have the same frequencies and no window.
        theta: base of the rotary frequencies of a family whose configs do not have it.
        rotates_neighbors: the rotated pairs of a head are its elements `2 i` and `2 i + 1`; otherwise `i` and
            `i + head size / 2`.
        sinusoids: path, below the backbone, of a table of the sines, then the cosines, of every position's angles. It
            must be the one of `theta`, and is not read.
    """

    model_type: str
    backbone: str
    layers: str
    layer: Mapping[str, str]
    embeddings: Mapping[str, str]
    head_dense: str
    head_out: str
    head_activation: str
    head_dropouts: tuple[tuple[str, ...], tuple[str, ...]]
    hidden_act: str = "hidden_act"
    inner_size: str = "intermediate_size"
    norm_eps: str | float = "layer_norm_eps"
    rms_norm: bool = False
    layer_dropouts: Mapping[str, str] = field(default_factory=lambda: _LAYER_DROPOUTS)
    positions_skip_padding: bool = False
    attention: str = "absolute"
    key_value_heads: str | None = None
    relative: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    own_names: Mapping[str, str] = field(default_factory=dict)
    norm_first: bool = False
    first_attention_norm: bool = True
    final_norm: str | None = None
    head_norm: str | None = None
    splits_by_head: bool = False
    biases: Mapping[str, str | bool] = field(default_factory=dict)
    pooling: str | None = None
    poolings: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    local_layers: bool = False
    theta: float | None = None
    rotates_neighbors: bool = False
    sinusoids: str | None = None

    @property
    def layers_path(self) -> str:
        """Path of the list of layers, from the classification model."""
        return f"{self.backbone}.{self.layers}"

    @property
    def word_embeddings(self) -> str:
        """Path of the table of word embeddings, from the classification model."""
        return f"{self.backbone}.{self.embeddings['words']}"

    def head_paths(self, exit_: int, depth: int, shares_pooler: bool) -> tuple[str, str]:
        """Returns the paths, from the model, of the two linear layers (pooler, classifier) that an exit answers with.

        Args:
            exit_: the exit, a count of layers from 1.
            depth: layers of the model; the exit there is the model's own head.
            shares_pooler: whether every exit reads through the model's own pooler.
        """
        if exit_ == depth:
            return self.head_dense, self.head_out
        own = f"{EXIT_HEADS}.{exit_}"
        return self.head_dense if shares_pooler else f"{own}.dense", f"{own}.classifier"

    def norm_paths(self, exit_: int, depth: int) -> tuple[str | None, str | None]:
        """Returns the paths, from the model, of the two norms of an exit: the norm after its last layer, in a
        pre-norm family, and the norm of its head; `None` where the family has none.
        """
        if exit_ == depth:
            return self.final_norm and f"{self.backbone}.{self.final_norm}", self.head_norm
        own = f"{EXIT_HEADS}.{exit_}"
        return self.final_norm and f"{own}.final_norm", self.head_norm and f"{own}.norm"

    def private_layer_path(self, exit_: int) -> str:
        """Returns the path, from the model, of an exit's private layer; the paths below it are those of `layer`."""
        return f"{EXIT_HEADS}.{exit_}.{PRIVATE_LAYER}"

    def correctness_path(self, exit_: int) -> str:
        """Returns the path, from the model, of the linear layer for the correctness logit of an exit before the "
        "last."""
        return f"{EXIT_HEADS}.{exit_}.certainty"

    def bias_keys(self) -> list[str]:
        """Returns the config keys that say whether parts have a bias."""
        return sorted({key for key in self.biases.values() if isinstance(key, str)})

    def activation_of_head(self, config: Any) -> str:
        """Returns the name of the activation between pooler and classifier, as in `transformers.activations.ACT2FN`."""
        if self.head_activation.startswith("config."):
            return getattr(config, self.head_activation.removeprefix("config."))
        return self.head_activation

    def pooling_of(self, config: Any, exit_: int) -> str:
        """Returns the kind of pooling of the head of an exit, see `runtime.encoder.Head`."""
        if self.pooling is None or exit_ < config.num_hidden_layers:
            return "first"
        return self.poolings[getattr(config, self.pooling)]

    def dropouts_of_head(self, config: Any) -> tuple[float, float]:
        """Returns the dropout probabilities before the pooler's linear layer and before the classifier's."""
        return tuple(_first_set(config, keys) for keys in self.head_dropouts)

    def dropouts_of_layer(self, config: Any) -> dict[str, float]:
        """Returns the dropout probability of each part of a layer that has one."""
        return {place: float(getattr(config, key)) for place, key in self.layer_dropouts.items()}

    def with_defaults(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a `config.json` under their generic names, with defaults of those that are absent."""
        given = dict(fields)
        for own, generic in self.own_names.items():
            if own in given:  # transformers prefers the generic name if both are given
                given = {generic: given.pop(own), **given}
        return {**self.defaults, **given}

    def eps_of_norms(self, config: Any) -> float:
        """Returns the epsilon of the encoder's norms."""
        return getattr(config, self.norm_eps) if isinstance(self.norm_eps, str) else self.norm_eps


def _first_set(config: Any, keys: tuple[str, ...]) -> float:
    values = (getattr(config, key, None) for key in keys)
    return next((float(value) for value in values if value is not None), 0.0)


def is_of_private_layer(path: str) -> bool:
    """Returns whether a tensor or module belongs to the private layer of an exit."""
    parts = path.split(".")
    return len(parts) > 3 and parts[0] == EXIT_HEADS and parts[2] == PRIVATE_LAYER
