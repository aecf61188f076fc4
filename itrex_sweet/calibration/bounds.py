"""Finite-sample tests of a policy's loss: how surely rows that were not used to choose it show that it loses little.

Learn-then-Test (Angelopoulos et al. 2021, arXiv 2110.01052): each policy has the null hypothesis "its mean loss exceeds
ε" and a p-value that holds for any distribution of independent rows and any number of them. Policies are tested in an
order fixed beforehand, each at the full level δ, until the first that cannot be rejected (fixed-sequence testing): the
chance that any policy certified so loses more than ε is at most δ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BETS = 24  # stakes that the wealth is spread over
_HALVINGS = 30


@dataclass(frozen=True)
class LossCounts:
    """The effect of a policy on the answers of some rows, compared with the full model or another.

    Args:
        lost: rows that the model compared with answers right and the policy does not.
        won: rows that the policy answers right and the other does not.
        rows: all of them.
    """

    lost: int
    won: int
    rows: int

    @property
    def mean_loss(self) -> float:
        """Accuracy lost, a share of the rows; negative where leaving early gains."""
        return (self.lost - self.won) / self.rows if self.rows else 0.0

    @classmethod
    def of(cls, losses: np.ndarray) -> LossCounts:
        """Counts of losses (rows,), each -1, 0 or 1."""
        return cls(int((losses > 0).sum()), int((losses < 0).sum()), len(losses))


def binomial_p_value(counts: LossCounts, epsilon: float) -> float:
    """For losses of 0 and 1: the chance of no more losses than were seen if their mean were ε; exact.

    Rows that were won do not count as a compensation.
    """
    n, k = counts.rows, counts.lost
    if n == 0:
        return 1.0
    terms = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(epsilon)
        + (n - i) * math.log1p(-epsilon)
        for i in range(k + 1)
    ]
    most = max(terms)
    return min(1.0, math.exp(most) * math.fsum(math.exp(term - most) for term in terms))


def paired_p_value(counts: LossCounts, epsilon: float) -> float:
    """For losses of -1, 0 and 1: the reciprocal of the wealth of bets that the mean loss is below ε.

    A bet of stake λ on a row of loss l multiplies its wealth by 1 + λ (ε - l), which cannot grow on average while the
    mean loss is ε or more; so wealth, the mean over stakes fixed beforehand, exceeds 1/δ with a chance of at most δ
    (Waudby-Smith and Ramdas 2023, arXiv 2010.09686, section 4, with a mixture of constant stakes; Markov). What rows
    win makes up for what others lose, which a count of losses alone would not see.
    """
    return math.exp(-max(_log_wealth(counts, epsilon), 0.0))


def mean_loss_interval(counts: LossCounts, delta: float) -> tuple[float, float]:
    """Between what the mean loss lies with a confidence of 1 - δ: every mean whose tests, one on either side at δ/2,
    do not refuse it. It holds for any number of rows, for losses of -1, 0 and 1.
    """

    def most(counted: LossCounts) -> float:
        low, high = counted.mean_loss, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2.0
            low, high = (low, middle) if paired_p_value(counted, middle) <= delta / 2.0 else (middle, high)
        return high

    return -most(LossCounts(counts.won, counts.lost, counts.rows)), most(counts)


def _log_wealth(counts: LossCounts, epsilon: float) -> float:
    """Logarithm of what an initial wealth of 1 has become."""
    stakes = np.geomspace(0.02, 0.999, _BETS) / (1.0 - epsilon)  # below 1 / (1 - ε): wealth stays positive
    logarithms = (
        counts.lost * np.log1p(stakes * (epsilon - 1.0))
        + counts.won * np.log1p(stakes * (epsilon + 1.0))
        + (counts.rows - counts.lost - counts.won) * np.log1p(stakes * epsilon)
    )
    most = logarithms.max()
    return float(most + math.log(np.exp(logarithms - most).mean()))


def certified(p_values: Sequence[float], delta: float) -> int:
    """How many policies of a sequence are certified: all before the first whose p-value exceeds δ."""
    for place, p_value in enumerate(p_values):
        if not p_value <= delta:
            return place
    return len(p_values)
