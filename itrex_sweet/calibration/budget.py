"""The budget of a calibration: the drop that early exits may cause, and limits of time and layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from itrex_sweet.arguments import open_fraction, positive_number
from itrex_sweet.defaults import DEFAULT_CONFIDENCE, MEANS
from itrex_sweet.errors import ConfigError
from itrex_sweet.metrics import METRICS, Metric
from itrex_sweet.tasks import REGRESSION, Task

_DROPS = ("max_accuracy_drop", "max_agreement_drop", "max_metric_drop")
_LIMITS = ("max_latency_ms", "max_layers")


@dataclass(frozen=True)
class Budget:
    """The drop and the cost that a calibrated policy may have.

    A drop selects the cheapest policy that is certified not to exceed it. A limit of time or layers alone selects the
    most accurate policy within it, without a guarantee. With both, the certified policy must also be within the limit.

    Args:
        max_accuracy_drop: largest drop of accuracy against the same model at full depth, as a fraction: 0.01 is one
            point. Needs labels. In multi-label classification, accuracy is the fraction of rows whose labels are all
            correct; in regression, of rows whose value is within `tolerance` of the label.
        max_agreement_drop: largest fraction of rows whose label, or set of labels, may differ from the full model's, or
            whose value may differ by more than `tolerance`. Needs no labels, so that unlabelled traffic can be used.
        confidence: probability, over the draw of the calibration rows, that the drop is not exceeded; 1 - δ.
        max_layers: mean layers run per row.
        max_latency_ms: mean milliseconds per row on this machine, without tokenization.
        max_metric_drop: largest drop of `metric`, as a fraction. Needs labels; its test is approximate.
        metric: of `max_metric_drop`: `"f1"`, `"matthews"`, `"micro_f1"`, `"macro_f1"`, `"pearson"`, `"spearman"`,
            `"negative_mse"`, or a function of predictions and labels, both as `Task.decisions`; higher is better.
        tolerance: for regression, the difference up to which values agree, in the unit of the labels; that of the
            model's policy if absent.

    Raises:
        ConfigError: neither a drop nor a limit, several drops, or a value out of range.
    """

    max_accuracy_drop: float | None = None
    max_agreement_drop: float | None = None
    confidence: float = DEFAULT_CONFIDENCE
    max_layers: float | None = None
    max_latency_ms: float | None = None
    max_metric_drop: float | None = None
    metric: str | Metric | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        drops = {name: getattr(self, name) for name in _DROPS if getattr(self, name) is not None}
        limits = {name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None}
        if not drops and not limits:
            raise ConfigError(f"a budget needs one of {', '.join((*_DROPS, *_LIMITS))}.")
        if len(drops) > 1:
            raise ConfigError(f"{' and '.join(drops)} exclude each other: pass one of them.")
        for name in (*drops, "confidence"):
            object.__setattr__(self, name, open_fraction(name, getattr(self, name)))
        for name in limits:
            object.__setattr__(self, name, positive_number(name, getattr(self, name)))
        if (self.metric is None) != (self.max_metric_drop is None):
            raise ConfigError("max_metric_drop and metric must be passed together.")
        if self.metric is not None and not isinstance(self.metric, str) and not callable(self.metric):
            raise ConfigError(f"metric={self.metric!r}: must be a name, or a function of predictions and labels.")
        names = [name for name in METRICS if name not in MEANS]
        if isinstance(self.metric, str) and self.metric not in names:
            raise ConfigError(
                f"metric={self.metric!r}: choose one of {', '.join(names)}, or pass a function. For "
                "accuracy use max_accuracy_drop, whose test is exact."
            )
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", positive_number("tolerance", self.tolerance))

    @property
    def epsilon(self) -> float | None:
        """The largest drop allowed, a fraction; `None` if the budget names none."""
        return next((getattr(self, name) for name in _DROPS if getattr(self, name) is not None), None)

    @property
    def delta(self) -> float:
        """The largest probability that the drop is exceeded."""
        return 1.0 - self.confidence

    @property
    def needs_labels(self) -> bool:
        """True if the drop can only be measured with labels."""
        return self.max_accuracy_drop is not None or self.max_metric_drop is not None

    @property
    def target(self) -> str:
        """The quantity whose drop is limited, for messages."""
        if self.max_metric_drop is not None:
            return self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "the metric")
        return "accuracy" if self.needs_labels else "agreement with the full model"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that were passed, in plain JSON types."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if callable(self.metric):
            named["metric"] = self.target
        return {name: value for name, value in named.items() if value is not None}


def checked_tolerance(task: Task, tolerance: float | None, stored: float | None = None) -> float | None:
    """Returns the difference up to which values of a regression agree; `None` for other tasks.

    Args:
        tolerance: that was passed.
        stored: of the model's policy, used if none was passed.

    Raises:
        ConfigError: a regression without a tolerance, a tolerance for another task, or one that is not positive.
    """
    if task.name != REGRESSION:
        if tolerance is not None:
            raise ConfigError(f"tolerance={tolerance}: only regression has one; this model is {task.name}.")
        return None
    if tolerance is None and stored is None:
        raise ConfigError(
            "agreement in a regression needs tolerance (--tolerance), the difference up to which values agree, in the "
            "unit of the labels."
        )
    return stored if tolerance is None else positive_number("tolerance", tolerance)
