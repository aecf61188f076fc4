"""A model and requests as a server observes them, without a server."""

from types import SimpleNamespace

import numpy as np

from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.request import Request
from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.observed_model import ObservedModel
from itrex_sweet.serving.observer import Observer
from itrex_sweet.tasks import SINGLE_LABEL, TASKS

EXITS = (1, 4, 6)
POLICY = Policy((0.7, 0.7), (1.0, 1.0, 1.0))


def artifact(rows: int = 2000, task: str = SINGLE_LABEL, seed: int = 0) -> SimpleNamespace:
    """Returns what an observer reads of an artifact, calibrated on rows drawn by `draw`; without rows, uncalibrated."""
    calibration = {}
    if rows:
        counts = np.zeros((2, len(EXITS), 4), dtype=int)
        labels, exits, scores = draw(rows, seed)
        np.add.at(counts, (labels, exits, np.searchsorted([0.6, 0.7, 0.9], scores)), 1)
        calibration = {"traffic": {"exits": list(EXITS), "score_edges": [0.6, 0.7, 0.9], "rows": counts.tolist()}}
    return SimpleNamespace(exits=EXITS, precision="int8", calibration=calibration, policy=POLICY, task=TASKS[task])


def draw(rows: int, seed: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> tuple[np.ndarray, ...]:
    """Returns labels, indices of exits and scores of rows, independent of one another."""
    random = np.random.default_rng(seed)
    return random.integers(0, 2, rows), random.choice(len(EXITS), rows, p=shares), random.uniform(0.5, 1.0, rows)


def snapshot() -> SimpleNamespace:
    """Returns the state of a scheduler."""
    return SimpleNamespace(rows_waiting=(3, 1, 0), tokens_waiting=(60, 20, 0), quality=0.75)


def add_model(observer: Observer, name: str = "m", policy: Policy = POLICY, **options) -> ObservedModel:
    """Adds a model whose backend gives labels and scores that `answer` put into the logits."""
    stored = artifact(**options)
    backend = SimpleNamespace(task=stored.task, best_labels=lambda logits, _: (logits[:, 0].astype(int), logits[:, 1]))
    return observer.add_model(name, stored, backend, policy, snapshot, {"backend": "native"})


def answer(
    observer: Observer,
    model: ObservedModel,
    exits: list[int],
    *,
    labels: list[int] | None = None,
    scores: list[float] | None = None,
    late: list[bool] | None = None,
    lengths: list[int] | None = None,
    batch: bool = False,
    headers: dict[bytes, bytes] | None = None,
    policy: Policy = POLICY,
    quality: float | None = None,
) -> Observation:
    """Observes a request that is answered at these exits, and returns it."""
    rows = len(exits)
    seen = observer.begin("/predict", {b"x-request-id": b"id-1", **(headers or {})})
    seen.model, seen.batch, seen.texts = model, batch, ["a secret text"] * rows
    seen.tokenized(np.array(lengths or [5] * rows), 30, 0.001)
    if seen.segments is not None:
        start = seen.tokenized_at + 0.002
        for place in range(max(exits) + 1):
            waiting = sum(exit_ >= place for exit_ in exits)
            seen.segments.append((place, start + place * 0.01, start + place * 0.01 + 0.005, waiting, 8))
    seen.timed(0.002, 0.003)
    logits = np.stack([labels or [0] * rows, scores or [0.8] * rows], axis=1).astype(np.float32)
    late = None if late is None else np.array(late)
    seen.answers = Answers(np.arange(rows), logits, np.array(exits), np.zeros(rows, np.float32), late)
    seen.answers.request = Request(policy, quality=quality)
    seen.succeeded()
    return seen
