"""Every exception the package raises on purpose, in one tree."""

from __future__ import annotations

from typing import Any


class SweetError(Exception):
    """Root of the package's own exceptions."""


class ConfigError(SweetError, ValueError):
    """A setting is wrong; the message names the value and what would be right."""


class UnsupportedModelError(SweetError, ValueError):
    """The model's family, head or configuration cannot carry exits."""


class TrainingSetupError(SweetError, RuntimeError):
    """Training would silently do something else than asked, so it is refused."""


class TrainingDivergedError(SweetError, ArithmeticError):
    """A loss, a gradient or a weight became NaN or infinite in training."""


class ArtifactError(SweetError, OSError):
    """A folder is not a whole, readable artifact of this package, or could not be written."""


class UnsupportedArtifactError(ArtifactError, UnsupportedModelError):
    """A folder holds a model of a family, head or configuration that cannot carry exits."""


class MissingExtraError(SweetError, ImportError):
    """An optional package is needed and not installed.

    Attributes:
        name: import name of the package.
        extra: the extra of this package that installs it, as in `pip install 'itrex-sweet[train]'`.
    """

    def __init__(self, message: str, package: str | None = None, extra: str | None = None):
        super().__init__(message)
        self.name = package
        self.extra = extra


class BackendUnavailable(SweetError, RuntimeError):
    """A backend was asked for by name and cannot run here."""


class QuantizationError(SweetError, RuntimeError):
    """A model could not be quantized: its weights or activations are not finite, or nothing passed the limits set."""


class CalibrationError(SweetError, RuntimeError):
    """No policy keeps to the budget asked for, or the rows do not suffice to show that one does."""


class NoGainError(SweetError, RuntimeError):
    """Exits would make a model no faster: none of them learned anything, or none pays."""


class ExportError(SweetError, RuntimeError):
    """A subgraph cannot be written in the format asked for, or its file answers otherwise than the model."""


class InputError(SweetError, ValueError):
    """Texts, token ids or labels that cannot be processed.

    Attributes:
        rows: indices, in the caller's order, of the rows at fault.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()):
        super().__init__(message)
        self.rows = rows


class UnknownTokenError(InputError, IndexError):
    """A token id that the model in training has no embedding for."""


class NonFiniteLogitsError(SweetError, ArithmeticError):
    """The last exit answered NaN or infinity for some rows.

    Attributes:
        rows: indices, in the caller's order, of the rows without an answer.
        answers: what the other rows got, so that nothing is lost.
    """

    def __init__(self, message: str, rows: tuple[int, ...], answers: Any = None):
        super().__init__(message)
        self.rows = rows
        self.answers = answers
