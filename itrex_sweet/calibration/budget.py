"""What leaving early may cost: a loss that is promised with statistics, time, or layers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from itrex_sweet.arguments import real_number
from itrex_sweet.errors import ConfigError
from itrex_sweet.evaluation.metrics import CONFUSION_METRICS, Metric

_DROPS = ("max_accuracy_drop", "max_agreement_drop", "max_metric_drop")
_LIMITS = ("max_latency_ms", "max_layers")


@dataclass(frozen=True)
class Budget:
    """What a calibrated policy may lose or spend.

    A limit of time or layers alone asks for the most accurate policy within it, without a promise; beside a drop, the
    certified policy has to keep to it.

    Args:
        max_accuracy_drop: accuracy that may be lost against the same model at full depth, as a share; 0.01 is a point.
            Needs labels.
        max_agreement_drop: share of rows that may get another label than the full model gives; needs no labels, so
            that unlabelled traffic can calibrate.
        confidence: how surely the drop is kept to, over the draw of the calibration rows; 1 - δ.
        max_layers: layers run per row, on average.
        max_latency_ms: milliseconds per row, on average, without tokenization, on this machine.
        max_metric_drop: what `metric` may lose, as a share. Needs labels; its test is approximate.
        metric: of `max_metric_drop`: `"f1"`, `"matthews"`, or a function of predictions and labels, both (rows,)
            int64, that is greater where they are better.

    Raises:
        ConfigError: neither drop nor limit, several drops, or a value out of range.
    """

    max_accuracy_drop: float | None = None
    max_agreement_drop: float | None = None
    confidence: float = 0.95
    max_layers: float | None = None
    max_latency_ms: float | None = None
    max_metric_drop: float | None = None
    metric: str | Metric | None = None

    def __post_init__(self) -> None:
        drops = {name: getattr(self, name) for name in _DROPS if getattr(self, name) is not None}
        limits = {name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None}
        if not drops and not limits:
            raise ConfigError(f"a budget names one of {', '.join((*_DROPS, *_LIMITS))}.")
        if len(drops) > 1:
            raise ConfigError(f"{' and '.join(drops)} are promises of their own; name one of them.")
        for name, given in {**drops, **limits, "confidence": self.confidence}.items():
            object.__setattr__(self, name, real_number(name, given))
        for name in (*drops, "confidence"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ConfigError(f"{name}={value}: it lies between 0 and 1, both excluded; 0.01 is one point.")
        for name in limits:
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ConfigError(f"{name}={value}: a positive number, and a finite one.")
        if (self.metric is None) != (self.max_metric_drop is None):
            raise ConfigError("max_metric_drop and metric go together: what may be lost, and of what.")
        if self.metric is not None and not isinstance(self.metric, str) and not callable(self.metric):
            raise ConfigError(f"metric={self.metric!r}: a name, or a function of predictions and labels.")
        if isinstance(self.metric, str) and self.metric not in CONFUSION_METRICS:
            raise ConfigError(
                f"metric={self.metric!r}: choose one of {', '.join(CONFUSION_METRICS)}, or pass a function. For "
                "accuracy use max_accuracy_drop, whose test is exact."
            )

    @property
    def epsilon(self) -> float | None:
        """The drop that is promised, a share; `None` where none is."""
        return next((getattr(self, name) for name in _DROPS if getattr(self, name) is not None), None)

    @property
    def delta(self) -> float:
        """How often, at most, the promise may fail."""
        return 1.0 - self.confidence

    @property
    def needs_labels(self) -> bool:
        """Whether the drop is one that labels show."""
        return self.max_accuracy_drop is not None or self.max_metric_drop is not None

    @property
    def what(self) -> str:
        """What may be lost, in words."""
        if self.max_metric_drop is not None:
            return self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "the metric")
        return "accuracy" if self.needs_labels else "agreement with the full model"

    def to_dict(self) -> dict[str, Any]:
        """What was named, in plain JSON types."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if callable(self.metric):
            named["metric"] = self.what
        return {name: value for name, value in named.items() if value is not None}
