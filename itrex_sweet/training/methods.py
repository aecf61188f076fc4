"""Ways to fine-tune that train less than the whole model. Both come before the exits are attached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from itrex_sweet.extras import require
from itrex_sweet.families import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def freeze_backbone(model: PreTrainedModel) -> PreTrainedModel:
    """Leaves nothing but the model's own head to train, in place; exit heads come later (DeeBERT's second stage).

    Raises:
        UnsupportedModelError: a family without exits.
    """
    family = family_of(model.config)
    model.requires_grad_(False)
    for path in (family.head_dense, family.head_out):
        model.get_submodule(path).requires_grad_(True)
    return model


def with_lora(model: PreTrainedModel, rank: int) -> Any:
    """The model in PEFT's hands, with low-rank adapters of a rank (Hu et al. 2021, arXiv 2106.09685) to train.

    Raises:
        MissingExtraError: peft is not installed.
    """
    require("peft", "LoRA")
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, lora_dropout=0.05))
