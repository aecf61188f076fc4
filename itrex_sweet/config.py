"""What a person may set: training settings and exit policies. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itrex_sweet.arguments import real_number, real_numbers, sequence, whole_number
from itrex_sweet.errors import ConfigError

CUT_FIRST = "cut_first"
MODES = ("sweet", "paper", "joint")
CRITERIA = ("max_probability", "entropy", "margin", "patience", "patience_and_confidence", "learned")

DEFAULT_THRESHOLD = 0.9

# The paper's exits of a 12-layer model; other depths keep the proportion.
_PAPER_EXITS, _PAPER_DEPTH = (1, 4, 6, 12), 12


def default_exits(num_layers: int) -> tuple[int, ...]:
    """Exits in the paper's proportion (1/4/6/12 of 12 layers), rounded up to whole layers.

    >>> default_exits(12), default_exits(6), default_exits(24)
    ((1, 4, 6, 12), (1, 2, 3, 6), (2, 8, 12, 24))
    """
    return tuple(sorted({-(-num_layers * exit_ // _PAPER_DEPTH) for exit_ in _PAPER_EXITS}))


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
    exits = tuple(exits)
    shown = f"exits={exits}"
    if not exits:
        raise ConfigError(f"{shown}: name at least one exit, the last one being {num_layers}, the model's depth.")
    if not all(isinstance(exit_, int) and not isinstance(exit_, bool) for exit_ in exits):
        raise ConfigError(f"{shown}: exits are whole numbers of encoder layers, such as (1, {num_layers}).")
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
    """How exits are trained; stored as `config.sweet` inside the model's `config.json`.

    Args:
        exits: counts of encoder layers after which the model may answer, from 1, the last the full depth.
            `None` picks `default_exits` of the model's depth.
        mode: `"sweet"` cuts the gradient between segments, so that each layer is updated only by the next
            exit (SWEET, arXiv 2306.02307, section 4); `"paper"` does so as the paper's code did, with one
            pooler and one relative-position table shared by all exits; `"joint"` is the paper's Early-Exit
            baseline, plain summed losses.
        gradient_scale: share in [0, 1] of the gradient that passes from a segment to the one before it; one for all
            cuts, or one each, first to last. 0 is SWEET; 1 would be joint training, for which there is
            `mode="joint"`. `"cut_first"` is 0 at the first cut and 1 at all others: the first segment learns from
            its own exit alone, what lies behind it from all the others.
        learn_to_exit: every exit but the last also learns how likely it is right, for the criterion `"learned"`
            (BERxiT, Xin et al., EACL 2021). Neither the encoder nor the exits' classifiers are moved by that.
        distillation: share in [0, 1] of each exit's loss that compares it with a teacher's probabilities instead of the
            labels (Hinton et al. 2015, arXiv 1503.02531). The teacher is a model given to the callback, else the last
            exit, which then learns from the labels alone.
        distillation_temperature: divides both sides' logits there, positive.

    Raises:
        ConfigError: unknown mode, or a share outside [0, 1] or set where it has no meaning.
    """

    exits: tuple[int, ...] | None = None
    mode: str = "sweet"
    gradient_scale: float | str | tuple[float, ...] = 0.0
    learn_to_exit: bool = False
    distillation: float = 0.0
    distillation_temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.exits is not None:
            object.__setattr__(self, "exits", tuple(self.exits))
        if self.mode not in MODES:
            raise ConfigError(f"mode={self.mode!r}: choose one of {', '.join(MODES)}.")
        if isinstance(self.gradient_scale, Iterable) and not isinstance(self.gradient_scale, str):
            object.__setattr__(self, "gradient_scale", tuple(self.gradient_scale))
        _check_gradient_scale(self.gradient_scale)
        if not 0.0 <= self.distillation <= 1.0:
            raise ConfigError(f"distillation={self.distillation}: a share of the loss lies in [0, 1].")
        if not self.distillation_temperature > 0.0:
            raise ConfigError(f"distillation_temperature={self.distillation_temperature}: it is positive.")
        if self.mode == "joint" and self.gradient_scale != 0.0:
            raise ConfigError("mode='joint' cuts no gradient, so gradient_scale has no meaning; leave it out.")

    @property
    def shares_pooler(self) -> bool:
        """Whether every exit reads through the model's own pooler, as in the paper's code."""
        return self.mode == "paper"

    def resolved(self, num_layers: int) -> SweetConfig:
        """The same settings with exits checked against, or chosen for, a depth in layers."""
        exits = resolve_exits(self.exits, num_layers)
        scale, cuts = self.gradient_scale, len(exits) - 1
        if scale == CUT_FIRST:
            scale = tuple(float(place > 0) for place in range(cuts))
        if isinstance(scale, tuple) and len(scale) != cuts:
            raise ConfigError(
                f"gradient_scale={scale}: one share for each cut; exits {exits} have {cuts}, each but the last one."
            )
        return dataclasses.replace(self, exits=exits, gradient_scale=scale)

    @property
    def scales(self) -> tuple[float, ...]:
        """The share that passes each cut, first to last, once exits are resolved."""
        scale = self.gradient_scale
        return scale if isinstance(scale, tuple) else (scale,) * (len(self.exits) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        settings = dataclasses.asdict(self)
        settings["exits"] = None if self.exits is None else list(self.exits)
        if isinstance(self.gradient_scale, tuple):
            settings["gradient_scale"] = list(self.gradient_scale)
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> SweetConfig:
        """Reads what `to_dict` wrote; unknown keys are dropped with a warning that names them."""
        return cls(**_known_fields(cls, settings))


def _check_gradient_scale(scale: float | str | tuple[float, ...]) -> None:
    if isinstance(scale, str):
        if scale != CUT_FIRST:
            raise ConfigError(f"gradient_scale={scale!r}: a share in [0, 1], one for each cut, or {CUT_FIRST!r}.")
        return
    if not all(0.0 <= share <= 1.0 for share in (scale if isinstance(scale, tuple) else (scale,))):
        raise ConfigError(f"gradient_scale={scale}: a share of the gradient lies in [0, 1].")


@dataclass(frozen=True)
class Policy:
    """When a row may leave: a criterion, and a temperature and a threshold per exit.

    A row leaves at an exit when its confidence there is *greater* than the exit's threshold, so that a
    threshold of 1 is met by no probability. The last exit answers whoever reaches it; it has a temperature,
    and no threshold.

    Args:
        thresholds: one per exit but the last, each in [0, 1].
        temperatures: one per exit, positive; logits are divided by them.
        criterion: how confidence is read off the logits, one of `CRITERIA`; `itrex_sweet.criteria` has the formulas.
        patience: exits in a row that have to be sure, from 1, for `"patience_and_confidence"`; others ignore it.
        deepest: place of the exit, from 0, that answers whoever reaches it; the last of all if absent.

    Raises:
        ConfigError: lengths that do not fit, values out of range, an unknown criterion.
    """

    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]
    criterion: str = "max_probability"
    patience: int = 2
    deepest: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", real_numbers("thresholds", self.thresholds))
        object.__setattr__(self, "temperatures", real_numbers("temperatures", self.temperatures))
        if not isinstance(self.criterion, str) or self.criterion not in CRITERIA:
            raise ConfigError(f"criterion={self.criterion!r}: choose one of {', '.join(CRITERIA)}.")
        object.__setattr__(self, "patience", whole_number("patience", self.patience, least=1))
        if len(self.thresholds) != len(self.temperatures) - 1:
            raise ConfigError(
                f"{len(self.thresholds)} thresholds for {len(self.temperatures)} exits: every exit but the last "
                f"has one, so {len(self.temperatures) - 1} are needed."
            )
        if self.deepest is not None:
            object.__setattr__(self, "deepest", whole_number("deepest", self.deepest, least=0))
        if self.deepest is not None and self.deepest >= len(self.temperatures):
            raise ConfigError(f"deepest={self.deepest}: places of {len(self.temperatures)} exits count from 0.")
        for value in self.thresholds:
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"threshold {value}: a threshold lies in [0, 1]; 1 lets no row leave early.")
        for value in self.temperatures:
            if not (value > 0.0 and math.isfinite(value)):
                raise ConfigError(f"temperature {value}: a temperature is positive and finite.")

    @property
    def answers_all(self) -> int:
        """Place of the exit, from 0, that answers whoever reaches it."""
        return len(self.thresholds) if self.deepest is None else self.deepest

    @classmethod
    def uniform(cls, num_exits: int, threshold: float = DEFAULT_THRESHOLD) -> Policy:
        """One threshold for every exit and no temperature scaling."""
        return cls(thresholds=(threshold,) * (num_exits - 1), temperatures=(1.0,) * num_exits)

    def with_threshold(self, threshold: float | Sequence[float]) -> Policy:
        """The same policy with one threshold for all exits, or one for each but the last.

        Raises:
            ConfigError: neither a number in [0, 1] nor a sequence of them that fits.
        """
        if sequence(threshold) is None:
            threshold = (real_number("threshold", threshold),) * len(self.thresholds)
        return dataclasses.replace(self, thresholds=real_numbers("threshold", threshold))

    def checked_for(self, exits: Sequence[int]) -> Policy:
        """The policy, if it is one for so many exits.

        Raises:
            ConfigError: it is not.
        """
        if len(self.temperatures) != len(exits):
            raise ConfigError(
                f"a policy for {len(self.temperatures)} exits does not fit exits {tuple(exits)}: it needs a "
                "temperature for each, and a threshold for each but the last."
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "criterion": self.criterion,
            "thresholds": list(self.thresholds),
            "temperatures": list(self.temperatures),
            "patience": self.patience,
            **({} if self.deepest is None else {"deepest": self.deepest}),
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Policy:
        """Reads what `to_dict` wrote; unknown keys are dropped with a warning that names them."""
        return cls(**_known_fields(cls, settings))


def _known_fields(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(settings) - known)
    if unknown:
        warnings.warn(f"{cls.__name__} does not know, and drops: {', '.join(unknown)}.", stacklevel=3)
    return {key: value for key, value in settings.items() if key in known}
