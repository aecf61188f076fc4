"""Attaches exits to Hugging Face models, trains them and saves them as artifacts."""

from itrex_sweet.extras import require_installed

require_installed("torch", "training")
require_installed("transformers", "training")

from itrex_sweet.training.attaching import attach, attachment_of, detach, plain_state_dict
from itrex_sweet.training.attachment import Attachment
from itrex_sweet.training.callback import SweetCallback
from itrex_sweet.training.conflict import GradientConflict, GradientConflictCallback, gradient_conflict
from itrex_sweet.training.divergence import DivergenceCallback
from itrex_sweet.training.export import save_artifact, save_cascade
from itrex_sweet.training.gradients import clip_by_group
from itrex_sweet.training.heads import ExitHead
from itrex_sweet.training.losses import classification_loss
from itrex_sweet.training.multi_model import train_multi_model, truncate

__all__ = [
    "Attachment",
    "DivergenceCallback",
    "ExitHead",
    "GradientConflict",
    "GradientConflictCallback",
    "SweetCallback",
    "attach",
    "attachment_of",
    "classification_loss",
    "clip_by_group",
    "detach",
    "gradient_conflict",
    "plain_state_dict",
    "save_artifact",
    "save_cascade",
    "train_multi_model",
    "truncate",
]
