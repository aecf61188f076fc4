"""The exceptions of this package; all derive from `SweetError`."""

from __future__ import annotations

from typing import Any


class SweetError(Exception):
    """Base class of all exceptions of this package."""


class ConfigError(SweetError, ValueError):
    """A setting has a wrong value; the message names it and says what is accepted."""


class UnsupportedModelError(SweetError, ValueError):
    """The model's family, head or configuration does not support exits."""


class TrainingSetupError(SweetError, RuntimeError):
    """The training setup would silently do something else than requested."""


class TrainingDivergedError(SweetError, ArithmeticError):
    """A loss, a gradient or a weight became NaN or infinite in training."""


class ArtifactError(SweetError, OSError):
    """A folder is not a complete, readable artifact of this package, or could not be written."""


class UnsupportedArtifactError(ArtifactError, UnsupportedModelError):
    """A folder contains a model of a family, head or configuration that does not support exits."""


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
    """A backend cannot run here, or cannot run the artifact."""


class QuantizationError(SweetError, RuntimeError):
    """A model could not be quantized: weights or activations are not finite, or no recipe met the limits."""


class CalibrationError(SweetError, RuntimeError):
    """No policy meets the budget, or there are too few rows to show that one does."""


class NoGainError(SweetError, RuntimeError):
    """Exits would not make the model faster: none learned anything, or none saves time."""


class ExportError(SweetError, RuntimeError):
    """A subgraph cannot be exported, or the exported file computes something else than the model."""


class InputError(SweetError, ValueError):
    """Texts, token ids or labels that cannot be processed.

    Attributes:
        rows: indices of the wrong rows, in the caller's order.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()):
        super().__init__(message)
        self.rows = rows


class RequestError(SweetError, RuntimeError):
    """A request to a server that is refused or fails.

    Attributes:
        kind: one of the kinds of `itrex_sweet.serving.failures`, which have status codes.
        retry_after: seconds after which the client may try again, or `None`.
    """

    def __init__(self, kind: str, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class UnknownTokenError(InputError, IndexError):
    """A token id without an embedding in the model that is trained."""


class NonFiniteLogitsError(SweetError, ArithmeticError):
    """The logits of some rows are NaN or infinite.

    Attributes:
        rows: indices of these rows, in the caller's order.
        answers: the result of the call, with an `error` for these rows.
    """

    def __init__(self, message: str, rows: tuple[int, ...], answers: Any = None):
        super().__init__(message)
        self.rows = rows
        self.answers = answers


class Overloaded(SweetError, RuntimeError):
    """More rows wait than the scheduler accepts.

    Attributes:
        retry_after: estimated seconds until there is room, or `None` if unknown.
    """

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(SweetError, TimeoutError):
    """The deadline of a request passed before its rows were computed."""


class SchedulerClosed(SweetError, RuntimeError):
    """The scheduler does not accept requests any more, or was closed before it answered one."""
