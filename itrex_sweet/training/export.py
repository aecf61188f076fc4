"""Saves a trained model as an artifact."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact import Artifact, write_artifact, write_cascade
from itrex_sweet.artifact.fingerprints import SELECTION, TRAINING, Fingerprints
from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.policy import Policy
from itrex_sweet.training.attaching import attachment_of, plain_state_dict
from itrex_sweet.training.peft_models import unwrap_peft_model
from itrex_sweet.training.precision import set_config_dtype_to_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_artifact(
    model: PreTrainedModel,
    directory: str | os.PathLike,
    tokenizer: Any = None,
    policy: Policy | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """Saves a model with exits as an artifact. LoRA weights are merged in a copy; the model does not change.

    The folder also loads as the plain Hugging Face model.

    Args:
        model: a classification model with exits attached, or a PEFT model around one.
        directory: created if missing; an existing artifact is replaced only when the new one is complete.
        tokenizer: saved with the model, if given.
        policy: the exit policy; by default one threshold for all exits.
        provenance: facts to record.

    Raises:
        TrainingSetupError: the model has no exits.
        ArtifactError: the folder cannot be written, or a weight is not finite.
    """
    config = _config_of(model)
    if not getattr(config, "sweet", None):
        raise TrainingSetupError("the model has no exits: train it with SweetCallback, or attach(model) first.")
    return write_artifact(
        directory,
        config=config,
        tensors=plain_state_dict(model),
        policy=policy,
        tokenizer=tokenizer,
        provenance=provenance,
        fingerprints=_fingerprints(model),
    )


def save_cascade(
    models: Mapping[int, PreTrainedModel],
    directory: str | os.PathLike,
    tokenizer: Any = None,
    policy: Policy | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """Saves the models of `train_multi_model` as a cascade, which the same runtime runs.

    Args:
        models: exit → independent model with that many layers.
        directory, tokenizer, policy, provenance: as in `save_artifact`.

    Raises:
        ArtifactError: the folder cannot be written, or a weight is not finite.
    """
    stages = [(_config_of(models[exit_]), plain_state_dict(models[exit_])) for exit_ in sorted(models)]
    return write_cascade(directory, stages=stages, policy=policy, tokenizer=tokenizer, provenance=provenance)


def _fingerprints(model: PreTrainedModel) -> dict[str, Fingerprints]:
    attachment = attachment_of(model)
    if attachment is None:
        return {}
    rows = {TRAINING: attachment.trained_on, SELECTION: attachment.selected_by}
    return {role: part for role, part in rows.items() if part is not None}


def _config_of(model: PreTrainedModel) -> Any:
    """Returns a copy of the config with the class that loads the model and the dtype of the saved weights."""
    plain = unwrap_peft_model(model)
    config = copy.deepcopy(plain.config)
    set_config_dtype_to_float32(config)
    config.architectures = [type(plain).__name__]
    return config
