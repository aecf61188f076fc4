"""A case of the fuzzer: a damaged artifact, generated from seeds, loaded and run on every backend."""

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
from tests.fuzz.mutations import copy_artifact, mutate
from tests.mutation import recompute_hashes

TEXTS = ["the soup was good", "never again", "awful " * 40]
PAIR = ("a slow phone", "but a great room")  # models may have no token types
EXPECTED_ERRORS = (ArtifactError, UnsupportedModelError, ConfigError, BackendUnavailable)


@dataclass(frozen=True)
class ArtifactCase:
    """The description of a damaged artifact.

    Args:
        kind: a key of `KINDS`.
        seeds: seeds of the mutations, in order.
        hashed: recompute the hashes after the mutations.
    """

    kind: str
    seeds: tuple[int, ...]
    hashed: bool

    @classmethod
    def from_seed(cls, seed: int, kinds: tuple[str, ...] = tuple(KINDS)) -> ArtifactCase:
        rng = Random(seed)
        mutations = rng.choice((1, 1, 1, 2, 3))
        return cls(rng.choice(kinds), tuple(rng.randrange(1 << 32) for _ in range(mutations)), rng.random() < 0.85)

    @classmethod
    def parse(cls, text: str) -> ArtifactCase:
        """Parses the result of `str`."""
        kind, seeds, hashed = text.split(":")
        return cls(kind, tuple(map(int, seeds.split(","))), hashed == "hashed")

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.seeds))}:{'hashed' if self.hashed else 'stale'}"

    def simplifications(self) -> list[ArtifactCase]:
        """Returns the cases with one mutation fewer."""
        seeds = [self.seeds[:index] + self.seeds[index + 1 :] for index in range(len(self.seeds))]
        return [replace(self, seeds=part) for part in seeds if part]


def run_artifact(case: ArtifactCase, pristine: Path, work: Path, backends: tuple[str, ...]) -> str | None:
    """Runs one case.

    Args:
        pristine: folder with an artifact of each kind.
        work: an empty folder of this process.
        backends: backends to run on; those that load the artifact must agree.

    Returns:
        a description of the failure, or `None` if all backends reject the artifact or agree.
    """
    directory = work / "artifact"
    shutil.rmtree(directory, ignore_errors=True)
    copy_artifact(pristine / case.kind, directory)
    mutations = []
    for seed in case.seeds:
        try:
            mutations.append(mutate(seed, directory))
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
            mutations.append("nothing")  # not applicable after an earlier mutation
    if case.hashed:
        recompute_hashes(directory)
    description = "; ".join(mutations)
    outcomes: dict[str, Any] = {}
    for backend in backends:
        try:
            outcomes[backend] = _run(directory, backend)
        except EXPECTED_ERRORS as error:
            outcomes[backend] = error
        except SweetError as error:
            return f"[{description}] {backend}: {type(error).__name__} is not an error for an invalid artifact: {error}"
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return f"[{description}] {backend}: {type(error).__module__}.{type(error).__name__}: {error}"
    wrong = _disagreement(outcomes, compared="extreme" not in description)
    return None if wrong is None else f"[{description}] {wrong}"


def _run(directory: Path, backend: str) -> np.ndarray:
    """Runs everything that reads an artifact; returns the logits of every exit."""
    model = SweetModelForSequenceClassification.from_pretrained(directory, backend=backend)
    texts = TEXTS if model.tokenizer is not None else []
    predictions = model.predict(texts, errors="mark")
    assert len(predictions) == len(texts)
    with contextlib.suppress(ConfigError):
        model.predict(texts, errors="mark", quality=0.5)
    with contextlib.suppress(InputError):
        model.predict([PAIR] if texts else [], errors="mark")
    with contextlib.redirect_stdout(io.StringIO()):
        print(info._lines(info._artifact(str(directory))))
    model.artifact.fingerprints()
    with contextlib.suppress(KeyError, TypeError):  # for artifacts without the quantizer's records
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
            return f"{next(iter(answered))} runs, {name} fails: {outcome}"
    if len(answered) < 2 or not compared:
        return None
    (one, first), (other, second) = answered.items()
    if first.shape != second.shape:
        return f"{one} gives shape {first.shape}, {other} {second.shape}"
    are_finite = {name: bool(np.isfinite(outcome).all()) for name, outcome in answered.items()}
    if not all(are_finite.values()):
        return f"finite logits: {are_finite}" if any(are_finite.values()) else None
    difference, scale = float(np.abs(first - second).max()), float(np.abs(first).max())
    return f"{one} and {other} differ by {difference} of {scale}" if difference > 0.02 * (1 + scale) else None
