"""Models inside something else: compiled, or in the hands of a parallel wrapper."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from itrex_sweet.errors import TrainingSetupError, UnsupportedModelError
from itrex_sweet.training.peft_models import is_peft_model


def refuse_wrapped(model: Any) -> None:
    """Lets pass a Hugging Face model, or a PEFT model around one.

    Raises:
        TrainingSetupError: `torch.compile(model)`, DataParallel or DistributedDataParallel around one: hooks on what
            is inside may be skipped, or belong to copies that are thrown away.
        UnsupportedModelError: anything else.
    """
    if isinstance(model, PreTrainedModel) or is_peft_model(model):
        return
    if isinstance(model, nn.Module) and hasattr(model, "_orig_mod"):
        raise TrainingSetupError(
            "the model was compiled by torch.compile before it had exits, which are hooks that compiled code may skip: "
            "give the model itself, and leave it uncompiled in training."
        )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise TrainingSetupError(
            f"the model is wrapped in {type(model).__name__}: attach to the model itself, model.module, and wrap it "
            "afterwards. DataParallel trains copies of the model, whose exits are lost: use DistributedDataParallel."
        )
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot carry exits: they go on a Hugging Face classification model, "
        "AutoModelForSequenceClassification.from_pretrained(...), or a PEFT model around one."
    )
