"""The supported Hugging Face families, and the check that a model can have exits. Imports no torch.

Training finds modules by the paths of a family, the runtime finds tensors by the same paths plus `.weight` and `.bias`.
"""

from __future__ import annotations

from typing import Any

from itrex_sweet.errors import ConfigError, UnsupportedModelError
from itrex_sweet.families.family import EXIT_HEADS, PRIVATE_LAYER, Family, is_of_private_layer
from itrex_sweet.families.rotary import layer_positions
from itrex_sweet.families.table import FAMILIES
from itrex_sweet.tasks import task_of

__all__ = [
    "ALBERT_REASON",
    "EXIT_HEADS",
    "FAMILIES",
    "HEAD_SIZES",
    "PRIVATE_LAYER",
    "Family",
    "family_of",
    "is_of_private_layer",
    "known_family",
]

ALBERT_REASON = (
    "ALBERT uses the same weights in every layer, so SWEET cannot separate them: a layer cannot belong to one exit only"
)

HEAD_SIZES = ("attention_head_size", "head_dim")
_OLDER_POOLING = "clf_pooling"  # of EuroBERT's configs before transformers had the family

_REFUSED = {"albert": ALBERT_REASON}


def family_of(config: Any) -> Family:
    """Returns the family of a Hugging Face config, after checking that such a model can have exits.

    Raises:
        UnsupportedModelError: family unknown or refused, an unknown `problem_type` or one that does not fit the
            number of labels, or a variant of a known family whose attention or head differs (decoder, relative keys,
            talking heads, unknown rotary positions, heads of another size, unknown pooling).
    """
    family = known_family(getattr(config, "model_type", None))
    _refuse_variants(config)
    _check_heads(config, family)
    _check_pooling(config, family)
    for name, value in family.fixed.items():
        if (given := getattr(config, name, value)) != value:
            raise UnsupportedModelError(f"{name}={given!r}: {family.model_type} computes with {value} in any case.")
    if family.attention == "rotary":
        layer_positions(config, family.local_layers, family.theta)
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
    if getattr(config, "use_task_id", False):
        raise UnsupportedModelError("use_task_id=True: ERNIE's task-type embeddings are not supported with exits.")
    if getattr(config, "rotary_value", False):
        raise UnsupportedModelError("rotary_value=True: RoFormer's rotation of values is not supported with exits.")
    for flag in ("is_decoder", "add_cross_attention", "talking_head"):
        if getattr(config, flag, False):
            raise UnsupportedModelError(f"{flag}=True: exits need a plain encoder.")


def _check_heads(config: Any, family: Family) -> None:
    """Checks the fields that may give attention heads another size or number than backends compute with."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    if not all(isinstance(value, int) and value > 0 for value in (hidden, heads)) or hidden % heads:
        raise UnsupportedModelError(
            f"hidden_size={hidden!r}, num_attention_heads={heads!r}: the first has to be a multiple of the second."
        )
    for name in HEAD_SIZES:
        size = getattr(config, name, None)
        if size is not None and size != hidden // heads:
            raise UnsupportedModelError(
                f"{name}={size!r}: hidden_size={hidden} and num_attention_heads={heads} make it another one."
            )
    if family.attention == "rotary" and hidden // heads % 2:
        raise UnsupportedModelError(
            f"num_attention_heads={heads}: heads of size {hidden // heads} have no pairs of elements to rotate."
        )
    groups = getattr(config, family.key_value_heads, None) if family.key_value_heads else None
    if groups is not None and (not isinstance(groups, int) or groups < 1 or heads % groups):
        raise UnsupportedModelError(
            f"{family.key_value_heads}={groups!r}: it has to divide num_attention_heads={heads}."
        )


def _check_pooling(config: Any, family: Family) -> None:
    if family.pooling is None:
        return
    given, older = getattr(config, family.pooling, None), getattr(config, _OLDER_POOLING, None)
    if given not in family.poolings:
        raise UnsupportedModelError(f"{family.pooling}={given!r}: one of {', '.join(family.poolings)} is needed.")
    if older not in (None, given):
        raise UnsupportedModelError(
            f"{_OLDER_POOLING}={older!r}: {family.pooling}={given!r} says otherwise. transformers reads the second: "
            "set it to the one that the model was trained with, and remove the first."
        )


def _refuse_other_tasks(config: Any) -> None:
    try:
        task_of(config)
    except ConfigError as error:
        raise UnsupportedModelError(str(error)) from error
