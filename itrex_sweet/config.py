"""Training settings of exits. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.arguments import fraction, integer, known_fields, positive_number, real_number, sequence, truth
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import DEFAULT_THRESHOLD, Policy
from itrex_sweet.tasks import SINGLE_LABEL, Task

CUT_FIRST = "cut_first"
BALANCED = "balanced"
DECOUPLED = "decoupled"
MODES = ("sweet", "paper", "joint", DECOUPLED)
UNNAMED_MODE = "sweet"  # of settings without a mode, written by releases that had no other
ALL, EXITS_ALONE = "all", "exits"

# Of exits with private layers (`docs/benchmarks/training.md` has the measurements).
DEFAULT_EXIT_LR_MULTIPLIER, DEFAULT_DISTILLATION = 3.0, 0.5

_SIXTHS = (1, 2, 4, 6)


def default_exits(num_layers: int) -> tuple[int, ...]:
    """Returns exits after a sixth, a third, two thirds and all of the layers, rounded up to whole layers.

    >>> default_exits(6), default_exits(12), default_exits(24)
    ((1, 2, 4, 6), (2, 4, 8, 12), (4, 8, 16, 24))
    """
    return tuple(sorted({-(-num_layers * sixths // 6) for sixths in _SIXTHS}))


def resolve_exits(exits: Iterable[int] | None, num_layers: int) -> tuple[int, ...]:
    """Checks exits against a model's depth; `None` means `default_exits`.

    Args:
        exits: counts of encoder layers, from 1, strictly increasing, the last the full depth.
        num_layers: depth of the model, in layers.

    Raises:
        ConfigError: out of range, unsorted, duplicated, or the full depth is missing.
    """
    if exits is None:
        return default_exits(num_layers)
    exits = _whole_numbers(exits)
    shown = f"exits={exits}"
    if not exits:
        raise ConfigError(f"{shown}: name at least one exit, the last one being {num_layers}, the model's depth.")
    if max(exits) > num_layers:
        raise ConfigError(f"{shown}: the model has {num_layers} layers.")
    if min(exits) < 1:
        raise ConfigError(f"{shown}: exits count encoder layers from 1.")
    if list(exits) != sorted(set(exits)):
        raise ConfigError(f"{shown}: exits must increase strictly; did you mean {tuple(sorted(set(exits)))}?")
    if exits[-1] != num_layers:
        raise ConfigError(f"{shown}: the last exit is the model's own head; pass {(*exits, num_layers)}.")
    return exits


@dataclass(frozen=True)
class SweetConfig:
    """Training settings of exits; stored as `config.sweet` in the model's `config.json`.

    Args:
        exits: counts of encoder layers after which the model may answer, from 1, the last the full depth.
            `None` picks `default_exits` of the model's depth.
        mode: `"decoupled"` gives each exit but the last a private copy of the layer before it, computed for the first
            token only, and stops the exit's gradient there: the model itself is trained as without exits. `"sweet"`
            stops the gradient between segments, so that each layer is updated by the next exit only (SWEET, arXiv
            2306.02307, section 4); `"paper"` is the same with one pooler and one relative-position table shared by all
            exits, as in the paper's code; `"joint"` sums the losses of all exits, the paper's Early-Exit baseline.
        gradient_scale: in the modes `"sweet"` and `"paper"`, factor in [0, 1] of the gradient that flows from a segment
            to the one before it; one for all boundaries, or one for each, first to last. 0 is SWEET; use
            `mode="joint"` instead of 1. `"cut_first"` is 0 at the first boundary and 1 at all others.
        learn_to_exit: trains every exit but the last to predict whether it is correct, for the criterion `"learned"`
            (BERxiT, Xin et al., EACL 2021); in regression, where it is always true, to estimate its error. This loss
            updates neither the encoder nor the exits' classifiers.
        distillation: weight in [0, 1] of the distillation loss, which compares an exit with a teacher's probabilities;
            the label loss has the rest (Hinton et al. 2015, arXiv 1503.02531). The teacher is a model given to the
            callback, or else the last exit, which then has the label loss only; in mode `"decoupled"` it always has.
            0.5 by default in that mode, 1 if only the exits are trained, and 0 in the other modes.
        distillation_temperature: divides the logits of exit and teacher in the distillation loss, positive.
        class_weights: one positive weight per label, for the loss of every exit, the last included, as
            `torch.nn.CrossEntropyLoss(weight=...)`, or for multi-label classification as
            `torch.nn.BCEWithLogitsLoss(pos_weight=...)`; `"balanced"` stands for rows / (labels x rows of the label),
            or for rows without the label / rows with it, until the training rows are known.
        loss: name of the function that replaces the loss of the task; the function itself is not stored.
        train: `"all"`; or `"exits"`, in mode `"decoupled"`: the model itself is frozen and has no dropout, and with
            `distillation=1` no labels are needed.
        exit_lr_multiplier: in mode `"decoupled"`, learning rate of the exits' parameters relative to the model's,
            positive; 3 by default.
        threshold: threshold of the default policy, in [0, 1]; recorded by training, and ignored by `==`. 0.9 if absent.
        longest_row: tokens of the longest training row without padding; recorded by training, and ignored by `==`.

    Raises:
        ConfigError: a value of another type, an unknown mode, a number out of range, or a setting that the mode does
            not have.
    """

    exits: tuple[int, ...] | None = None
    mode: str = DECOUPLED
    gradient_scale: float | str | tuple[float, ...] = 0.0
    learn_to_exit: bool = False
    distillation: float | None = None
    distillation_temperature: float = 2.0
    class_weights: str | tuple[float, ...] | None = None
    loss: str | None = None
    train: str = ALL
    exit_lr_multiplier: float | None = None
    threshold: float | None = field(default=None, compare=False)
    longest_row: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.mode, str) or self.mode not in MODES:
            raise ConfigError(f"mode={self.mode!r}: choose one of {', '.join(MODES)}.")
        if not isinstance(self.train, str) or self.train not in (ALL, EXITS_ALONE):
            raise ConfigError(f"train={self.train!r}: choose {ALL!r} or {EXITS_ALONE!r}.")
        if self.distillation is None:
            object.__setattr__(self, "distillation", self._default_distillation())
        if self.exit_lr_multiplier is None:
            multiplier = DEFAULT_EXIT_LR_MULTIPLIER if self.has_private_layers else 1.0
            object.__setattr__(self, "exit_lr_multiplier", multiplier)
        checked = {
            "exits": None if self.exits is None else _whole_numbers(self.exits),
            "gradient_scale": _gradient_scale(self.gradient_scale),
            "learn_to_exit": truth("learn_to_exit", self.learn_to_exit),
            "distillation": fraction("distillation", self.distillation, "a share of the loss, in [0, 1]"),
            "distillation_temperature": positive_number("distillation_temperature", self.distillation_temperature),
            "class_weights": _class_weights(self.class_weights),
            "exit_lr_multiplier": positive_number("exit_lr_multiplier", self.exit_lr_multiplier),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.mode == "joint" and self.gradient_scale != 0.0:
            raise ConfigError("mode='joint' cuts no gradient, so gradient_scale has no meaning; leave it out.")
        if self.has_private_layers and self.gradient_scale != 0.0:
            raise ConfigError(
                f"gradient_scale={self.gradient_scale!r}: with mode={DECOUPLED!r} no exit's gradient reaches the "
                "model, so it has no meaning; leave it out, or pass mode='sweet'."
            )
        self._refuse_without_private_layers()
        if self.loss is not None and not (isinstance(self.loss, str) and self.loss):
            raise ConfigError(
                f"loss={self.loss!r}: the settings hold the name of a loss; give the function itself to "
                "SweetCallback(loss=...) or attach(model, config, loss=...)."
            )
        if self.loss is not None and self.class_weights is not None:
            raise ConfigError("class_weights go into the cross-entropy, which loss replaces: leave one of them out.")
        if self.threshold is not None:
            object.__setattr__(self, "threshold", fraction("threshold", self.threshold, "a confidence in [0, 1]"))
        if self.longest_row is not None:
            longest = integer(self.longest_row)
            if longest is None or longest < 1:
                raise ConfigError(f"longest_row={self.longest_row!r}: a number of tokens, from 1.")
            object.__setattr__(self, "longest_row", longest)

    def _default_distillation(self) -> float:
        if self.trains_exits_alone:
            return 1.0
        return DEFAULT_DISTILLATION if self.has_private_layers else 0.0

    def _refuse_without_private_layers(self) -> None:
        if self.has_private_layers:
            return
        needing = {"train": self.train != ALL, "exit_lr_multiplier": self.exit_lr_multiplier != 1.0}
        for name, is_set in needing.items():
            if is_set:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} with mode={self.mode!r}, whose exits share their layers with the "
                    f"model: leave it out, or pass mode={DECOUPLED!r}."
                )

    @property
    def shares_pooler(self) -> bool:
        """True if all exits share the model's pooler, as in the paper's code."""
        return self.mode == "paper"

    @property
    def has_private_layers(self) -> bool:
        """True if every exit but the last has a private copy of an encoder layer."""
        return self.mode == DECOUPLED

    @property
    def cuts_gradient(self) -> bool:
        """True if the gradient of later exits is scaled down or stopped before earlier segments."""
        return self.mode in ("sweet", "paper")

    @property
    def trains_exits_alone(self) -> bool:
        """True if the model itself is frozen."""
        return self.train == EXITS_ALONE

    def resolved(self, num_layers: int) -> SweetConfig:
        """Returns the settings with exits checked against, or chosen for, a number of layers."""
        exits = resolve_exits(self.exits, num_layers)
        if self.trains_exits_alone and len(exits) == 1:
            raise ConfigError(f"train={self.train!r} with exits={exits}: there is no exit before the last to train.")
        scale, cuts = self.gradient_scale, len(exits) - 1
        if scale == CUT_FIRST:
            scale = tuple(float(place > 0) for place in range(cuts))
        if isinstance(scale, tuple) and len(scale) != cuts:
            raise ConfigError(
                f"gradient_scale={scale}: one share for each cut; exits {exits} have {cuts}, each but the last one."
            )
        return dataclasses.replace(self, exits=exits, gradient_scale=scale)

    def default_policy(self, task: Task | None = None) -> Policy:
        """Returns the policy of an uncalibrated model with resolved exits: one threshold for all of them.

        Args:
            task: of the model, whose default criterion is used; single-label classification by default.
        """
        threshold = DEFAULT_THRESHOLD if self.threshold is None else self.threshold
        return Policy.uniform(len(self.exits), threshold, SINGLE_LABEL if task is None else task.name)

    @property
    def scales(self) -> tuple[float, ...]:
        """The gradient scale of each boundary, first to last, for resolved settings."""
        scale = self.gradient_scale
        return scale if isinstance(scale, tuple) else (scale,) * (len(self.exits) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings in plain JSON types.

        `class_weights`, `loss`, `threshold` and `longest_row` are included if they are set, `train` and
        `exit_lr_multiplier` in mode `"decoupled"`.
        """
        settings = {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }
        optional = ("class_weights", "loss", "threshold", "longest_row")
        private = () if self.has_private_layers else ("train", "exit_lr_multiplier")
        return {
            name: value
            for name, value in settings.items()
            if name not in private and (value is not None or name not in optional)
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> SweetConfig:
        """Reads what `to_dict` wrote; unknown keys are dropped with a warning that names them.

        The mode is `UNNAMED_MODE` if none is given.

        Raises:
            ConfigError: not a mapping, or values that are wrong.
        """
        return cls(**{"mode": UNNAMED_MODE, **known_fields(cls, settings)})


def balanced_weights(labels: Iterable[int], num_labels: int) -> tuple[float, ...]:
    """Computes the weights of `class_weights="balanced"`: rows / (labels x rows of the label), for each label.

    Args:
        labels: class of each row; -100 leaves a row out.
        num_labels: of the model.

    Raises:
        ConfigError: a label without rows.
    """
    counts = [0] * num_labels
    for label in labels:
        if 0 <= label < num_labels:
            counts[label] += 1
    missing = [label for label, count in enumerate(counts) if count == 0]
    if missing:
        raise ConfigError(
            f"class_weights={BALANCED!r}: no training row has label {', '.join(map(str, missing))}; give the "
            f"{num_labels} weights as numbers."
        )
    return tuple(sum(counts) / (num_labels * count) for count in counts)


def balanced_positive_weights(labels: Iterable[Sequence[float]], num_labels: int) -> tuple[float, ...]:
    """Computes the weights of `class_weights="balanced"` for multi-label classification: rows without a label divided
    by rows with it, for each label.

    Args:
        labels: vector of ones and zeros of each row.
        num_labels: of the model.

    Raises:
        ConfigError: a label that no row has, or all rows have.
    """
    rows, counts = 0, [0] * num_labels
    for vector in labels:
        rows += 1
        counts = [count + (value > 0.5) for count, value in zip(counts, vector, strict=True)]
    missing = [label for label, count in enumerate(counts) if count in (0, rows)]
    if missing:
        raise ConfigError(
            f"class_weights={BALANCED!r}: no training row, or every one, has label {', '.join(map(str, missing))}; "
            f"give the {num_labels} weights as numbers."
        )
    return tuple((rows - count) / count for count in counts)


def _whole_numbers(exits: Any) -> tuple[int, ...]:
    wrong = f"exits={exits!r}: exits are whole numbers of encoder layers, such as (1, 4)"
    if isinstance(exits, (str, bytes, Mapping)):
        raise ConfigError(f"{wrong}, not {type(exits).__name__}.")
    try:
        given = tuple(exits)
    except TypeError:
        hint = f" Did you mean exits=({exits},)?" if integer(exits) is not None else ""
        raise ConfigError(f"{wrong}: more than one, the last the model's depth.{hint}") from None
    numbers_ = tuple(map(integer, given))
    if None in numbers_:
        raise ConfigError(f"exits={given}: exits are whole numbers of encoder layers, such as (1, 4).")
    return numbers_


def _gradient_scale(scale: Any) -> float | str | tuple[float, ...]:
    if isinstance(scale, str):
        if scale != CUT_FIRST:
            raise ConfigError(f"gradient_scale={scale!r}: a share in [0, 1], one for each cut, or {CUT_FIRST!r}.")
        return scale
    meaning = f"a share of the gradient in [0, 1], one for each cut, or {CUT_FIRST!r}"
    parts = sequence(scale)
    shares = tuple(real_number("gradient_scale", share, meaning) for share in ((scale,) if parts is None else parts))
    if not all(0.0 <= share <= 1.0 for share in shares):
        raise ConfigError(f"gradient_scale={scale}: a share of the gradient lies in [0, 1].")
    return shares[0] if parts is None else shares


def _class_weights(weights: Any) -> str | tuple[float, ...] | None:
    meaning = f"one positive weight for each label, or {BALANCED!r}"
    if weights is None or (isinstance(weights, str) and weights == BALANCED):
        return weights
    parts = sequence(weights)
    if not parts:
        raise ConfigError(f"class_weights={weights!r}: {meaning}.")
    values = tuple(real_number("class_weights", weight, meaning) for weight in parts)
    if not all(0.0 < value < math.inf for value in values):
        raise ConfigError(f"class_weights={values}: weights are positive and finite.")
    return values
