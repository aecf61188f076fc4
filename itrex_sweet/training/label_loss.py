"""The loss of an exit against the labels: that of the task, optionally with class weights, or a custom function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.tasks import SINGLE_LABEL, Task, task_named
from itrex_sweet.training.losses import IGNORE_INDEX
from itrex_sweet.training.task_losses import losses_of

LossFunction = Callable[..., torch.Tensor]


class LabelLoss:
    """A loss averaged over the labelled rows of a batch, the same for every exit, the last included.

    Args:
        config: its `class_weights` are used as in `torch.nn.CrossEntropyLoss(weight=...)`, whose mean is divided by the
            sum of the rows' weights; for multi-label classification as `torch.nn.BCEWithLogitsLoss(pos_weight=...)`.
            Weights that are still `"balanced"` are ignored in evaluation, and training with them raises.
        function: replaces the loss: `(logits, labels, exit)` or `(logits, labels)` → scalar, with float32 logits
            (rows, labels), int64 labels (rows,) of the labelled rows, and the exit as a count of layers. Labels are
            float32 for other tasks: (rows, labels) for multi-label classification, (rows,) for regression. If the
            function has parameters, they are not trained.
        task: cross-entropy, binary cross-entropy of each label, or squared error.

    Raises:
        ConfigError: a function that does not accept these arguments.
    """

    def __init__(self, config: SweetConfig, function: LossFunction | None = None, task: Task | None = None):
        self.config = config
        self.task = task or task_named(SINGLE_LABEL)
        self.function = function
        self._takes_exit = function is not None and accepts_exit(function)

    @property
    def is_default(self) -> bool:
        """`True` for the unweighted loss of the task, which Hugging Face models compute themselves."""
        return self.function is None and not isinstance(self.config.class_weights, tuple)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, exit_: int) -> torch.Tensor:
        """Computes the loss of one exit.

        Args:
            logits: (rows, labels), any float type.
            labels: (rows,) int64; rows with `IGNORE_INDEX` are left out. For other tasks as validated by
                `task_losses`.
            exit_: count of layers.

        Returns:
            A float32 scalar; 0 if no row is labelled.

        Raises:
            TrainingSetupError: the function returned no scalar, or in training a scalar without gradient.
        """
        labels = labels.to(logits.device)
        if self.function is not None:
            return self._custom(logits, labels, exit_)
        weights = self.config.class_weights if isinstance(self.config.class_weights, tuple) else None
        return losses_of(self.task).label(logits, labels, weights)

    def check_trainable(self) -> None:
        """Checks that this is the loss that the settings name.

        Raises:
            TrainingSetupError: the settings name a function that was not passed, or class weights are still
                `"balanced"`.
        """
        name = self.config.loss
        if name is not None and self.function is None:
            raise TrainingSetupError(
                f"the exits are trained with the loss {name!r}, a function, which is not saved: pass it again, "
                "SweetCallback(loss=...) or attach(model, config, loss=...)."
            )
        if isinstance(self.config.class_weights, str):
            raise TrainingSetupError(
                f"class_weights={self.config.class_weights!r} is computed by SweetCallback when training begins: "
                "without a Trainer pass numbers, itrex_sweet.config.balanced_weights(labels, num_labels)."
            )

    def _custom(self, logits: torch.Tensor, labels: torch.Tensor, exit_: int) -> torch.Tensor:
        logits = logits.float()
        if self.task.name == SINGLE_LABEL:
            labelled = labels != IGNORE_INDEX
            logits, labels = logits[labelled], labels[labelled]
        if len(labels) == 0:
            return logits.sum()
        loss = self.function(logits, labels, exit_) if self._takes_exit else self.function(logits, labels)
        name = function_name(self.function)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            shape = f"of shape {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, torch.Tensor) else repr(loss)
            raise TrainingSetupError(
                f"the loss {name!r} returned {shape} at exit {exit_}: it must return the mean over the rows, a scalar."
            )
        if torch.is_grad_enabled() and logits.requires_grad and not loss.requires_grad:
            raise TrainingSetupError(
                f"the loss {name!r} returned a value without a gradient at exit {exit_}, so nothing would train: "
                "compute it from the logits with torch, without detach() or no_grad()."
            )
        return loss.reshape(()).float()


def micro_batch_scale(labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor | float:
    """Returns the factor for a micro-batch's mean loss, so that the micro-batches add up to the overall mean.

    Args:
        labels: (rows,) int64, of the micro-batch; or of another task, any shape.
        num_items: number of labelled rows, or of elements of the labels, of the whole accumulated batch; `None` without
            accumulation.
    """
    if num_items is None:
        return 1.0
    return (labels != IGNORE_INDEX).sum() / torch.as_tensor(num_items, device=labels.device).clamp(min=1)


def trainer_loss(loss: LabelLoss) -> Callable[..., torch.Tensor]:
    """Returns a `compute_loss_func` for a Trainer that trains a model without exits with this loss."""

    def compute_loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        return loss(outputs.logits, labels, 0) * micro_batch_scale(labels, num_items_in_batch)

    return compute_loss


def accepts_exit(function: Any) -> bool:
    """Returns `True` if a loss function takes the exit as its third argument.

    Raises:
        ConfigError: it accepts neither two nor three arguments.
    """
    if not callable(function):
        raise ConfigError(f"loss={function!r}: pass a function (logits, labels, exit) -> scalar.")
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # a builtin without signature
        return True
    if _binds(signature, None, None, 1):
        rest = [one for one in signature.parameters.values() if one.kind is not one.KEYWORD_ONLY][2:]
        optional = bool(rest) and rest[0].default is not rest[0].empty and not rest[0].name.startswith("exit")
        if not optional:  # an optional third parameter, such as the weight of F.cross_entropy, is not the exit
            return True
    if _binds(signature, None, None):
        return False
    raise ConfigError(f"loss={function_name(function)}{signature}: it is called with (logits, labels, exit).")


def function_name(function: Any) -> str:
    """Returns the name of a function, or of the class of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or _type_name(function)


def _binds(signature: inspect.Signature, *arguments: Any) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _type_name(value: Any) -> str:
    return type(value).__name__
