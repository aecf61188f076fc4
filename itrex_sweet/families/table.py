"""Table of the supported Hugging Face families.

To add a family, add a row to `FAMILIES` and its tiny configuration to `tests/tiny_models.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from itrex_sweet.families import paths
from itrex_sweet.families.family import Family

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


def _roberta(
    model_type: str,
    vocab_size: int,
    backbone: str = "roberta",
    defaults: Mapping[str, Any] = MappingProxyType({}),
    **changes: Any,
) -> Family:
    """Returns a family of RoBERTa's kind; `defaults`: those that differ from RoBERTa's."""
    settings = {
        "model_type": model_type,
        "backbone": backbone,
        "layers": "encoder.layer",
        "layer": paths.BERT_LAYER,
        "embeddings": paths.BERT_EMBEDDINGS,
        "head_dense": "classifier.dense",
        "head_out": "classifier.out_proj",
        "head_activation": "tanh",
        "head_dropouts": (_CLASSIFIER_DROPOUT, _CLASSIFIER_DROPOUT),
        "positions_skip_padding": True,
        **changes,
    }
    found = {**_BERT_DEFAULTS, "vocab_size": vocab_size, "pad_token_id": 1, **defaults}
    if "token_types" not in settings["embeddings"]:
        del found["type_vocab_size"]
    return Family(**settings, defaults=found)


def _bert(model_type: str, backbone: str | None = None, **changes: Any) -> Family:
    backbone = backbone or model_type
    settings = {
        "model_type": model_type,
        "backbone": backbone,
        "layers": "encoder.layer",
        "layer": paths.BERT_LAYER,
        "embeddings": paths.BERT_EMBEDDINGS,
        "head_dense": f"{backbone}.pooler.dense",
        "head_out": "classifier",
        "head_activation": "tanh",
        "head_dropouts": ((), _CLASSIFIER_DROPOUT),
        "defaults": _BERT_DEFAULTS,
    }
    return Family(**{**settings, **changes})


def _rotary(**changes: Any) -> dict[str, Any]:
    """Returns the settings of an encoder with rotary positions, one theta, and norms after the residuals."""
    return {"layers": "layers", "embeddings": paths.ROTARY_EMBEDDINGS, "attention": "rotary", **changes}


def _deberta(
    model_type: str, layer: Mapping[str, str], relative: Mapping[str, str], defaults: Mapping[str, Any]
) -> Family:
    return Family(
        model_type=model_type,
        backbone="deberta",
        layers="encoder.layer",
        layer=layer,
        embeddings=paths.DEBERTA_EMBEDDINGS,
        head_dense="pooler.dense",
        head_out="classifier",
        head_activation="config.pooler_hidden_act",
        head_dropouts=(("pooler_dropout",), ("cls_dropout", "hidden_dropout_prob")),
        attention="disentangled",
        relative=relative,
        splits_by_head=True,
        defaults=defaults,
    )


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        _bert("bert"),
        _bert("ernie"),
        _bert(
            "megatron-bert",
            "bert",
            layer=paths.MEGATRON_BERT_LAYER,
            embeddings=paths.EMBEDDINGS_WITHOUT_NORM,
            head_dropouts=((), ("hidden_dropout_prob",)),
            norm_first=True,
            final_norm="encoder.ln",
            defaults={
                **_BERT_DEFAULTS,
                "vocab_size": 29056,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
        ),
        _bert(
            "nomic_bert",
            **_rotary(layer=paths.GATED_LAYER, biases={"attention": False, "up": False, "down": False}),
            # Frequencies have no default: where they are absent, the config is refused.
            defaults={
                **_BERT_DEFAULTS,
                "vocab_size": 30528,
                "hidden_act": "silu",
                "max_position_embeddings": 2048,
            },
        ),
        _bert(
            "gte",
            **_rotary(layer=paths.GATED_LAYER, biases={"up": False}),
            layer_dropouts={
                "attention": "attention_probs_dropout_prob",
                "attention_output": "hidden_dropout_prob",
                "inner": "hidden_dropout_prob",
                "down": "hidden_dropout_prob",
            },
            defaults={
                **_BERT_DEFAULTS,
                "vocab_size": 250048,
                "max_position_embeddings": 8192,
                "type_vocab_size": 1,
                "pad_token_id": 1,
            },
        ),
        _roberta("roberta", 50265),
        _roberta("xlm-roberta", 30522),
        _roberta("camembert", 30522),
        _roberta("data2vec-text", 30522, backbone="data2vec_text"),
        _roberta(
            "roberta-prelayernorm",
            50265,
            backbone="roberta_prelayernorm",
            layer=paths.ROBERTA_PRELAYERNORM_LAYER,
            norm_first=True,
            final_norm="LayerNorm",
        ),
        _roberta(
            "xlm-roberta-xl",
            250880,
            layer=paths.XLM_ROBERTA_XL_LAYER,
            embeddings=paths.EMBEDDINGS_WITHOUT_NORM,
            norm_first=True,
            final_norm="encoder.LayerNorm",
            defaults={
                "hidden_size": 2560,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "intermediate_size": 10240,
                "max_position_embeddings": 514,
                "type_vocab_size": 1,
                "layer_norm_eps": 1e-5,
            },
        ),
        _roberta(
            "mpnet",
            30527,
            backbone="mpnet",
            layer=paths.MPNET_LAYER,
            embeddings=paths.DISTILBERT_EMBEDDINGS,
            head_dropouts=(("hidden_dropout_prob",), ("hidden_dropout_prob",)),
            attention="biased",
            relative={"bias": "encoder.relative_attention_bias"},
            fixed={"pad_token_id": 1, "relative_attention_num_buckets": 32},
            defaults={"relative_attention_num_buckets": 32},
        ),
        _roberta(
            "jina_embeddings_v3",
            250002,
            **_rotary(layer=paths.UNGATED_LAYER),
            positions_skip_padding=False,
            defaults={
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                "max_position_embeddings": 8194,
                "type_vocab_size": 1,
                "layer_norm_eps": 1e-5,
            },
        ),
        Family(
            model_type="electra",
            backbone="electra",
            layers="encoder.layer",
            layer=paths.BERT_LAYER,
            embeddings={**paths.BERT_EMBEDDINGS, "projection_after_norm": "embeddings_project"},
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
            layer=paths.DISTILBERT_LAYER,
            embeddings=paths.DISTILBERT_EMBEDDINGS,
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
            paths.DEBERTA_LAYER,
            {
                "table": "encoder.rel_embeddings",
                "position_key": "attention.self.pos_proj",
                "position_query": "attention.self.pos_q_proj",
            },
            _DEBERTA_DEFAULTS,
        ),
        _deberta(
            "deberta-v2",
            paths.DEBERTA_V2_LAYER,
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
        Family(
            model_type="modernbert",  # also Ettin, mmBERT and Granite's embedding models
            backbone="model",
            layers="layers",
            layer=paths.MODERNBERT_LAYER,
            embeddings={"words": "embeddings.tok_embeddings", "norm": "embeddings.norm"},
            head_dense="head.dense",
            head_out="classifier",
            head_activation="config.classifier_activation",
            head_dropouts=((), ("classifier_dropout",)),
            hidden_act="hidden_activation",
            norm_eps="norm_eps",
            layer_dropouts={
                "attention": "attention_dropout",
                "attention_output": "attention_dropout",
                "inner": "mlp_dropout",
            },
            attention="rotary",
            # Windows and frequencies have no defaults: where they are absent, the config is refused.
            defaults={
                "vocab_size": 50368,
                "hidden_size": 768,
                "num_hidden_layers": 22,
                "num_attention_heads": 12,
                "intermediate_size": 1152,
                "hidden_activation": "gelu",
                "max_position_embeddings": 8192,
                "norm_eps": 1e-5,
                "norm_bias": False,
                "attention_bias": False,
                "mlp_bias": False,
                "classifier_bias": False,
                "classifier_activation": "gelu",
                "classifier_pooling": "cls",
                "pad_token_id": 50283,
            },
            norm_first=True,
            first_attention_norm=False,
            final_norm="final_norm",
            head_norm="head.norm",
            local_layers=True,
            biases={
                "attention": "attention_bias",
                "up": "mlp_bias",
                "down": "mlp_bias",
                "norm": "norm_bias",
                "head": "classifier_bias",
            },
            pooling="classifier_pooling",
            poolings={"cls": "first", "mean": "mean"},
        ),
        Family(
            model_type="eurobert",
            backbone="model",
            layers="layers",
            layer=paths.EUROBERT_LAYER,
            embeddings={"words": "embed_tokens"},
            head_dense="dense",
            head_out="classifier",
            head_activation="gelu",
            head_dropouts=((), ()),
            norm_eps="rms_norm_eps",
            rms_norm=True,
            layer_dropouts={"attention": "attention_dropout"},
            attention="rotary",
            key_value_heads="num_key_value_heads",
            # Frequencies have no default: where they are absent, the config is refused.
            defaults={
                "vocab_size": 128256,
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
                "hidden_act": "silu",
                "max_position_embeddings": 8192,
                "rms_norm_eps": 1e-5,
                "attention_bias": False,
                "mlp_bias": False,
                "classifier_pooling": "late",
                "pad_token_id": 128001,
            },
            norm_first=True,
            final_norm="norm",
            biases={"attention": "attention_bias", "up": "mlp_bias", "down": "mlp_bias", "norm": False},
            pooling="classifier_pooling",
            poolings={"bos": "first", "mean": "mean", "late": "late"},
        ),
        Family(
            model_type="roformer",
            backbone="roformer",
            layers="encoder.layer",
            layer=paths.BERT_LAYER,
            embeddings={**paths.ROTARY_EMBEDDINGS, "projection_after_norm": "embeddings_project"},
            head_dense="classifier.dense",
            head_out="classifier.out_proj",
            head_activation="config.hidden_act",
            head_dropouts=(("hidden_dropout_prob",), ("hidden_dropout_prob",)),
            attention="rotary",
            defaults={**_BERT_DEFAULTS, "vocab_size": 50000, "max_position_embeddings": 1536},
            theta=10000.0,
            rotates_neighbors=True,
            sinusoids="encoder.embed_positions",
        ),
    )
}
