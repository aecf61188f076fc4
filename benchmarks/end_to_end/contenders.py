"""Contenders of the comparison: they take a list of strings, or of pairs, and return the names of labels."""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers.base import PaddedEngine

import itrex_sweet
from end_to_end.policies import BATCHES
from end_to_end.tokenization import TOKENIZERS, PaddingTokenizer
from itrex_sweet.policy import Policy

OURS, PEER, RIVAL = "ours", "peer", "rival"
TRIED = 320  # texts, to choose an engine's configuration


class Contender(ABC):
    """A classifier of strings.

    Args:
        title: in tables.
        kind: `OURS`, `PEER` or `RIVAL`.
        names: labels by id.
    """

    is_slow = False  # measured in fewer repeats

    def __init__(self, title: str, kind: str, names: Sequence[str]):
        self.title, self.kind, self.names = title, kind, tuple(names)
        self.configuration = ""

    @abstractmethod
    def classify(self, texts: list[Any]) -> list[str]:
        """Returns the label of each text of one call."""

    def classify_all(self, texts: list[Any], size: int) -> list[str]:
        """Returns the label of each text, in calls of `size` texts in their order."""
        return [label for start in range(0, len(texts), size) for label in self.classify(texts[start : start + size])]

    def prepare(self, texts: list[Any], size: int) -> None:
        """Selects the fastest configuration for calls of `size` texts, where there is a choice."""
        self.configuration = ""


class Ours(Contender):
    """An artifact on the native engine.

    Args:
        folder: of the artifact, or of one per size of a call, `FOLDER-SIZE`.
        policy: replaces the stored one.
    """

    def __init__(self, title: str, folder: Path, threads: int, policy: Policy | None = None, kind: str = OURS):
        self._folder, self._threads, self._policy = folder, threads, policy
        self.classifier = self._load(self._folder_for(BATCHES[0]))
        self._as_arrays = False
        super().__init__(title, kind, self.classifier.labels)

    def prepare(self, texts: list[Any], size: int) -> None:
        if (folder := self._folder_for(size)) != Path(self.classifier.artifact.directory):
            self.classifier = self._load(folder)
        if "as_arrays" in inspect.signature(self.classifier.predict).parameters:
            tried = {}
            for self._as_arrays in (True, False):
                tried[self._as_arrays] = _seconds(self, texts[:TRIED], size)
            self._as_arrays = min(tried, key=tried.__getitem__)
            self.configuration = "arrays" if self._as_arrays else "dictionaries"

    def classify(self, texts: list[Any]) -> list[str]:
        if self._as_arrays:
            names = self.names
            return [names[place] for place in self.classifier.predict(texts, as_arrays=True).labels.tolist()]
        return [answer["label"] for answer in self.classifier.predict(texts)]

    def mean_layers(self, texts: list[Any]) -> float:
        """Returns the mean exit of the texts, in layers."""
        return float(np.mean([answer["exit_layer"] for answer in self.classifier.predict(texts)]))

    def _folder_for(self, size: int) -> Path:
        return self._folder if self._folder.is_dir() else self._folder.with_name(f"{self._folder.name}-{size}")

    def _load(self, folder: Path) -> itrex_sweet.Classifier:
        classifier = itrex_sweet.load(folder, backend="native", threads=self._threads)
        if self._policy is not None:
            classifier.policy = self._policy
        return classifier


class FullDepthEngine(Contender):
    """A peer: an engine behind the fastest of the tokenizers.

    Args:
        engine: loaded with the model.
        folder: of the model, with its tokenizer.
    """

    def __init__(self, title: str, engine: PaddedEngine, folder: Path, names: Sequence[str], kind: str = PEER):
        super().__init__(title, kind, names)
        self._engine, self._folder = engine, folder
        self.is_slow = title.startswith("torch")
        self._tokenize: PaddingTokenizer = TOKENIZERS["tokenizers"](folder)
        self._is_concurrent = False

    def prepare(self, texts: list[Any], size: int) -> None:
        has_choice = hasattr(self._engine, "forward_concurrently")
        some = texts[: TRIED // 5 if self.is_slow else TRIED]
        tried = {}
        for name, make in TOKENIZERS.items():
            for multiple in (1, 8) if has_choice and size > 1 else (1,):
                if (tokenize := make(self._folder, multiple)) is None:
                    continue
                for is_concurrent in (False, True) if has_choice and size > 1 else (False,):
                    self._tokenize, self._is_concurrent = tokenize, is_concurrent
                    choice = f"{name}, multiples of {multiple}{', concurrent requests' if is_concurrent else ''}"
                    tried[choice] = _seconds(self, some, size), tokenize, is_concurrent
        self.configuration = min(tried, key=lambda choice: tried[choice][0])
        _, self._tokenize, self._is_concurrent = tried[self.configuration]

    def classify(self, texts: list[Any]) -> list[str]:
        logits = self._engine.forward(self._engine.arrange(*self._tokenize(texts)))
        return [self.names[place] for place in logits.argmax(-1).tolist()]

    def classify_all(self, texts: list[Any], size: int) -> list[str]:
        if not self._is_concurrent:
            return super().classify_all(texts, size)
        batches = (
            self._engine.arrange(*self._tokenize(texts[start : start + size])) for start in range(0, len(texts), size)
        )
        logits = np.concatenate(self._engine.forward_concurrently(batches))
        return [self.names[place] for place in logits.argmax(-1).tolist()]


class Linear(Contender):
    """A rival without a transformer: anything with scikit-learn's `predict`, which returns label ids."""

    def __init__(self, title: str, pipeline: Any, names: Sequence[str]):
        super().__init__(title, RIVAL, names)
        self._pipeline = pipeline

    def classify(self, texts: list[Any]) -> list[str]:
        return [self.names[place] for place in self._pipeline.predict(texts).tolist()]


def _seconds(contender: Contender, texts: list[Any], size: int) -> float:
    """Returns the seconds of a pass after a warm-up."""
    contender.classify_all(texts, size)
    start = time.perf_counter()
    contender.classify_all(texts, size)
    return time.perf_counter() - start
