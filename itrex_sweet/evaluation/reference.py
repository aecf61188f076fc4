"""Another model's answers to the same texts, to compare with: a plain Hugging Face checkpoint, an artifact at full
depth, or a file of answers. Labels are matched by name."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
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

CHECKPOINT, ARTIFACT, ANSWERS = "checkpoint", "artifact", "answers"


class Reference(ABC):
    """A model to compare with.

    Attributes:
        name: last part of its folder's or file's name.
        kind: `"checkpoint"`, `"artifact"` or `"answers"`.
        sha256: of its weights, or of the file.
    """

    kind: str

    def __init__(self, name: str, sha256: str):
        self.name, self.sha256 = name, sha256

    @abstractmethod
    def answers(self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str]) -> np.ndarray:
        """(rows,) int64: what it answers, as places among `label_names`.

        Args:
            texts: texts or pairs; `None` where there are only token ids, of another model's tokenizer.
            rows: how many.
            label_names: of the model that is compared with it, by id.

        Raises:
            ConfigError: it has other labels.
            InputError: there are no texts, or not one finite answer per row.
        """

    def to_dict(self) -> dict[str, Any]:
        """The record of it in an artifact."""
        return {"name": self.name, "kind": self.kind, "sha256": self.sha256}


def open_reference(source: str | os.PathLike | Reference) -> Reference:
    """Opens a model to compare with.

    Args:
        source: a folder or a name on the hub, of a plain Hugging Face classifier or of an artifact (whose full depth is
            meant); or a JSON-lines file as `itrex-sweet predict` writes it, one answer per row.

    Raises:
        ArtifactError: neither, or it cannot be loaded.
        InputError: the file's lines are no answers.
    """
    if isinstance(source, Reference):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError(f"against={type(source).__name__}: a folder, a name on the hub, or a file of answers.")
    if Path(source).is_file():
        return _Answers(Path(source))
    folder = fetch(source)
    config = read_json(folder / CONFIG_FILE)
    if (folder / SETTINGS_FILE).is_file() or config.get("sweet"):
        return _FullDepth(folder)
    return _Checkpoint(folder)


class _FullDepth(Reference):
    """An artifact that no row leaves early."""

    kind = ARTIFACT

    def __init__(self, folder: Path):
        super().__init__(folder.resolve().name, _hash(folder, open_artifact(folder, weights=False).weight_files()))
        self._folder = folder

    def answers(self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str]) -> np.ndarray:
        model = SweetModelForSequenceClassification.from_pretrained(self._folder, threshold=1.0)
        to_ours = _matched(model.artifact.label_names, label_names, self.name)
        logits = model.executor.run(model.read(_needed(texts, self.name)), model.policy).logits
        return to_ours[_finite(logits, self.name).argmax(axis=1)]


class _Checkpoint(Reference):
    """A plain classifier, run by transformers; no code of its folder is run."""

    kind = CHECKPOINT

    def __init__(self, folder: Path):
        with Snapshot(folder) as opened:
            names = weight_names(opened, FLOAT32)
        super().__init__(folder.resolve().name, _hash(folder, names))
        self._folder = folder

    def answers(self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str]) -> np.ndarray:
        texts = _needed(texts, self.name)
        model, tokenizer = load_plain_model(self._folder)
        named = model.config.id2label
        to_ours = _matched([str(named.get(place)) for place in range(model.config.num_labels)], label_names, self.name)
        return to_ours[_finite(logits_of(model, tokenizer, texts), self.name).argmax(axis=1)]


class _Answers(Reference):
    """A file of answers, in the order of the rows."""

    kind = ANSWERS

    def __init__(self, path: Path):
        super().__init__(path.name, sha256(path))
        self._path = path
        self._labels = list(self._read())

    def answers(self, texts: Sequence[Any] | None, rows: int, label_names: Sequence[str]) -> np.ndarray:
        if len(self._labels) != rows:
            raise InputError(f"{self._path} holds {len(self._labels)} answers, and there are {rows} rows to compare.")
        to_ours = _places(label_names)
        for number, label in enumerate(self._labels, start=1):
            if _plain(label) not in to_ours:
                raise ConfigError(
                    f"line {number} of {self._path}: label {label!r} is not one of {', '.join(label_names)}."
                )
        return np.array([to_ours[_plain(label)] for label in self._labels], dtype=np.int64)

    def _read(self) -> list[str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path} cannot be read ({error}).") from error
        labels = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            label = row.get("label") if isinstance(row, dict) else None
            if not isinstance(label, str):
                raise InputError(
                    f"line {number} of {self._path} is no answer, such as itrex-sweet predict writes: a JSON object "
                    "with a label.",
                    (number - 1,),
                )
            labels.append(label)
        return labels


def _needed(texts: Sequence[Any] | None, name: str) -> list[Any]:
    if texts is None:
        raise InputError(f"{name} reads texts with its own tokenizer: give texts, not token ids.")
    return list(texts)


def _finite(logits: np.ndarray, name: str) -> np.ndarray:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise InputError(
            f"the logits of {name} are not finite for {len(broken)} of {len(logits)} rows, the first {broken[0]}: "
            "nothing can be compared with such answers.",
            tuple(broken.tolist()),
        )
    return logits


def _matched(theirs: Sequence[str], ours: Sequence[str], name: str) -> np.ndarray:
    """(their labels,) int64: the place of each among ours.

    Raises:
        ConfigError: they are not the same labels.
    """
    places = _places(ours)
    if len(theirs) != len(ours) or {_plain(label) for label in theirs} != set(places):
        raise ConfigError(
            f"{name} has the labels {', '.join(theirs)}, and this model {', '.join(ours)}: to be compared they need "
            "the same ones. Labels without names are given them as id2label in config.json."
        )
    return np.array([places[_plain(label)] for label in theirs], dtype=np.int64)


def _places(label_names: Sequence[str]) -> dict[str, int]:
    """Plain name → place; names that differ in case alone stay as they are."""
    plain = {_plain(label): place for place, label in enumerate(label_names)}
    if len(plain) < len(label_names):
        raise ConfigError(f"the labels {', '.join(label_names)} differ in case alone, so they cannot be matched.")
    return plain


def _plain(label: str) -> str:
    return label.strip().casefold()


def _hash(folder: Path, names: Iterable[str]) -> str:
    """Of one file, its hash; of several, one over theirs."""
    digests = [sha256(folder / name) for name in sorted(names)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
