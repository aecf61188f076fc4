"""Runs artifacts on more than one machine: Ray Data, Ray Serve, Spark, and folders of files.

Importing it imports neither Ray nor Spark.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "SweetPredictor": "itrex_sweet.cluster.predictor",
    "artifact_identity": "itrex_sweet.cluster.loading",
    "make_predict_fn": "itrex_sweet.cluster.spark",
    "spark_return_type": "itrex_sweet.cluster.spark",
    "SweetDeployment": "itrex_sweet.cluster.serve",
    "deployment": "itrex_sweet.cluster.serve",
    "FolderSettings": "itrex_sweet.cluster.settings",
    "predict_folder": "itrex_sweet.cluster.folders",
}

__all__ = [*_MODULES]

if TYPE_CHECKING:
    from itrex_sweet.cluster.folders import predict_folder
    from itrex_sweet.cluster.loading import artifact_identity
    from itrex_sweet.cluster.predictor import SweetPredictor
    from itrex_sweet.cluster.serve import SweetDeployment, deployment
    from itrex_sweet.cluster.settings import FolderSettings
    from itrex_sweet.cluster.spark import make_predict_fn, spark_return_type


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: the command line parser reads settings of this package without NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
