"""Schedules: before which layers tokens are dropped, by which score, and what becomes of the dropped ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Scores of tokens.
ATTENTION = "attention"  # of the first token, in the layer before
RECEIVED = "received"  # attention of all tokens, in the layer before
COMING = "coming"  # attention of the first token in the next layer
PROBE = "probe"  # attention of the first token in the private layer of the exit there
LEARNED = "learned"  # a small network distilled from `GRADIENT`
GRADIENT = "gradient"  # effect of the token's removal on the last exit's margin; not available at run time
RANDOM = "random"

MEAN, NEAREST = "mean", "nearest"


@dataclass(frozen=True)
class Schedule:
    """Layers before which tokens are dropped, shares that remain, and the treatment of the others.

    Args:
        steps: (layer, share): before that layer, from 1, this share of the row's tokens remains; after the exit there,
            if there is one.
        score: tokens with the highest remain; the first token always does.
        merge: `None` drops the others. `"mean"` replaces them by one token, the mean of them, which takes the place of
            the lowest kept one. `"nearest"` averages each into the most similar kept token (ToMe, arXiv 2210.09461).
    """

    steps: tuple[tuple[int, float], ...] = ()
    score: str = ATTENTION
    merge: str | None = None

    @property
    def name(self) -> str:
        """Readable and unique."""
        steps = ", ".join(f"{share:g} before {layer}" for layer, share in self.steps)
        return " ".join(filter(None, (self.score, steps, self.merge and f"merged ({self.merge})"))) if steps else "none"

    def kept(self, layer: int, tokens: int) -> int:
        """Returns the number of tokens that a layer computes, for a row of `tokens`."""
        shares = [share for start, share in self.steps if start <= layer]
        return min(tokens, max(2, math.ceil(shares[-1] * tokens))) if shares else tokens


NONE = Schedule()


def grid() -> list[Schedule]:
    """Returns the schedules whose accuracy at full depth is reported."""
    single = [
        (ATTENTION, (3, 4), (0.7, 0.5, 0.3)),
        (COMING, (3, 4), (0.5, 0.3)),
        (PROBE, (4,), (0.5, 0.3)),
        (PROBE, (2,), (0.7, 0.5)),
        (RECEIVED, (4,), (0.5,)),
        (RANDOM, (3, 4), (0.5,)),
        (LEARNED, (3, 4), (0.7, 0.5, 0.3)),
        (GRADIENT, (3, 4), (0.5, 0.3)),
    ]
    found = [
        Schedule(((layer, share),), score) for score, layers, shares in single for layer in layers for share in shares
    ]
    found += [
        Schedule(((layer, share),), ATTENTION, merge)
        for merge in (MEAN, NEAREST)
        for layer in (3, 4)
        for share in (0.5, 0.3)
    ]
    found.append(Schedule(((2, 0.7), (4, 0.5)), ATTENTION))
    found.append(Schedule(((3, 0.7), (5, 0.5)), ATTENTION))
    return found


def prototype() -> list[Schedule]:
    """Returns the schedules of the first trial, whose figures are repeated on more rows."""
    steps = (((4, 0.5),), ((4, 0.3),), ((2, 0.7), (4, 0.5)))
    return [Schedule(each, ATTENTION) for each in steps]


def reported(long: bool = False) -> list[Schedule]:
    """Returns the schedules that run on every task, besides all tokens; on long texts, those that keep fewer tokens."""
    if long:
        return [
            Schedule(((4, 0.3),), PROBE),
            *candidates(long),
            Schedule(((3, 0.3),), ATTENTION),
            Schedule(((2, 0.3),), PROBE),
            Schedule(((2, 0.3),), ATTENTION, NEAREST),
            Schedule(((2, 0.3),), RANDOM),
        ]
    return [
        Schedule(((4, 0.3),), PROBE),
        *candidates(long),
        Schedule(((3, 0.3),), LEARNED),
        Schedule(((3, 0.5),), ATTENTION),
        Schedule(((3, 0.5),), ATTENTION, NEAREST),
        Schedule(((2, 0.5),), LEARNED),
    ]


def candidates(long: bool = False) -> list[Schedule]:
    """Returns the schedules that calibration may choose among, besides all tokens; fixed beforehand."""
    if long:
        return [Schedule(((layer, share),), LEARNED) for layer, share in ((3, 0.5), (3, 0.3), (2, 0.5), (2, 0.3))]
    return [Schedule(((4, 0.5),), PROBE), Schedule(((3, 0.7),), LEARNED), Schedule(((3, 0.5),), LEARNED)]
