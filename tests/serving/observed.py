"""A model and requests as a server observes them, without a server."""

from types import SimpleNamespace

import numpy as np

from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.observer import Observer
from itrex_sweet.tasks import SINGLE_LABEL, TASKS

EXITS = (1, 4, 6)
CONFIDENCE, DEADLINE, MAX_EXIT, FULL_DEPTH = range(4)  # codes of `stopped_by`


def artifact(rows: int = 2000, task: str = SINGLE_LABEL, seed: int = 0) -> SimpleNamespace:
    """Returns what an observer reads of an artifact, calibrated on rows drawn by `draw`; without rows, uncalibrated."""
    calibration = {}
    if rows:
        counts = np.zeros((2, len(EXITS), 4), dtype=int)
        labels, exits, scores = draw(rows, seed)
        np.add.at(counts, (labels, exits, np.searchsorted([0.6, 0.7, 0.9], scores)), 1)
        calibration = {"traffic": {"exits": list(EXITS), "score_edges": [0.6, 0.7, 0.9], "rows": counts.tolist()}}
    return SimpleNamespace(exits=EXITS, precision="int8", calibration=calibration, task=TASKS[task])


def draw(rows: int, seed: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> tuple[np.ndarray, ...]:
    """Returns labels, indices of exits and scores of rows, independent of one another."""
    random = np.random.default_rng(seed)
    return random.integers(0, 2, rows), random.choice(len(EXITS), rows, p=shares), random.uniform(0.5, 1.0, rows)


def snapshot() -> SimpleNamespace:
    """Returns the state of a scheduler."""
    return SimpleNamespace(rows_waiting=(3, 1, 0), tokens_waiting=(60, 20, 0), quality=1.0, rejected=2, expired=0)


def answer(
    observer: Observer,
    model: object,
    exits: list[int],
    *,
    labels: list[int] | None = None,
    scores: list[float] | None = None,
    reasons: list[int] | None = None,
    lengths: list[int] | None = None,
    batch: bool = False,
    route: str = "predict",
    headers: dict[str, str] | None = None,
    **options: bool,
) -> Observation:
    """Observes a request that is answered at these exits, and returns it."""
    rows = len(exits)
    seen = observer.begin(route, "id-1", headers)
    seen.model, seen.batch, seen.texts = model, batch, ["a secret text"] * rows
    seen.tokenized(np.array(lengths or [5] * rows), 30, 0.001)
    if seen.segments is not None:
        start = seen.tokenized_at + 0.002
        for place in range(max(exits) + 1):
            waiting = sum(exit_ >= place for exit_ in exits)
            seen.segments.append((place, start + place * 0.01, start + place * 0.01 + 0.005, waiting, 8))
    seen.timed(0.002, 0.003)
    seen.answered(
        np.array(exits, dtype=np.int64),
        np.array(reasons or [CONFIDENCE] * rows, dtype=np.int8),
        np.array([0] * rows if labels is None else labels, dtype=np.int64),
        np.array([0.8] * rows if scores is None else scores, dtype=np.float32),
        **options,
    )
    seen.succeeded()
    return seen
