"""What leaving early may cost: a loss that is promised with statistics, or layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from itrex_sweet.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """What a calibrated policy may lose or spend.

    Args:
        max_accuracy_drop: accuracy that may be lost against the same model at full depth, as a share; 0.01 is a point.
            Needs labels.
        max_agreement_drop: share of rows that may get another label than the full model gives; needs no labels, so
            that unlabelled traffic can calibrate.
        confidence: how surely the drop is kept to, over the draw of the calibration rows; 1 - δ.
        max_layers: layers run per row, on average. Alone, it asks for the most accurate policy within it, without a
            promise; with a drop, the certified policy has to keep to it.

    Raises:
        ConfigError: neither drop nor layers, both drops, or a value out of range.
    """

    max_accuracy_drop: float | None = None
    max_agreement_drop: float | None = None
    confidence: float = 0.95
    max_layers: float | None = None

    def __post_init__(self) -> None:
        drops = {name: getattr(self, name) for name in ("max_accuracy_drop", "max_agreement_drop")}
        given = {name: value for name, value in drops.items() if value is not None}
        if not given and self.max_layers is None:
            raise ConfigError("a budget names max_accuracy_drop, max_agreement_drop or max_layers.")
        if len(given) > 1:
            raise ConfigError("max_accuracy_drop and max_agreement_drop are two promises; name one of them.")
        for name, value in {**given, "confidence": self.confidence}.items():
            if not 0.0 < value < 1.0:
                raise ConfigError(f"{name}={value}: it lies between 0 and 1, both excluded; 0.01 is one point.")
        if self.max_layers is not None and not self.max_layers > 0.0:
            raise ConfigError(f"max_layers={self.max_layers}: a positive number of layers.")

    @property
    def epsilon(self) -> float | None:
        """The drop that is promised, a share; `None` where none is."""
        return self.max_agreement_drop if self.max_accuracy_drop is None else self.max_accuracy_drop

    @property
    def delta(self) -> float:
        """How often, at most, the promise may fail."""
        return 1.0 - self.confidence

    @property
    def needs_labels(self) -> bool:
        """Whether the drop is one of accuracy."""
        return self.max_accuracy_drop is not None

    def to_dict(self) -> dict[str, Any]:
        """What was named, in plain JSON types."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
