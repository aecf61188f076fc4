"""Validates `config.json`: every number and name that determines a shape, an index or an operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.artifact.validation.values import ADVICE, Value
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ArtifactError, ConfigError, UnsupportedArtifactError, UnsupportedModelError
from itrex_sweet.families import FAMILIES, HEAD_SIZES, Family, known_family
from itrex_sweet.tasks import task_of

MAX_LABELS = 1 << 16
MAX_POSITIONS = 1 << 20
# Of `transformers.activations.ACT2FN`, those without parameters that every supported release has.
ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "laplace"),
    *("leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "swish", "tanh"),
)
_POSITION_TERMS = ("c2p", "p2c")
_TABLE_NORMS = ("none", "layer_norm")

_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
_DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "pooler_dropout", "cls_dropout"),
    *("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout", "embedding_dropout", "mlp_dropout"),
)
_UNSUPPORTED = ("per_layer_config", "pruned_heads")

Check = Callable[[Value], Any]


def _integer(minimum: int, maximum: int) -> Check:
    return lambda value: value.integer(minimum, maximum)


def _position_terms(value: Value) -> None:
    terms = value.value.lower().split("|") if isinstance(value.value, str) else value.value
    if not isinstance(terms, (list, tuple)) or not all(isinstance(term, str) for term in terms):
        value.refuse("a list of strings is needed")
    terms = [term.strip() for term in terms]
    if len(set(terms)) < len(terms) or not set(terms) <= set(_POSITION_TERMS):
        value.refuse(f"each of {', '.join(_POSITION_TERMS)} at most once is known")


def _table_norms(value: Value) -> None:
    if not {norm.strip() for norm in value.string().lower().split("|")} <= set(_TABLE_NORMS):
        value.refuse(f"one of {', '.join(_TABLE_NORMS)} is needed")


def _activation(value: Value) -> None:
    value.one_of(ACTIVATIONS)


# Fields that are checked wherever they are given and not null, under the names of all families.
_RULES: dict[str, Check] = {
    **dict.fromkeys(("hidden_size", "dim", "embedding_size"), _integer(1, 1 << 16)),
    **dict.fromkeys(("num_hidden_layers", "n_layers"), _integer(1, 4096)),
    **dict.fromkeys(("num_attention_heads", "n_heads", "num_key_value_heads"), _integer(1, 1 << 16)),
    **dict.fromkeys(("intermediate_size", "hidden_dim"), _integer(1, 1 << 20)),
    "vocab_size": _integer(1, (1 << 31) - 1),
    "max_position_embeddings": _integer(1, MAX_POSITIONS),
    "type_vocab_size": _integer(0, 1 << 16),
    "num_labels": _integer(1, MAX_LABELS),
    "pad_token_id": _integer(0, (1 << 31) - 1),
    **dict.fromkeys(("layer_norm_eps", "norm_eps", "rms_norm_eps"), lambda value: value.greater_than(0.0, 1.0)),
    **dict.fromkeys(_DROPOUTS, lambda value: value.number(0.0, 1.0)),
    "initializer_range": lambda value: value.number(0.0),
    **dict.fromkeys(("hidden_act", "activation", "pooler_hidden_act", "conv_act"), _activation),
    **dict.fromkeys(("hidden_activation", "classifier_activation"), _activation),
    "relative_attention_num_buckets": _integer(1, 1 << 16),
    "max_relative_positions": _integer(-1, MAX_POSITIONS),
    "position_buckets": _integer(-1, MAX_POSITIONS),
    "pos_att_type": _position_terms,
    "norm_rel_ebd": _table_norms,
    **dict.fromkeys(("relative_attention", "share_att_key", "position_biased_input"), Value.boolean),
    **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), Value.boolean),
    "conv_kernel_size": _integer(0, 255),
    "conv_groups": _integer(1, 1 << 16),
    **dict.fromkeys(("classifier_pooling", "clf_pooling"), Value.string),
    **dict.fromkeys(("tokenizer_class", "problem_type", "position_embedding_type"), Value.string),
}

# Fields that the run side reads, or that decide whether it can compute the model.
READ_FIELDS = frozenset(
    (
        *(*_RULES, "model_type", *HEAD_SIZES, "pooler_hidden_size"),
        *("is_decoder", "add_cross_attention", "talking_head", "use_task_id", "rotary_value"),
        # Checked by `families.rotary`.
        *("layer_types", "global_attn_every_n_layers", "local_attention", "global_rope_theta", "local_rope_theta"),
        *("rope_parameters", "rope_scaling", "rope_theta"),
    )
)


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Checks the contents of `config.json`, before transformers reads them.

    Raises:
        ArtifactError: a field is of the wrong type, out of range, or contradicts another one.
        UnsupportedArtifactError: a family without exits.
    """
    root = Value(config, "", file)
    family = _family(root["model_type"])
    for name, value in root.fields():
        if name in _RULES and value.value is not None:
            _RULES[name](value)
        if name in _UNSUPPORTED and value.value:
            value.refuse("models whose layers differ are not supported")
    _check_labels(root)
    _check_task(config, file)
    _check_together(config, family, file)
    check_sweet_settings(config, family, file)


def check_resolved(config: Any, file: Path) -> None:
    """Checks a config object in which absent fields have their defaults.

    Raises:
        ArtifactError: as in `check_config`; or a field that the family needs is absent.
    """
    family = FAMILIES[config.model_type]
    values = {name: getattr(config, name) for name in _RULES if getattr(config, name, None) is not None}
    for name, value in values.items():
        _RULES[name](Value(value, name, file))
    needed = [*_NEEDED, family.hidden_act, family.inner_size]
    needed += [family.norm_eps] if isinstance(family.norm_eps, str) else []
    needed += ["type_vocab_size"] if "token_types" in family.embeddings else []
    needed += [*family.bias_keys(), *([] if family.pooling is None else [family.pooling])]
    needed += ["pad_token_id"] if family.positions_skip_padding else []
    needed += list(family.fixed)
    needed += ["pooler_hidden_act", "max_relative_positions"] if family.attention == "disentangled" else []
    for name in needed:
        if getattr(config, name, None) is None:
            raise ArtifactError(f"{file} has no {name}. {ADVICE}")
    _check_together(values, family, file)


def _family(model_type: Value) -> Family:
    try:
        return known_family(model_type.string())
    except UnsupportedModelError as error:
        raise UnsupportedArtifactError(f"{model_type.file}: model_type={model_type.value!r}: {error}") from error


def _check_labels(root: Value) -> None:
    names = root.non_null("id2label")
    if names is None:
        if (count := root.get("num_labels")) is not None:
            count.integer(1, MAX_LABELS)
        return
    count = len(names.mapping())
    if not 1 <= count <= MAX_LABELS:
        names.refuse(f"from 1 to {MAX_LABELS} labels are needed")
    if set(names.mapping()) != {str(label) for label in range(count)}:
        names.refuse(f"{count} labels need the ids 0 to {count - 1}, without gaps")
    for _, name in names.fields():
        if not isinstance(name.value, (str, int, float)):
            name.refuse("a label's name is a string")
    given = root.non_null("num_labels")
    if given is not None and given.value != count:
        given.refuse(f"id2label names {count} labels")


def _check_task(config: Mapping[str, Any], file: Path) -> None:
    try:
        task_of(config)
    except ConfigError as error:
        raise UnsupportedArtifactError(f"{file}: {error}") from error


def _check_together(config: Mapping[str, Any], family: Family, file: Path) -> None:
    """Checks fields against one another; absent fields are checked by `check_resolved`."""

    def field(*names: str) -> Value | None:
        name = next((name for name in names if config.get(name) is not None), None)
        return None if name is None else Value(config[name], name, file)

    hidden, heads = field("hidden_size", "dim"), field("num_attention_heads", "n_heads")
    positions, padding = field("max_position_embeddings"), field("pad_token_id")
    if hidden is not None and heads is not None:
        if hidden.value % heads.value:
            heads.refuse(f"it has to divide {hidden.field}={hidden.value}")
        pooler, groups = field("pooler_hidden_size"), field("conv_groups")
        if pooler is not None and pooler.value != hidden.value:
            pooler.refuse(f"{hidden.field}={hidden.value} is needed")
        if groups is not None and hidden.value % groups.value:
            groups.refuse(f"it has to divide {hidden.field}={hidden.value}")
    vocabulary = field("vocab_size")
    if padding is not None and vocabulary is not None and padding.value >= vocabulary.value:
        padding.refuse(f"token ids go from 0 to {vocabulary.value - 1} (vocab_size)")
    are_known = padding is not None and positions is not None
    if family.positions_skip_padding and are_known and padding.value + 1 >= positions.value:
        positions.refuse(f"positions begin behind pad_token_id={padding.value}, so none is left")
    width = field("conv_kernel_size")
    if width is not None and width.value and width.value % 2 == 0:
        width.refuse("an odd width is needed")
    if family.attention == "disentangled":
        _check_distances(field)


def _check_distances(field: Callable[..., Value | None]) -> None:
    """Checks DeBERTa's relative positions: buckets are logarithmic from half their number to the maximum distance."""
    buckets, reach, positions = map(field, ("position_buckets", "max_relative_positions", "max_position_embeddings"))
    if reach is not None and reach.value == 0:
        reach.refuse("a positive number is needed, or -1 for max_position_embeddings")
    if reach is None or reach.value < 1:
        reach = positions
    if buckets is None or buckets.value < 1 or reach is None:
        return
    if buckets.value < 2 or reach.value <= buckets.value // 2 + 1:
        buckets.refuse(f"from 2 to less than twice the greatest distance, {reach.value}, is needed")


def check_sweet_settings(config: Mapping[str, Any], family: Family, file: Path) -> None:
    """Checks the training settings under `sweet`, if they are given."""
    settings = Value(config, "", file).non_null("sweet")
    if settings is None:
        return
    known = settings.mapping()
    if (learned := settings.get("learn_to_exit")) is not None:
        learned.boolean()
    if (exits := settings.non_null("exits")) is not None:
        exits.items()
    depth = next((config[name] for name in ("num_hidden_layers", "n_layers") if config.get(name) is not None), None)
    try:
        read = SweetConfig.from_dict(known)
        if depth is not None and read.exits is not None:
            read.resolved(depth)
    except (ConfigError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{file}: sweet: {error} {ADVICE}") from error
