"""One damaged artifact: made from a case's numbers, opened, loaded on every backend and run."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.commands import info
from itrex_sweet.errors import (
    ArtifactError,
    BackendUnavailable,
    ConfigError,
    InputError,
    NonFiniteLogitsError,
    SweetError,
    UnsupportedModelError,
)
from itrex_sweet.evaluation.model_card import render_card
from tests.artifact_kinds import KINDS
from tests.fuzz.mutations import copied, mutate
from tests.mutation import recompute_hashes

TEXTS = ["the soup was good", "never again", "awful " * 40]
PAIR = ("a slow phone", "but a great room")  # whose token types not every model has
REFUSALS = (ArtifactError, UnsupportedModelError, ConfigError, BackendUnavailable)


@dataclass(frozen=True)
class ArtifactCase:
    """The description of a damaged artifact.

    Args:
        kind: a key of `KINDS`.
        seeds: of its mutations, in order.
        hashed: whether hashes are made anew after them.
    """

    kind: str
    seeds: tuple[int, ...]
    hashed: bool

    @classmethod
    def of(cls, seed: int, kinds: tuple[str, ...] = tuple(KINDS)) -> ArtifactCase:
        rng = Random(seed)
        mutations = rng.choice((1, 1, 1, 2, 3))
        return cls(rng.choice(kinds), tuple(rng.randrange(1 << 32) for _ in range(mutations)), rng.random() < 0.85)

    @classmethod
    def parse(cls, text: str) -> ArtifactCase:
        """Reads what `str` gives."""
        kind, seeds, hashed = text.split(":")
        return cls(kind, tuple(map(int, seeds.split(","))), hashed == "hashed")

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.seeds))}:{'hashed' if self.hashed else 'stale'}"

    def smaller(self) -> list[ArtifactCase]:
        """The same case with one mutation fewer."""
        seeds = [self.seeds[:place] + self.seeds[place + 1 :] for place in range(len(self.seeds))]
        return [replace(self, seeds=part) for part in seeds if part]


def run_artifact(case: ArtifactCase, pristine: Path, work: Path, backends: tuple[str, ...]) -> str | None:
    """Tries one case.

    Args:
        pristine: holds an artifact of each kind.
        work: an empty folder of this process.
        backends: to load it on; those that do load it have to agree.

    Returns:
        what is wrong, in words; `None` if it was refused as it should be, or answered alike.
    """
    directory = work / "artifact"
    shutil.rmtree(directory, ignore_errors=True)
    copied(pristine / case.kind, directory)
    said = []
    for seed in case.seeds:
        try:
            said.append(mutate(seed, directory))
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
            said.append("nothing")  # an earlier mutation left nothing to damage
    if case.hashed:
        recompute_hashes(directory)
    told = "; ".join(said)
    outcomes: dict[str, Any] = {}
    for backend in backends:
        try:
            outcomes[backend] = _answers(directory, backend)
        except REFUSALS as error:
            outcomes[backend] = error
        except SweetError as error:
            return f"[{told}] {backend}: {type(error).__name__} is no refusal of an artifact: {error}"
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return f"[{told}] {backend}: {type(error).__module__}.{type(error).__name__}: {error}"
    wrong = _disagreement(outcomes, compared="extreme" not in told)
    return None if wrong is None else f"[{told}] {wrong}"


def _answers(directory: Path, backend: str) -> np.ndarray:
    """Logits of every exit, once everything that reads an artifact has read this one."""
    model = SweetModelForSequenceClassification.from_pretrained(directory, backend=backend)
    texts = TEXTS if model.tokenizer is not None else []
    answered = model.predict(texts, errors="mark")
    assert len(answered) == len(texts)
    with contextlib.suppress(ConfigError):
        model.predict(texts, errors="mark", quality=0.5)
    with contextlib.suppress(InputError):
        model.predict([PAIR] if texts else [], errors="mark")
    with contextlib.redirect_stdout(io.StringIO()):
        print(info._lines(info._artifact(str(directory))))
    model.artifact.fingerprints()
    with contextlib.suppress(KeyError, TypeError):  # a card is drawn of what the quantizer has written alone
        render_card(model.artifact)
    if not texts:
        return np.zeros(0)
    with contextlib.suppress(NonFiniteLogitsError):
        model.predict(texts)
    return model.executor.logits_at_every_exit(model.read(texts))


def _disagreement(outcomes: dict[str, Any], compared: bool) -> str | None:
    answered = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, np.ndarray)}
    for name, outcome in outcomes.items():
        if answered and name not in answered and not isinstance(outcome, BackendUnavailable):
            return f"{next(iter(answered))} answers, {name} does not: {outcome}"
    if len(answered) < 2 or not compared:
        return None
    (one, first), (other, second) = answered.items()
    if first.shape != second.shape:
        return f"{one} gives shape {first.shape}, {other} {second.shape}"
    are_finite = {name: bool(np.isfinite(outcome).all()) for name, outcome in answered.items()}
    if not all(are_finite.values()):
        return f"finite logits: {are_finite}" if any(are_finite.values()) else None
    apart, size = float(np.abs(first - second).max()), float(np.abs(first).max())
    return f"{one} and {other} differ by {apart} of {size}" if apart > 0.02 * (1 + size) else None
