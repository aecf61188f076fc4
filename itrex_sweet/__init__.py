"""Early-exit text classification on the CPU: training, INT8 quantization, calibration and inference."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from itrex_sweet.extras import naming_extras
from itrex_sweet.version import __version__

_MODULES = {
    "Policy": "itrex_sweet.policy",
    "SweetConfig": "itrex_sweet.config",
    "SweetCallback": "itrex_sweet.training",
    "attach": "itrex_sweet.training",
    "detach": "itrex_sweet.training",
    "train_multi_model": "itrex_sweet.training",
    "save_artifact": "itrex_sweet.training",
    "save_cascade": "itrex_sweet.training",
    "open_artifact": "itrex_sweet.artifact",
    "load": "itrex_sweet.classifier",
    "Classifier": "itrex_sweet.classifier",
    "SweetModelForSequenceClassification": "itrex_sweet.modeling",
    "Budget": "itrex_sweet.calibration.budget",
    "calibrate": "itrex_sweet.calibration.calibrate",
    "add_exits": "itrex_sweet.acceleration",
    "accelerate": "itrex_sweet.acceleration",
    "prune_exits": "itrex_sweet.calibration.pruning",
    "SweetQuantizer": "itrex_sweet.quantization",
    "export_subgraphs": "itrex_sweet.export.subgraphs",
}

__all__ = ["__version__", *_MODULES]

if TYPE_CHECKING:
    from itrex_sweet.acceleration import accelerate, add_exits
    from itrex_sweet.artifact import open_artifact
    from itrex_sweet.calibration.budget import Budget
    from itrex_sweet.calibration.calibrate import calibrate
    from itrex_sweet.calibration.pruning import prune_exits
    from itrex_sweet.classifier import Classifier, load
    from itrex_sweet.config import SweetConfig
    from itrex_sweet.export.subgraphs import export_subgraphs
    from itrex_sweet.modeling import SweetModelForSequenceClassification
    from itrex_sweet.policy import Policy
    from itrex_sweet.quantization import SweetQuantizer
    from itrex_sweet.training import SweetCallback, attach, detach, save_artifact, save_cascade, train_multi_model


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use, so that `import itrex_sweet` imports no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with naming_extras(f"itrex_sweet.{name}"):
        value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
