"""Tiny random models of every family, built in code, for tests that run offline."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    Data2VecTextConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    MegatronBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaPreLayerNormConfig,
    RoFormerConfig,
    XLMRobertaConfig,
    XLMRobertaXLConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HIDDEN, HEADS, VOCABULARY, POSITIONS = 32, 4, 96, 64
PADDING, FIRST_TOKEN = 1, 2

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": PADDING,
    "initializer_range": 0.2,  # ten times the default, so that attention is far from uniform
}
_ONE_THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
_RELATIVE = {"relative_attention": True, "max_relative_positions": 24, "position_biased_input": False}


def _deberta_v3(**changes: object) -> DebertaV2Config:
    settings = {
        "type_vocab_size": 0,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        **_RELATIVE,
    }
    return DebertaV2Config(**_SHAPE, **{**settings, **changes})


def _modernbert(**changes: object) -> ModernBertConfig:
    """Returns a config with windows of three tokens to each side, so that rows of a few tokens reach beyond them."""
    shape = {name: value for name, value in _SHAPE.items() if name != "initializer_range"}
    return ModernBertConfig(
        **shape,
        initializer_range=0.3,
        initializer_cutoff_factor=3.0,
        local_attention=6,
        global_rope_theta=500.0,
        local_rope_theta=50.0,
        global_attn_every_n_layers=3,
        bos_token_id=2,
        cls_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
        **changes,
    )


def _eurobert(**changes: object) -> PretrainedConfig:
    special = {"bos_token_id": FIRST_TOKEN, "eos_token_id": 3, "mask_token_id": 4}
    return AutoConfig.for_model("eurobert", **_SHAPE, **_ONE_THETA, **special, **changes)


# Family, or variant of one, → its config for the remaining settings: num_hidden_layers, num_labels, dropouts.
FAMILY_CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**_SHAPE, type_vocab_size=2),
    "roberta": lambda: RobertaConfig(**_SHAPE, type_vocab_size=1, bos_token_id=0, eos_token_id=2),
    "xlm-roberta": lambda: XLMRobertaConfig(**_SHAPE, type_vocab_size=1, bos_token_id=0, eos_token_id=2),
    "electra": lambda: ElectraConfig(**_SHAPE, embedding_size=24),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=HIDDEN,
        n_heads=HEADS,
        hidden_dim=48,
        max_position_embeddings=POSITIONS,
        pad_token_id=PADDING,
        initializer_range=0.2,
    ),
    "deberta": lambda: DebertaConfig(**_SHAPE, **_RELATIVE, type_vocab_size=0, pos_att_type=["c2p", "p2c"]),
    "deberta-v3": lambda: _deberta_v3(),
    "modernbert": lambda: _modernbert(),
    "modernbert-biases": lambda: _modernbert(
        classifier_pooling="mean", attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True
    ),
    "deberta-v2-conv": lambda: _deberta_v3(conv_kernel_size=3, conv_act="gelu", share_att_key=False),
    "mpnet": lambda: MPNetConfig(**{**_SHAPE, "max_position_embeddings": POSITIONS + PADDING + 1}),
    "gte": lambda: AutoConfig.for_model("gte", **_SHAPE, **_ONE_THETA, type_vocab_size=2),
    "eurobert": lambda: _eurobert(num_key_value_heads=2),
    "roformer": lambda: RoFormerConfig(**_SHAPE, type_vocab_size=2, embedding_size=24),
}

# Families that are a row of the table and share the code of another: fewer tests run on them.
ROW_CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "camembert": lambda: CamembertConfig(**_SHAPE, type_vocab_size=1),
    "data2vec-text": lambda: Data2VecTextConfig(**_SHAPE, type_vocab_size=1),
    "ernie": lambda: ErnieConfig(**_SHAPE, type_vocab_size=2),
    "roberta-prelayernorm": lambda: RobertaPreLayerNormConfig(**_SHAPE, type_vocab_size=1),
    "megatron-bert": lambda: MegatronBertConfig(**_SHAPE, type_vocab_size=2),
    "xlm-roberta-xl": lambda: XLMRobertaXLConfig(**_SHAPE, type_vocab_size=1),
    "nomic_bert": lambda: AutoConfig.for_model("nomic_bert", **_SHAPE, **_ONE_THETA, type_vocab_size=2),
    "jina_embeddings_v3": lambda: AutoConfig.for_model("jina_embeddings_v3", **_SHAPE, **_ONE_THETA),
    "eurobert-biases": lambda: _eurobert(
        num_key_value_heads=1, attention_bias=True, mlp_bias=True, classifier_pooling="mean"
    ),
    "eurobert-bos": lambda: _eurobert(classifier_pooling="bos"),
}

# Not in every release of transformers that is supported.
for _configs in (FAMILY_CONFIGS, ROW_CONFIGS):
    for _name in list(_configs):
        _type = _name.partition("-")[0]
        if _type in ("gte", "nomic_bert", "jina_embeddings_v3", "eurobert") and _type not in CONFIG_MAPPING:
            del _configs[_name]

_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "pooler_dropout",
    "cls_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "mlp_dropout",
    "embedding_dropout",
)


def tiny_config(family: str, num_layers: int = 4, num_labels: int = 3, dropout: float = 0.0) -> PretrainedConfig:
    """Returns the config of a tiny model; `dropout` is set in every field of the family."""
    config = {**FAMILY_CONFIGS, **ROW_CONFIGS}[family]()
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index % 3] for index in range(num_layers)]
    config.num_labels = num_labels
    for name in _DROPOUTS:
        if hasattr(config, name) or name in ("pooler_dropout", "cls_dropout"):
            setattr(config, name, dropout)
    return config


def tiny_model(
    family: str = "bert", num_layers: int = 4, num_labels: int = 3, seed: int = 0, dropout: float = 0.0
) -> PreTrainedModel:
    """Returns a tiny random classification model of a key of `FAMILY_CONFIGS`, in training mode.

    Biases and norms are random too: at their initial values of zero and one, a bug in them would not show.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = tiny_config(family, num_layers, num_labels, dropout)
        model = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def tiny_batch(
    rows: int = 4, length: int = 10, num_labels: int = 3, seed: int = 0, padded: bool = True
) -> dict[str, torch.Tensor]:
    """Returns random token ids, attention mask and labels; `padded` rows end in padding of different lengths.

    Returns:
        input_ids and attention_mask (rows, length) and labels (rows,), int64.
    """
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    input_ids[:, 0] = FIRST_TOKEN
    attention_mask = torch.ones_like(input_ids)
    if padded:
        for row in range(1, rows):
            tokens = max(1, length - 2 * row)
            input_ids[row, tokens:] = PADDING
            attention_mask[row, tokens:] = 0
    labels = torch.arange(rows) % num_labels
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def unrotated(args: tuple, kwargs: dict, mask: torch.Tensor | None = None) -> tuple[tuple, dict]:
    """Returns arguments of a layer without rotation and window; `mask` (rows, length) is the attention mask."""
    if len(args) > 2:  # RoFormer: states, mask, sines and cosines
        return (*args[:2], None, *args[3:]), kwargs
    changed = dict(kwargs)
    lowest = torch.finfo(torch.float32).min
    full = None if mask is None else (1.0 - mask[:, None, None, :].float()) * lowest
    if "position_embeddings" in kwargs:  # transformers 5
        cosine, sine = kwargs["position_embeddings"]
        return args, {**changed, "position_embeddings": (torch.ones_like(cosine), 0 * sine), "attention_mask": full}
    full = kwargs["attention_mask"] if full is None else full.expand(-1, 1, mask.shape[1], -1)
    masks = {"attention_mask": full, "sliding_window_mask": full}
    return args, {**changed, **masks, "position_ids": 0 * kwargs["position_ids"]}
