"""Exit policies: when a row may leave early. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itrex_sweet.arguments import known_fields, positive_number, real_number, real_numbers, sequence, whole_number
from itrex_sweet.errors import ConfigError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, task_named

CRITERIA = ("max_probability", "entropy", "margin", "patience", "patience_and_confidence", "learned")

DEFAULT_THRESHOLD = 0.9

_MAX_EXIT_INDEX_KEY = "deepest"  # of `Policy.max_exit_index` in files


@dataclass(frozen=True)
class Policy:
    """Decides at which exit a row leaves: a criterion, and a temperature and a threshold per exit.

    A row leaves at an exit if its confidence there is *greater* than the exit's threshold, so no row leaves at a
    threshold of 1. All remaining rows leave at the last exit, which has a temperature and no threshold.

    Args:
        thresholds: one per exit but the last, each in [0, 1].
        temperatures: one per exit, positive; logits are divided by them.
        criterion: how confidence is computed from logits, one of `CRITERIA`; `itrex_sweet.criteria` has the formulas.
        patience: number of consecutive confident exits, from 1, for `"patience_and_confidence"`; other criteria ignore
            it.
        max_exit_index: index of the deepest exit that is used, from 0, where all remaining rows leave; by default the
            last one.
        task: name of the model's task, see `itrex_sweet.tasks`; set by the model that the policy is used with.
        label_thresholds: for multi-label classification, one per label, each in (0, 1): a label is on if its
            probability exceeds it. By default those of the model's stored policy, or 0.5.
        target_label: for single-label classification with the criterion `"max_probability"`: id of a label whose
            probability `p` alone matters, so that the confidence is `max(p, 1 - p)`.
        tolerance: for regression, the difference up to which an early value agrees with that of the last exit.

    Raises:
        ConfigError: lengths that do not fit, values out of range, an unknown criterion or task, or a setting that does
            not fit the task.
    """

    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]
    criterion: str = "max_probability"
    patience: int = 2
    max_exit_index: int | None = None
    task: str = SINGLE_LABEL
    label_thresholds: tuple[float, ...] | None = None
    tolerance: float | None = None
    target_label: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", real_numbers("thresholds", self.thresholds))
        object.__setattr__(self, "temperatures", real_numbers("temperatures", self.temperatures))
        if not isinstance(self.criterion, str) or self.criterion not in CRITERIA:
            raise ConfigError(f"criterion={self.criterion!r}: choose one of {', '.join(CRITERIA)}.")
        object.__setattr__(self, "patience", whole_number("patience", self.patience, minimum=1))
        if len(self.thresholds) != len(self.temperatures) - 1:
            raise ConfigError(
                f"{len(self.thresholds)} thresholds for {len(self.temperatures)} exits: every exit but the last "
                f"has one, so {len(self.temperatures) - 1} are needed."
            )
        if self.max_exit_index is not None:
            object.__setattr__(self, "max_exit_index", whole_number("max_exit_index", self.max_exit_index, minimum=0))
        if self.max_exit_index is not None and self.max_exit_index >= len(self.temperatures):
            raise ConfigError(
                f"max_exit_index={self.max_exit_index}: exits have the indices 0 to {len(self.temperatures) - 1}."
            )
        for value in self.thresholds:
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"threshold {value}: a threshold lies in [0, 1]; 1 lets no row leave early.")
        for value in self.temperatures:
            if not (value > 0.0 and math.isfinite(value)):
                raise ConfigError(f"temperature {value}: a temperature is positive and finite.")
        self._check_task()

    def _check_task(self) -> None:
        task = task_named(self.task)
        if self.criterion not in task.criteria:
            raise ConfigError(
                f"criterion={self.criterion!r} does not fit {task.name}: choose {' or '.join(task.criteria)}."
            )
        if not task.has_temperatures and set(self.temperatures) != {1.0}:
            raise ConfigError(f"temperatures {self.temperatures}: {task.name} has no probabilities to scale; leave 1.")
        if self.label_thresholds is not None:
            if task.name != MULTI_LABEL:
                raise ConfigError(f"label_thresholds need task={MULTI_LABEL!r}; this policy is for {task.name}.")
            object.__setattr__(self, "label_thresholds", real_numbers("label_thresholds", self.label_thresholds))
            for value in self.label_thresholds:
                if not 0.0 < value < 1.0:
                    raise ConfigError(f"label threshold {value}: a label's threshold lies between 0 and 1.")
        if self.target_label is not None:
            object.__setattr__(self, "target_label", whole_number("target_label", self.target_label, minimum=0))
            if task.name != SINGLE_LABEL or self.criterion != "max_probability":
                raise ConfigError(
                    f"target_label is for {SINGLE_LABEL} with criterion='max_probability'; this policy is for "
                    f"{task.name} with criterion={self.criterion!r}."
                )
        if self.tolerance is not None:
            if task.name != REGRESSION:
                raise ConfigError(f"tolerance needs task={REGRESSION!r}; this policy is for {task.name}.")
            object.__setattr__(self, "tolerance", positive_number("tolerance", self.tolerance))

    @property
    def last_exit_index(self) -> int:
        """Index of the exit, from 0, where all remaining rows leave."""
        return len(self.thresholds) if self.max_exit_index is None else self.max_exit_index

    @classmethod
    def uniform(cls, num_exits: int, threshold: float = DEFAULT_THRESHOLD, task: str = SINGLE_LABEL) -> Policy:
        """Returns a policy with one threshold for every exit, no temperature scaling and the task's default
        criterion."""
        return cls(
            thresholds=(threshold,) * (num_exits - 1),
            temperatures=(1.0,) * num_exits,
            criterion=task_named(task).default_criterion,
            task=task,
        )

    def with_threshold(self, threshold: float | Sequence[float]) -> Policy:
        """Returns the policy with another threshold for all exits, or one for each but the last.

        Raises:
            ConfigError: neither a number in [0, 1] nor a sequence of them that fits.
        """
        if sequence(threshold) is None:
            threshold = (real_number("threshold", threshold),) * len(self.thresholds)
        return dataclasses.replace(self, thresholds=real_numbers("threshold", threshold))

    def checked_for(self, exits: Sequence[int]) -> Policy:
        """Returns the policy after checking that it is for this number of exits.

        Raises:
            ConfigError: it is not.
        """
        if len(self.temperatures) != len(exits):
            raise ConfigError(
                f"a policy for {len(self.temperatures)} exits does not fit exits {tuple(exits)}: it needs a "
                "temperature for each, and a threshold for each but the last."
            )
        return self

    def for_task(self, task: str, num_labels: int) -> Policy:
        """Returns the policy for a model's task, after checking that it fits.

        Raises:
            ConfigError: the policy is for another task, its criterion does not fit, or there is not one label threshold
                per label.
        """
        if self.task not in (task, SINGLE_LABEL):  # single-label is what a policy is for that names no task
            raise ConfigError(f"a policy for {self.task} does not fit a model for {task}.")
        if self.label_thresholds is not None and len(self.label_thresholds) != num_labels:
            raise ConfigError(
                f"{len(self.label_thresholds)} label thresholds for {num_labels} labels: one per label is needed."
            )
        if self.target_label is not None and self.target_label >= num_labels:
            raise ConfigError(f"target_label={self.target_label}: labels have the ids 0 to {num_labels - 1}.")
        return self if self.task == task else dataclasses.replace(self, task=task)

    def to_dict(self) -> dict[str, Any]:
        """Returns the policy as plain JSON types."""
        return {
            "criterion": self.criterion,
            "thresholds": list(self.thresholds),
            "temperatures": list(self.temperatures),
            "patience": self.patience,
            **({} if self.max_exit_index is None else {_MAX_EXIT_INDEX_KEY: self.max_exit_index}),
            **({} if self.task == SINGLE_LABEL else {"task": self.task}),
            **({} if self.label_thresholds is None else {"label_thresholds": list(self.label_thresholds)}),
            **({} if self.tolerance is None else {"tolerance": self.tolerance}),
            **({} if self.target_label is None else {"target_label": self.target_label}),
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Policy:
        """Reads what `to_dict` wrote; unknown keys are dropped with a warning that names them."""
        if isinstance(settings, Mapping) and _MAX_EXIT_INDEX_KEY in settings:
            settings = {**settings, "max_exit_index": settings[_MAX_EXIT_INDEX_KEY]}
            del settings[_MAX_EXIT_INDEX_KEY]
        return cls(**known_fields(cls, settings))
