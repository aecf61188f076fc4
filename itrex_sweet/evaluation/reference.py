"""Reference models that a model is compared with: a plain Hugging Face checkpoint, an artifact at full depth, or a file
of predictions. Labels are matched by name."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact import open_artifact
from itrex_sweet.artifact.files import weight_names
from itrex_sweet.artifact.layout import CONFIG_FILE, FLOAT32, SETTINGS_FILE, sha256
from itrex_sweet.artifact.snapshot import Snapshot, read_json
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation.plain_model import load_plain_model, logits_of
from itrex_sweet.hub import fetch
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS, Task, task_of

_MAX_FLOAT32 = 3.4e38

CHECKPOINT, ARTIFACT, ANSWERS = "checkpoint", "artifact", "answers"


class Reference(ABC):
    """A reference model.

    Attributes:
        name: of its folder or file.
        kind: `"checkpoint"`, `"artifact"` or `"answers"`.
        sha256: of its weights, or of the file.
    """

    kind: str

    def __init__(self, name: str, sha256: str):
        self.name, self.sha256 = name, sha256

    @abstractmethod
    def answers(
        self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str], task: Task = TASKS[SINGLE_LABEL]
    ) -> np.ndarray:
        """Returns its predictions (rows,) int64, as indices of `label_names`; for multi-label classification (rows,
        labels) int64 of ones and zeros, for regression (rows,) float32.

        Args:
            texts: texts or pairs; `None` if only token ids are available.
            rows: number of rows.
            label_names: of the compared model, by id.
            task: of the compared model.

        Raises:
            ConfigError: it has other labels, or another task.
            InputError: texts are needed and missing, or there is not one finite answer per row.
        """

    def to_dict(self) -> dict[str, Any]:
        """Returns the artifact's record of the reference."""
        return {"name": self.name, "kind": self.kind, "sha256": self.sha256}


def open_reference(source: str | os.PathLike | Reference) -> Reference:
    """Opens a reference model.

    Args:
        source: a folder or a repository on the hub, of a plain Hugging Face classifier or of an artifact, which is run
            at full depth; or a JSON Lines file of predictions as `itrex-sweet predict` writes it, one per row.

    Raises:
        ArtifactError: the source is neither, or cannot be loaded.
        InputError: a line of the file is not a prediction.
    """
    if isinstance(source, Reference):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError(
            f"against is of type {type(source).__name__}: pass a folder, a repository on the hub, or a file of "
            "predictions."
        )
    if Path(source).is_file():
        return _Answers(Path(source))
    folder = fetch(source)
    config = read_json(folder / CONFIG_FILE)
    if (folder / SETTINGS_FILE).is_file() or config.get("sweet"):
        return _FullDepth(folder)
    return _Checkpoint(folder)


class _FullDepth(Reference):
    """An artifact, run at full depth."""

    kind = ARTIFACT

    def __init__(self, folder: Path):
        super().__init__(folder.resolve().name, _hash(folder, open_artifact(folder, weights=False).weight_files()))
        self._folder = folder

    def answers(
        self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str], task: Task = TASKS[SINGLE_LABEL]
    ) -> np.ndarray:
        model = SweetModelForSequenceClassification.from_pretrained(self._folder, threshold=1.0)
        _require_task(model.artifact.task, task, self.name)
        label_map = _match_labels(model.artifact.label_names, label_names, self.name, task)
        logits = model.executor.run(model.read(_require_texts(texts, self.name)), model.policy).logits
        return _decisions(_require_finite(logits, self.name), label_map, task)


class _Checkpoint(Reference):
    """A plain classifier, run by transformers without remote code."""

    kind = CHECKPOINT

    def __init__(self, folder: Path):
        with Snapshot(folder) as opened:
            names = weight_names(opened, FLOAT32)
        super().__init__(folder.resolve().name, _hash(folder, names))
        self._folder = folder

    def answers(
        self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str], task: Task = TASKS[SINGLE_LABEL]
    ) -> np.ndarray:
        texts = _require_texts(texts, self.name)
        model, tokenizer = load_plain_model(self._folder)
        _require_task(task_of(model.config), task, self.name)
        id2label = model.config.id2label
        label_map = _match_labels(
            [str(id2label.get(index)) for index in range(model.config.num_labels)], label_names, self.name, task
        )
        return _decisions(_require_finite(logits_of(model, tokenizer, texts), self.name), label_map, task)


class _Answers(Reference):
    """A file of predictions, in the order of the rows."""

    kind = ANSWERS

    def __init__(self, path: Path):
        super().__init__(path.name, sha256(path))
        self._path = path
        self._predictions = list(self._read())

    def answers(
        self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str], task: Task = TASKS[SINGLE_LABEL]
    ) -> np.ndarray:
        if len(self._predictions) != rows:
            raise InputError(f"{self._path} holds {len(self._predictions)} predictions for {rows} rows.")
        if task.name == REGRESSION:
            return np.array([self._value(*each) for each in self._predictions], dtype=np.float32)
        label_map = _label_indices(label_names)
        indices = [self._indices(*each, label_names, label_map, task) for each in self._predictions]
        if task.name == SINGLE_LABEL:
            return np.array([row[0] for row in indices], dtype=np.int64)
        decisions = np.zeros((rows, len(label_names)), dtype=np.int64)
        for row, labels in enumerate(indices):
            decisions[row, labels] = 1
        return decisions

    def _indices(
        self,
        number: int,
        prediction: Mapping[str, Any],
        label_names: Sequence[str],
        label_map: Mapping[str, int],
        task: Task,
    ) -> list[int]:
        """Returns the indices of a prediction's labels, given normalized name → index."""
        if task.name == MULTI_LABEL:
            labels = prediction.get("labels")
            if isinstance(labels, list):
                labels = [each.get("label") if isinstance(each, dict) else each for each in labels]
        else:
            labels = [prediction.get("label")]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            needed = "labels, a list" if task.name == MULTI_LABEL else "label, a name"
            raise InputError(f"line {number} of {self._path} is not a prediction of {task.name}: it needs {needed}.")
        for label in labels:
            if _normalize(label) not in label_map:
                raise ConfigError(
                    f"line {number} of {self._path}: label {label!r} is not one of {', '.join(label_names)}."
                )
        return [label_map[_normalize(label)] for label in labels]

    def _value(self, number: int, prediction: Mapping[str, Any]) -> float:
        """Returns the value that a regression model predicted."""
        value = prediction.get("score")
        if "label" in prediction or not _is_number(value):
            raise InputError(
                f"line {number} of {self._path} is not a prediction of regression: it needs score, the value, and no "
                "label."
            )
        return float(value)

    def _read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields line numbers and predictions."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path} cannot be read ({error}).") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not _is_prediction(row):
                raise InputError(
                    f"line {number} of {self._path} is not a prediction as `itrex-sweet predict` writes it: a JSON "
                    "object with label, labels or score.",
                    (number - 1,),
                )
            yield number, row


def _is_prediction(row: Mapping[str, Any]) -> bool:
    """Returns whether a row has the fields of a prediction of some task."""
    if "label" in row:
        return isinstance(row["label"], str)
    return isinstance(row.get("labels"), list) or _is_number(row.get("score"))


def _is_number(value: Any) -> bool:
    """Returns whether a value is a finite number that fits float32."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_FLOAT32


def _require_task(theirs: Task, ours: Task, name: str) -> None:
    if theirs is not ours:
        raise ConfigError(f"{name} has the task {theirs.name}, and this model {ours.name}: they cannot be compared.")


def _decisions(logits: np.ndarray, label_map: np.ndarray, task: Task) -> np.ndarray:
    """Returns the decisions for finite logits (rows, labels), in terms of the other model's labels."""
    decisions = task.decisions(logits)
    if task.name == REGRESSION:
        return decisions
    if task.name == SINGLE_LABEL:
        return label_map[decisions]
    mapped = np.empty_like(decisions)
    mapped[:, label_map] = decisions
    return mapped


def _require_texts(texts: Sequence[Any] | None, name: str) -> list[Any]:
    if texts is None:
        raise InputError(f"{name} has a tokenizer of its own: pass texts, not token ids.")
    return list(texts)


def _require_finite(logits: np.ndarray, name: str) -> np.ndarray:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise InputError(
            f"the logits of {name} are not finite for {len(broken)} of {len(logits)} rows, the first is row "
            f"{broken[0]}.",
            tuple(broken.tolist()),
        )
    return logits


def _match_labels(theirs: Sequence[str], ours: Sequence[str], name: str, task: Task) -> np.ndarray:
    """Returns the index (their labels,) int64 of each of their labels among ours; the names of a regression's single
    output are not compared.

    Raises:
        ConfigError: they are not the same labels.
    """
    if task.name == REGRESSION:
        return np.zeros(1, dtype=np.int64)
    if list(theirs) == list(ours):
        return np.arange(len(ours))
    indices = _label_indices(ours)
    if len(theirs) != len(ours) or {_normalize(label) for label in theirs} != set(indices):
        raise ConfigError(
            f"{name} has the labels {', '.join(theirs)}, and this model {', '.join(ours)}: they must be the same to be "
            "compared. Labels are named in id2label of config.json."
        )
    return np.array([indices[_normalize(label)] for label in theirs], dtype=np.int64)


def _label_indices(label_names: Sequence[str]) -> dict[str, int]:
    """Returns normalized name → index."""
    indices = {_normalize(label): index for index, label in enumerate(label_names)}
    if len(indices) < len(label_names):
        raise ConfigError(
            f"the labels {', '.join(label_names)} cannot be matched: some of them are equal, or differ only in case."
        )
    return indices


def _normalize(label: str) -> str:
    return label.strip().casefold()


def _hash(folder: Path, names: Iterable[str]) -> str:
    """Returns the hash of a file, or the hash of several files' hashes."""
    digests = [sha256(folder / name) for name in sorted(names)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
