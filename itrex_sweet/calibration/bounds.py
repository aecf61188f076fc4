"""Fixed-sequence testing, the binomial test of agreement, and tests and intervals of a mean loss by betting.

Learn-then-Test (Angelopoulos et al. 2021, arXiv 2110.01052): each policy has the null hypothesis "its mean loss exceeds
ε" and a p-value that is valid for any distribution of independent rows and any number of them. Policies are tested in
an order fixed beforehand, each at the full level δ, until the first whose null hypothesis is not rejected
(fixed-sequence testing): the probability that any certified policy loses more than ε is at most δ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.probabilities import binomial_cdf

_NUM_BETS = 24  # constant stakes in the mixture
_BISECTION_STEPS = 30


def binomial_p_value(counts: LossCounts, epsilon: float) -> float:
    """Returns the exact binomial p-value of "the mean loss exceeds ε", for losses of 0 and 1.

    It is the probability of at most as many losses as observed if their mean were ε. Rows won are ignored.
    """
    return binomial_cdf(counts.lost, counts.rows, epsilon)


def betting_p_value(counts: LossCounts, epsilon: float) -> float:
    """Returns a p-value of "the mean loss exceeds ε", for losses of -1, 0 and 1: the reciprocal of a betting wealth.

    A bet of stake λ on a row of loss l multiplies the wealth by 1 + λ (ε - l). Its expectation does not grow while the
    mean loss is ε or more, so the wealth, averaged over stakes fixed beforehand, exceeds 1/δ with probability at most δ
    (Waudby-Smith and Ramdas 2023, arXiv 2010.09686, section 4, with a mixture of constant stakes; Markov's inequality).
    Unlike a test on the count of losses, it credits the rows that the policy wins. For a number of rows
    that is fixed beforehand, `paired_test.exact_paired_p_value` has more power; this test also holds at every row of a
    sequence.
    """
    return math.exp(-max(_log_wealth(counts, epsilon), 0.0))


def mean_loss_interval(counts: LossCounts, delta: float) -> tuple[float, float]:
    """Returns a confidence interval of the mean loss with coverage 1 - δ, for losses of -1, 0 and 1.

    The interval holds every mean that neither of two one-sided tests at level δ/2 rejects; it is valid for any number
    of rows.
    """

    def upper_bound(observed: LossCounts) -> float:
        low, high = observed.mean_loss, 1.0
        for _ in range(_BISECTION_STEPS):
            middle = (low + high) / 2.0
            low, high = (low, middle) if betting_p_value(observed, middle) <= delta / 2.0 else (middle, high)
        return high

    return -upper_bound(LossCounts(counts.won, counts.lost, counts.rows)), upper_bound(counts)


def _log_wealth(counts: LossCounts, epsilon: float) -> float:
    """Returns the logarithm of the wealth after all bets, from an initial wealth of 1."""
    stakes = np.geomspace(0.02, 0.999, _NUM_BETS) / (1.0 - epsilon)  # below 1 / (1 - ε), so that wealth stays positive
    logarithms = (
        counts.lost * np.log1p(stakes * (epsilon - 1.0))
        + counts.won * np.log1p(stakes * (epsilon + 1.0))
        + (counts.rows - counts.lost - counts.won) * np.log1p(stakes * epsilon)
    )
    largest = logarithms.max()
    return float(largest + math.log(np.exp(logarithms - largest).mean()))


def certified(p_values: Sequence[float], delta: float) -> int:
    """Returns the number of policies certified by fixed-sequence testing: those before the first p-value above δ."""
    for index, p_value in enumerate(p_values):
        if not p_value <= delta:
            return index
    return len(p_values)
