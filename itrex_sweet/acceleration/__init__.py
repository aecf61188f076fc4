"""Adds exits to a fine-tuned classifier with unlabelled texts, and accelerates it."""

from itrex_sweet.extras import require_installed

require_installed("torch", "accelerating a model")
require_installed("transformers", "accelerating a model")

from itrex_sweet.acceleration.accelerating import Acceleration, accelerate
from itrex_sweet.acceleration.adding import AddedExits, add_exits

__all__ = ["Acceleration", "AddedExits", "accelerate", "add_exits"]
