"""Adds exits to a fine-tuned classifier with unlabelled texts, and accelerates it."""

from itrex_sweet.acceleration.accelerating import Acceleration, accelerate
from itrex_sweet.acceleration.adding import AddedExits, add_exits

__all__ = ["Acceleration", "AddedExits", "accelerate", "add_exits"]
