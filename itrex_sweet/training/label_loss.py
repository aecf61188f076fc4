"""The loss of one exit against the labels: cross-entropy, with class weights or without, or a function given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training.losses import IGNORED_LABEL, classification_loss

LossFunction = Callable[..., torch.Tensor]


class LabelLoss:
    """A mean over the labelled rows of a batch, the same at every exit, the last included.

    Args:
        config: its `class_weights` go into the cross-entropy, whose mean is then that of
            `torch.nn.CrossEntropyLoss(weight=...)`: divided by the sum of the rows' weights. Weights that are still
            `"balanced"` count as none in evaluation, and training with them raises.
        function: takes the place of the cross-entropy: `(logits, labels, exit)` or `(logits, labels)` → scalar, with
            float32 logits (rows, labels), int64 labels (rows,) of the labelled rows, and the exit as a count of layers.
            Parameters of its own would not be trained.

    Raises:
        ConfigError: a function that cannot be called like that.
    """

    def __init__(self, config: SweetConfig, function: LossFunction | None = None):
        self.config = config
        self.function = function
        self._takes_exit = function is not None and takes_exit(function)

    @property
    def is_cross_entropy(self) -> bool:
        """True if it is the plain cross-entropy, as Hugging Face models work it out themselves."""
        return self.function is None and not isinstance(self.config.class_weights, tuple)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, exit_: int) -> torch.Tensor:
        """The loss of one exit.

        Args:
            logits: (rows, labels), any float type.
            labels: (rows,) int64; `IGNORED_LABEL` leaves a row out.
            exit_: count of layers.

        Returns:
            A float32 scalar; 0 where no row is labelled.

        Raises:
            TrainingSetupError: the function returned no scalar, or one without a gradient in training.
        """
        labels = labels.to(logits.device)
        if self.function is not None:
            return self._of_function(logits, labels, exit_)
        if isinstance(self.config.class_weights, tuple):
            return _weighted(logits, labels, self.config.class_weights)
        return classification_loss(logits, labels)

    def refuse_training(self) -> None:
        """Refuses to train with another loss than the settings name.

        Raises:
            TrainingSetupError: the settings name a function that was not given, or balanced weights that nobody
                has worked out.
        """
        name = self.config.loss
        if name is not None and self.function is None:
            raise TrainingSetupError(
                f"the exits are trained with the loss {name!r}, a function, which no folder holds: pass it again, "
                "SweetCallback(loss=...) or attach(model, config, loss=...)."
            )
        if isinstance(self.config.class_weights, str):
            raise TrainingSetupError(
                f"class_weights={self.config.class_weights!r} are worked out by SweetCallback when training begins: "
                "without a Trainer pass numbers, itrex_sweet.config.balanced_weights(labels, num_labels)."
            )

    def _of_function(self, logits: torch.Tensor, labels: torch.Tensor, exit_: int) -> torch.Tensor:
        labelled = labels != IGNORED_LABEL
        logits, labels = logits.float()[labelled], labels[labelled]
        if len(labels) == 0:
            return logits.sum()
        loss = self.function(logits, labels, exit_) if self._takes_exit else self.function(logits, labels)
        name = name_of(self.function)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            shape = f"of shape {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, torch.Tensor) else repr(loss)
            raise TrainingSetupError(
                f"the loss {name!r} returned {shape} at exit {exit_}: it returns the mean over the rows, a scalar."
            )
        if torch.is_grad_enabled() and logits.requires_grad and not loss.requires_grad:
            raise TrainingSetupError(
                f"the loss {name!r} returned a value without a gradient at exit {exit_}, so nothing would train: "
                "work it out of the logits with torch, without detach() or no_grad()."
            )
        return loss.reshape(()).float()


def share_of_items(labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor | float:
    """The factor of a mean over a micro-batch, so that the losses of micro-batches add up to a mean over all.

    Args:
        labels: (rows,) of the micro-batch.
        num_items: labelled rows of the whole accumulated batch; `None` for a batch by itself.
    """
    if num_items is None:
        return 1.0
    return (labels != IGNORED_LABEL).sum() / torch.as_tensor(num_items, device=labels.device).clamp(min=1)


def trainer_loss(loss: LabelLoss) -> Callable[..., torch.Tensor]:
    """The same loss for a plain model without exits: the Trainer's `compute_loss_func`."""

    def compute_loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        return loss(outputs.logits, labels, 0) * share_of_items(labels, num_items_in_batch)

    return compute_loss


def takes_exit(function: Any) -> bool:
    """True if a loss function wants to know the exit, beside logits and labels.

    Raises:
        ConfigError: it can be called with neither.
    """
    if not callable(function):
        raise ConfigError(f"loss={function!r}: a function (logits, labels, exit) -> scalar, not {_type(function)}.")
    of = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        signature = inspect.signature(of)
    except (TypeError, ValueError):  # written in C
        return True
    if _binds(signature, None, None, 1):
        more = [one for one in signature.parameters.values() if one.kind is not one.KEYWORD_ONLY][2:]
        optional = bool(more) and more[0].default is not more[0].empty and not more[0].name.startswith("exit")
        if not optional:  # an optional third one, such as the weight of F.cross_entropy, is something else
            return True
    if _binds(signature, None, None):
        return False
    raise ConfigError(f"loss={name_of(function)}{signature}: it is called with (logits, labels, exit).")


def name_of(function: Any) -> str:
    """A function's name, or that of the class of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or _type(function)


def _weighted(logits: torch.Tensor, labels: torch.Tensor, weights: tuple[float, ...]) -> torch.Tensor:
    weight = torch.tensor(weights, device=logits.device)
    total = F.cross_entropy(logits.float(), labels, weight=weight, ignore_index=IGNORED_LABEL, reduction="sum")
    divisor = weight[labels[labels != IGNORED_LABEL]].sum()
    return total / (divisor + (divisor == 0))


def _binds(signature: inspect.Signature, *arguments: Any) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _type(value: Any) -> str:
    return type(value).__name__
