"""Table of the supported Hugging Face families: paths of layers, projections and heads. Imports no torch.

Training finds modules by these paths, the runtime finds tensors by the same paths plus `.weight` and `.bias`. To add a
family, add a row to `FAMILIES` and its tiny configuration to `tests/tiny_models.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.errors import ConfigError, UnsupportedModelError
from itrex_sweet.tasks import task_of

EXIT_HEADS = "sweet_exits"  # the submodule of the classification model that holds the exit heads, by exit
PRIVATE_LAYER = "layer"  # below an exit there

ALBERT_REASON = (
    "ALBERT uses the same weights in every layer, so SWEET cannot separate them: a layer cannot belong to one exit only"
)


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
            absent from the checkpoint.
        head_dense: path of the linear layer of the pooler, from the model.
        head_out: path of the linear layer that gives the logits, from the model.
        head_activation: its activation between the two; `config.NAME` reads it from the config.
        head_dropouts: config keys, first one set wins, of the dropout before `head_dense` and before `head_out`.
        hidden_act: config key of the feed-forward activation.
        inner_size: config key of the size between the feed-forward layers.
        layer_dropouts: place of a dropout in a layer → config key of its probability: `"attention"` (the attention
            weights), `"attention_output"` and `"down"` (the outputs of these linear layers), `"table"` (relative
            positions).
        norm_eps: config key of the epsilon of the layer norms, or the epsilon itself.
        positions_skip_padding: position ids count the tokens that are not the padding token, from
            `pad_token_id + 1` (fairseq's convention), and not the columns, from 0.
        attention: `"absolute"`, or `"disentangled"` (DeBERTa: relative positions enter the scores).
        relative: canonical name of each part of disentangled attention → path below the backbone (the shared table
            and its norm) or below a layer.
        defaults: value of a config field where `config.json` leaves it out, as in transformers.
        own_names: name of a config field in this family → the generic name that transformers gives it.
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
    layer_dropouts: Mapping[str, str] = field(default_factory=lambda: _LAYER_DROPOUTS)
    positions_skip_padding: bool = False
    attention: str = "absolute"
    relative: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    own_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def layers_path(self) -> str:
        """Path of the list of layers, from the classification model."""
        return f"{self.backbone}.{self.layers}"

    def head_paths(self, exit_: int, depth: int, shares_pooler: bool) -> tuple[str, str]:
        """Paths, from the model, of the two linear layers (pooler, classifier) that an exit answers with.

        Args:
            exit_: the exit, a count of layers from 1.
            depth: layers of the model; the exit there is the model's own head.
            shares_pooler: whether every exit reads through the model's own pooler.
        """
        if exit_ == depth:
            return self.head_dense, self.head_out
        own = f"{EXIT_HEADS}.{exit_}"
        return self.head_dense if shares_pooler else f"{own}.dense", f"{own}.classifier"

    def private_layer_path(self, exit_: int) -> str:
        """Path, from the model, of an exit's private layer; the paths below it are those of `layer`."""
        return f"{EXIT_HEADS}.{exit_}.{PRIVATE_LAYER}"

    def correctness_path(self, exit_: int) -> str:
        """Path, from the model, of the linear layer that computes the correctness logit of an exit before the last."""
        return f"{EXIT_HEADS}.{exit_}.certainty"

    def activation_of_head(self, config: Any) -> str:
        """Name of the activation between pooler and classifier, as in `transformers.activations.ACT2FN`."""
        if self.head_activation.startswith("config."):
            return getattr(config, self.head_activation.removeprefix("config."))
        return self.head_activation

    def dropouts_of_head(self, config: Any) -> tuple[float, float]:
        """Dropout probabilities before the pooler's linear layer and before the classifier's."""
        return tuple(_first_set(config, keys) for keys in self.head_dropouts)

    def dropouts_of_layer(self, config: Any) -> dict[str, float]:
        """Dropout probability of each place in a layer that has one."""
        return {place: float(getattr(config, key)) for place, key in self.layer_dropouts.items()}

    def eps_of_norms(self, config: Any) -> float:
        """Epsilon of the encoder's layer norms."""
        return getattr(config, self.norm_eps) if isinstance(self.norm_eps, str) else self.norm_eps


def _first_set(config: Any, keys: tuple[str, ...]) -> float:
    values = (getattr(config, key, None) for key in keys)
    return next((float(value) for value in values if value is not None), 0.0)


def is_of_private_layer(path: str) -> bool:
    """Returns whether a tensor or module belongs to the private layer of an exit."""
    parts = path.split(".")
    return len(parts) > 3 and parts[0] == EXIT_HEADS and parts[2] == PRIVATE_LAYER


_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
_AFTER_ATTENTION = {name: path for name, path in _BERT_LAYER.items() if name not in ("query", "key", "value")}
_DEBERTA_LAYER = {
    "query_key_value": "attention.self.in_proj",  # rows interleaved by head: q, k, v of head 0, then of head 1, …
    "query_bias": "attention.self.q_bias",
    "value_bias": "attention.self.v_bias",
    **_AFTER_ATTENTION,
}
_DEBERTA_V2_LAYER = {
    "query": "attention.self.query_proj",
    "key": "attention.self.key_proj",
    "value": "attention.self.value_proj",
    **_AFTER_ATTENTION,
}
_BERT_EMBEDDINGS = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
_DISTILBERT_EMBEDDINGS = {name: path for name, path in _BERT_EMBEDDINGS.items() if name != "token_types"}
_DEBERTA_EMBEDDINGS = {**_BERT_EMBEDDINGS, "projection_before_norm": "embeddings.embed_proj"}

# Fields that every family of BERT's kind has, with the values of `transformers.BertConfig`.
_BERT_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_DEBERTA_DEFAULTS: Mapping[str, Any] = {
    **_BERT_DEFAULTS,
    "vocab_size": 50265,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "pooler_hidden_act": "gelu",
    "relative_attention": False,
    "max_relative_positions": -1,
    "position_biased_input": True,
}
_DEBERTA_V2_DEFAULTS: Mapping[str, Any] = {
    **_DEBERTA_DEFAULTS,
    "vocab_size": 128100,
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
}

_CLASSIFIER_DROPOUT = ("classifier_dropout", "hidden_dropout_prob")


def _roberta(model_type: str, vocab_size: int) -> Family:
    return Family(
        model_type=model_type,
        backbone="roberta",
        layers="encoder.layer",
        layer=_BERT_LAYER,
        embeddings=_BERT_EMBEDDINGS,
        head_dense="classifier.dense",
        head_out="classifier.out_proj",
        head_activation="tanh",
        head_dropouts=(_CLASSIFIER_DROPOUT, _CLASSIFIER_DROPOUT),
        positions_skip_padding=True,
        defaults={**_BERT_DEFAULTS, "vocab_size": vocab_size, "pad_token_id": 1},
    )


def _deberta(
    model_type: str, layer: Mapping[str, str], relative: Mapping[str, str], defaults: Mapping[str, Any]
) -> Family:
    return Family(
        model_type=model_type,
        backbone="deberta",
        layers="encoder.layer",
        layer=layer,
        embeddings=_DEBERTA_EMBEDDINGS,
        head_dense="pooler.dense",
        head_out="classifier",
        head_activation="config.pooler_hidden_act",
        head_dropouts=(("pooler_dropout",), ("cls_dropout", "hidden_dropout_prob")),
        attention="disentangled",
        relative=relative,
        defaults=defaults,
    )


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            model_type="bert",
            backbone="bert",
            layers="encoder.layer",
            layer=_BERT_LAYER,
            embeddings=_BERT_EMBEDDINGS,
            head_dense="bert.pooler.dense",
            head_out="classifier",
            head_activation="tanh",
            head_dropouts=((), _CLASSIFIER_DROPOUT),
            defaults=_BERT_DEFAULTS,
        ),
        _roberta("roberta", 50265),
        _roberta("xlm-roberta", 30522),
        Family(
            model_type="electra",
            backbone="electra",
            layers="encoder.layer",
            layer=_BERT_LAYER,
            embeddings={**_BERT_EMBEDDINGS, "projection_after_norm": "embeddings_project"},
            head_dense="classifier.dense",
            head_out="classifier.out_proj",
            head_activation="gelu",
            head_dropouts=(_CLASSIFIER_DROPOUT, _CLASSIFIER_DROPOUT),
            defaults={
                **_BERT_DEFAULTS,
                "embedding_size": 128,
                "hidden_size": 256,
                "num_attention_heads": 4,
                "intermediate_size": 1024,
            },
        ),
        Family(
            model_type="distilbert",
            backbone="distilbert",
            layers="transformer.layer",
            layer=_DISTILBERT_LAYER,
            embeddings=_DISTILBERT_EMBEDDINGS,
            head_dense="pre_classifier",
            head_out="classifier",
            head_activation="relu",
            head_dropouts=((), ("seq_classif_dropout",)),
            hidden_act="activation",
            inner_size="hidden_dim",
            norm_eps=1e-12,
            layer_dropouts={"attention": "attention_dropout", "down": "dropout"},
            defaults={
                "vocab_size": 30522,
                "hidden_size": 768,
                "num_hidden_layers": 6,
                "num_attention_heads": 12,
                "hidden_dim": 3072,
                "activation": "gelu",
                "max_position_embeddings": 512,
                "pad_token_id": 0,
            },
            own_names={"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"},
        ),
        _deberta(
            "deberta",
            _DEBERTA_LAYER,
            {
                "table": "encoder.rel_embeddings",
                "position_key": "attention.self.pos_proj",
                "position_query": "attention.self.pos_q_proj",
            },
            _DEBERTA_DEFAULTS,
        ),
        _deberta(
            "deberta-v2",
            _DEBERTA_V2_LAYER,
            {
                "table": "encoder.rel_embeddings",
                "table_norm": "encoder.LayerNorm",
                "position_key": "attention.self.pos_key_proj",
                "position_query": "attention.self.pos_query_proj",
                "convolution": "encoder.conv.conv",
                "convolution_norm": "encoder.conv.LayerNorm",
            },
            _DEBERTA_V2_DEFAULTS,
        ),
    )
}

_REFUSED = {"albert": ALBERT_REASON}


def family_of(config: Any) -> Family:
    """Returns the family of a Hugging Face config, after checking that such a model can have exits.

    Raises:
        UnsupportedModelError: family unknown or refused, an unknown `problem_type` or one that does not fit the
            number of labels, or a variant of a known family whose attention differs (decoder, relative keys, talking
            heads).
    """
    family = known_family(getattr(config, "model_type", None))
    _refuse_variants(config)
    _refuse_other_tasks(config)
    return family


def known_family(model_type: str | None) -> Family:
    """Returns the family of a `model_type`.

    Raises:
        UnsupportedModelError: unknown or unsupported.
    """
    if model_type in _REFUSED:
        raise UnsupportedModelError(f"{_REFUSED[model_type]}. Families with exits: {', '.join(FAMILIES)}.")
    if model_type not in FAMILIES:
        raise UnsupportedModelError(f"Unknown family {model_type!r}. Families with exits: {', '.join(FAMILIES)}.")
    return FAMILIES[model_type]


def _refuse_variants(config: Any) -> None:
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise UnsupportedModelError(
            f"position_embedding_type={positions!r}: only absolute position embeddings (and DeBERTa's relative ones) "
            "can be run as exits."
        )
    for flag in ("is_decoder", "add_cross_attention", "talking_head"):
        if getattr(config, flag, False):
            raise UnsupportedModelError(f"{flag}=True: exits need a plain encoder.")


def _refuse_other_tasks(config: Any) -> None:
    try:
        task_of(config)
    except ConfigError as error:
        raise UnsupportedModelError(str(error)) from error
