"""Models that PEFT wrapped around a Hugging Face model. PEFT is imported only when such a model is met."""

from __future__ import annotations

import copy
import sys
from typing import Any

from torch import nn

from itrex_sweet.errors import TrainingSetupError, UnsupportedModelError


def is_peft_model(model: nn.Module) -> bool:
    """Whether a model is `peft.PeftModel`; without importing peft, since then it cannot be one."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def underlying_model(model: nn.Module) -> nn.Module:
    """The Hugging Face classification model: what PEFT wrapped, or the model itself."""
    return model.get_base_model() if is_peft_model(model) else model


def without_wrappers(module: nn.Module) -> nn.Module:
    """The module with the base weights: of a `ModulesToSaveWrapper` the copy in training.

    Source: `peft.utils.ModulesToSaveWrapper`, `peft.tuners.tuners_utils.BaseTunerLayer`.
    """
    while True:
        if hasattr(module, "modules_to_save") and getattr(module, "active_adapters", None):
            module = module.modules_to_save[module.active_adapters[0]]
        elif hasattr(module, "get_base_layer"):
            module = module.get_base_layer()
        else:
            return module


def merged_part(module: nn.Module) -> nn.Module:
    """A copy of a module inside a layer, as a plain one, with what its active adapters add to its weights.

    Source: `peft.tuners.tuners_utils.BaseTunerLayer.merge`.
    """
    copied = copy.deepcopy(module)
    if hasattr(copied, "get_base_layer") and hasattr(copied, "merge"):
        copied.merge()
    return without_wrappers(copied)


def refuse_unfit_adapters(model: nn.Module) -> None:
    """Lets pass what keeps the first token first and saves what is put beside the adapters.

    Raises:
        UnsupportedModelError: prompt learning, which puts virtual tokens before the first.
        TrainingSetupError: an adapter added inside the model (`model.add_adapter`), whose checkpoints would
            not hold the exit heads.
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


def keep_with_adapter(model: nn.Module, head: nn.Module) -> nn.Module:
    """Wraps a head as PEFT wraps the model's own classifier, so that it is saved with the adapter.

    PEFT writes adapter weights and `ModulesToSaveWrapper`s, nothing else.
    """
    from peft.utils import ModulesToSaveWrapper

    adapter = model.active_adapter
    wrapper = ModulesToSaveWrapper(head, adapter)
    wrapper.set_adapter(adapter)
    return wrapper


def merged_copy(model: Any) -> nn.Module:
    """A copy of the classification model with its adapters merged; the model is left as it is.

    Raises:
        UnsupportedModelError: adapters of a kind that cannot be merged.
    """
    merged = copy.deepcopy(model)
    if not hasattr(merged.base_model, "merge_and_unload"):
        raise UnsupportedModelError(f"{type(merged.base_model).__name__} adapters cannot be merged into the weights.")
    return merged.merge_and_unload()
