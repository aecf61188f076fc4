"""Tasks of a classification head: single-label and multi-label classification, and regression.

Imports NumPy only, and only where arrays are computed, so that the command line prints help without it.

A `Task` says what a model's logits mean: the loss they are trained with, the scores and the decision that are read off
them, which criteria measure their confidence, when two decisions agree, and which metrics apply. Training, the runtime,
calibration and evaluation all read it from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from itrex_sweet.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

# Values of `problem_type` in transformers' configs.
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"

NO_ANSWER = -1  # decision of a row whose logits are not finite; NaN for regression

DEFAULT_LABEL_THRESHOLD = 0.5

# criteria of classification; `itrex_sweet.criteria` has the formulas
_CLASSIFICATION_CRITERIA = (
    "max_probability",
    "entropy",
    "margin",
    "patience",
    "patience_and_confidence",
    "learned",
)


class Task(ABC):
    """Meaning of the logits of a head.

    Decisions and labels of `rows` rows are arrays whose first axis are the rows. Early and full-depth decisions are
    compared row by row, so the loss of an early exit is 0 or 1 for every task, and binomial bounds hold.
    """

    name: ClassVar[str]  # `problem_type` in transformers' configs
    loss: ClassVar[str]  # `"cross_entropy"`, `"binary_cross_entropy"` or `"mean_squared_error"`
    criteria: ClassVar[tuple[str, ...]]  # those that fit, the default one first
    metrics: ClassVar[tuple[str, ...]]  # names of those that fit, the default one first
    has_temperatures: ClassVar[bool] = True  # false: logits are values in the unit of the labels

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def default_criterion(self) -> str:
        """Criterion of a policy that names none."""
        return self.criteria[0]

    @property
    def default_metric(self) -> str:
        """Metric of evaluation and calibration that name none."""
        return self.metrics[0]

    @abstractmethod
    def scores(self, logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
        """Returns the scores that users see: (..., labels) float32, NaN where the logits are not finite.

        Args:
            logits: (..., labels) float32.
            temperature: of the exit; or one per row, which broadcasts with the logits.
        """

    @abstractmethod
    def decisions(
        self,
        logits: np.ndarray,
        temperature: float | np.ndarray = 1.0,
        label_thresholds: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Returns the prediction for each row.

        Args:
            logits: (..., labels) float32.
            temperature: as for `scores`.
            label_thresholds: one per label, for multi-label classification; by default 0.5.

        Returns:
            single-label: (...) int64, the label. Multi-label: (..., labels) int64, 1 where a label is on. Regression:
            (...) float32, the value. `NO_ANSWER` (for regression NaN) where the logits are not finite.
        """

    @abstractmethod
    def agree(self, first: np.ndarray, second: np.ndarray, tolerance: float | None = None) -> np.ndarray:
        """Returns for each row whether two decisions, or a decision and a label, are the same: (...) bool.

        Rows without an answer agree with nothing.

        Args:
            first, second: as returned by `decisions`; they broadcast.
            tolerance: maximum difference of two values that agree, for regression.

        Raises:
            ConfigError: regression without a tolerance.
        """


class SingleLabel(Task):
    """Each row has one of the labels; the decision is the most probable one."""

    name = SINGLE_LABEL
    loss = "cross_entropy"
    criteria = _CLASSIFICATION_CRITERIA
    metrics = ("accuracy", "f1", "matthews")

    def scores(self, logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
        from itrex_sweet.probabilities import softmax

        return softmax(logits, temperature)

    def decisions(
        self,
        logits: np.ndarray,
        temperature: float | np.ndarray = 1.0,
        label_thresholds: Sequence[float] | None = None,
    ) -> np.ndarray:
        import numpy as np

        answered = np.isfinite(logits).all(axis=-1)
        return np.where(answered, np.where(answered[..., None], logits, 0).argmax(axis=-1), NO_ANSWER)

    def agree(self, first: np.ndarray, second: np.ndarray, tolerance: float | None = None) -> np.ndarray:
        import numpy as np

        return (first == second) & (np.asarray(first) != NO_ANSWER)


class MultiLabel(Task):
    """Each row has any number of the labels; a label is on if its probability exceeds its threshold."""

    name = MULTI_LABEL
    loss = "binary_cross_entropy"
    criteria = _CLASSIFICATION_CRITERIA
    metrics = ("exact_match", "micro_f1", "macro_f1")

    def scores(self, logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
        import numpy as np

        from itrex_sweet.probabilities import logistic

        logits = np.asarray(logits, dtype=np.float32)
        finite = np.isfinite(logits).all(axis=-1, keepdims=True)
        return np.where(finite, logistic(logits / temperature), np.float32("nan"))

    def decisions(
        self,
        logits: np.ndarray,
        temperature: float | np.ndarray = 1.0,
        label_thresholds: Sequence[float] | None = None,
    ) -> np.ndarray:
        import numpy as np

        scores = self.scores(logits, temperature)
        thresholds = np.float32(DEFAULT_LABEL_THRESHOLD if label_thresholds is None else label_thresholds)
        return np.where(np.isnan(scores), NO_ANSWER, scores > thresholds)

    def agree(self, first: np.ndarray, second: np.ndarray, tolerance: float | None = None) -> np.ndarray:
        import numpy as np

        return ((first == second) & (np.asarray(first) != NO_ANSWER)).all(axis=-1)


class Regression(Task):
    """Each row has one value.

    Every exit but the last also estimates its absolute error: its additional output is `-log(error)`, so the logistic
    function of it is `1 / (1 + error)`, which is the confidence.
    """

    name = REGRESSION
    loss = "mean_squared_error"
    criteria = ("learned",)
    metrics = ("pearson", "spearman", "negative_mse")
    has_temperatures = False

    def scores(self, logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
        import numpy as np

        logits = np.asarray(logits, dtype=np.float32)
        return np.where(np.isfinite(logits), logits, np.float32("nan"))

    def decisions(
        self,
        logits: np.ndarray,
        temperature: float | np.ndarray = 1.0,
        label_thresholds: Sequence[float] | None = None,
    ) -> np.ndarray:
        return self.scores(logits)[..., 0]

    def agree(self, first: np.ndarray, second: np.ndarray, tolerance: float | None = None) -> np.ndarray:
        import numpy as np

        if tolerance is None:
            raise ConfigError("agreement of regression needs a tolerance: the difference up to which values agree.")
        return np.abs(np.subtract(first, second, dtype=np.float64)) <= tolerance  # false for NaN


TASKS: dict[str, Task] = {task.name: task for task in (SingleLabel(), MultiLabel(), Regression())}


def task_named(name: str) -> Task:
    """Returns the task of a `problem_type`.

    Raises:
        ConfigError: unknown.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise ConfigError(f"problem_type={name!r} is unknown; choose one of {', '.join(TASKS)}.")
    return TASKS[name]


def task_of(config: Any) -> Task:
    """Returns the task of a Hugging Face config: its `problem_type`, or, as transformers infers it, regression for one
    label and single-label classification for more.

    Args:
        config: an object, or a mapping such as the contents of `config.json`.

    Raises:
        ConfigError: an unknown `problem_type`, or one that does not fit the number of labels.
    """
    read = config.get if isinstance(config, Mapping) else lambda name: getattr(config, name, None)
    labels = read("num_labels")
    if labels is None:
        labels = len(read("id2label") or (0, 1))  # two labels are transformers' default
    problem_type = read("problem_type")
    task = task_named((REGRESSION if labels == 1 else SINGLE_LABEL) if problem_type is None else problem_type)
    if task.name == REGRESSION and labels != 1:
        raise ConfigError(
            f"problem_type={task.name!r} with num_labels={labels}: exits support regression of one value."
        )
    if task.name == SINGLE_LABEL and labels < 2:
        raise ConfigError(
            f"problem_type={task.name!r} with num_labels={labels}: at least two labels are needed. A binary task has "
            "num_labels=2; for regression set problem_type='regression'."
        )
    return task
