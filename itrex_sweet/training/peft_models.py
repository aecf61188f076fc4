"""Models trained in part: PEFT adapters such as LoRA, and a frozen backbone. PEFT is imported only when it is used."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

from torch import nn

from itrex_sweet.errors import TrainingSetupError, UnsupportedModelError
from itrex_sweet.extras import require
from itrex_sweet.families import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def freeze_backbone(model: PreTrainedModel) -> PreTrainedModel:
    """Freezes all of a model but its classification head, in place (second stage of DeeBERT, arXiv 2004.12993).

    Call it before the exits are attached: their heads then train too.

    Raises:
        UnsupportedModelError: a family without exits.
    """
    family = family_of(model.config)
    model.requires_grad_(False)
    depth = model.config.num_hidden_layers
    for path in filter(None, (family.head_dense, family.head_out, family.norm_paths(depth, depth)[1])):
        model.get_submodule(path).requires_grad_(True)
    return model


def add_lora(model: PreTrainedModel, rank: int) -> Any:
    """Returns a PEFT model with trainable low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685).

    Call it before the exits are attached.

    Raises:
        MissingExtraError: peft is not installed.
    """
    require("peft", "LoRA")
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, lora_dropout=0.05))


def is_peft_model(model: nn.Module) -> bool:
    """Returns `True` for a `peft.PeftModel`. Does not import peft."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def unwrap_peft_model(model: nn.Module) -> nn.Module:
    """Returns the Hugging Face classification model: the base model of a PEFT model, or the model itself."""
    return model.get_base_model() if is_peft_model(model) else model


def unwrap_module(module: nn.Module) -> nn.Module:
    """Returns the module with the base weights; of a `ModulesToSaveWrapper`, the copy that is trained.

    Source: `peft.utils.ModulesToSaveWrapper`, `peft.tuners.tuners_utils.BaseTunerLayer`.
    """
    while True:
        if hasattr(module, "modules_to_save") and getattr(module, "active_adapters", None):
            module = module.modules_to_save[module.active_adapters[0]]
        elif hasattr(module, "get_base_layer"):
            module = module.get_base_layer()
        else:
            return module


def merged_module_copy(module: nn.Module) -> nn.Module:
    """Returns a plain copy of a module inside a layer, with its active adapters merged into the weights.

    Source: `peft.tuners.tuners_utils.BaseTunerLayer.merge`.
    """
    copied = copy.deepcopy(module)
    if hasattr(copied, "get_base_layer") and hasattr(copied, "merge"):
        copied.merge()
    return unwrap_module(copied)


def merged_model_copy(model: Any) -> nn.Module:
    """Returns a copy of the classification model with its adapters merged into the weights.

    Raises:
        UnsupportedModelError: adapters of a kind that cannot be merged.
    """
    merged = copy.deepcopy(model)
    if not hasattr(merged.base_model, "merge_and_unload"):
        raise UnsupportedModelError(f"{type(merged.base_model).__name__} adapters cannot be merged into the weights.")
    return merged.merge_and_unload()


def check_adapters(model: nn.Module) -> None:
    """Rejects adapters that move the first token, or whose checkpoints would not hold the exit heads.

    Raises:
        UnsupportedModelError: prompt learning, which puts virtual tokens before the first.
        TrainingSetupError: an adapter inside the model (`model.add_adapter`): its checkpoints have no exit heads.
    """
    if is_peft_model(model):
        if model.active_peft_config.is_prompt_learning:
            raise UnsupportedModelError(
                f"{model.active_peft_config.peft_type.value} puts virtual tokens before the text, so the "
                "first token is no longer the one that exits read. Use LoRA."
            )
    elif getattr(model, "_hf_peft_config_loaded", False) or getattr(model, "peft_config", None) is not None:
        raise TrainingSetupError(
            "the model carries PEFT adapters inside it, and the exit heads would be missing from its "
            "checkpoints. If from_pretrained was given the folder of an adapter, load the plain model and put the "
            "adapter around it, peft.PeftModel.from_pretrained(plain, FOLDER, is_trainable=True), then "
            "attach(model, config, heads_from=FOLDER) where it was trained with exits. For new adapters wrap the plain "
            "model with peft.get_peft_model(model, LoraConfig(task_type='SEQ_CLS')), then attach to that."
        )


def wrap_as_module_to_save(model: nn.Module, head: nn.Module) -> nn.Module:
    """Wraps a head in a `ModulesToSaveWrapper`, as PEFT wraps the model's own classifier.

    PEFT saves adapter weights and the contents of `ModulesToSaveWrapper`s, and nothing else.
    """
    from peft.utils import ModulesToSaveWrapper

    adapter = model.active_adapter
    wrapper = ModulesToSaveWrapper(head, adapter)
    wrapper.set_adapter(adapter)
    return wrapper
