"""The classifier that runs an artifact, on NumPy and `tokenizers` alone: no torch and no transformers."""

from itrex_sweet.classifier.classifier import Classifier

load = Classifier.load

__all__ = ["Classifier", "load"]
