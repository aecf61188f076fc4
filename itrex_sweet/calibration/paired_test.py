"""Exact unconditional test of non-inferiority for paired proportions.

Each row is lost, won or neither, with probabilities p, q and 1 - p - q; the null hypothesis is p - q ≥ ε. Rows are
independent and their number n is fixed beforehand. The p-value is the largest probability, over the nuisance parameter
d = p + q (the share of discordant rows), of a score statistic at most as large as the observed one (Hsueh, Liu and Chen
2001, Biometrics 57; Lloyd and Moldovan 2008, Statistics in Medicine 27). The maximum is bracketed, not searched on a
grid: the values between two nodes are bounded by a bound of the second derivative.

Reduction to the boundary. For a fixed number m of discordant rows the statistic increases with the lost rows
(`_score`), so the rejection region is {lost ≤ b(m)}. For a fixed d, lost rows given m are binomial with share p/d, so
the probability of the region is largest for the smallest p, which lies on p - q = ε.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from itrex_sweet.calibration.counts import LossCounts

_CELL_WIDTH = 0.08  # between two nodes, in standard deviations of the estimate of the nuisance parameter
_INTEGRATION_POINTS = 400
_LOG_TAIL = math.log(1e10)  # probabilities below 1e-10 are not summed
_TIE = 1e-9  # relative difference up to which statistics count as equal
_BISECTION_STEPS = 60
_TABLE = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 256)))])  # log k!


@functools.lru_cache(maxsize=1 << 16)
def exact_paired_p_value(counts: LossCounts, epsilon: float, gamma: float = 1e-4) -> float:
    """Returns an upper bound of the exact p-value of "the mean loss is ε or more", for losses of -1, 0 and 1.

    The nuisance parameter is restricted to a confidence interval of coverage 1 - γ, and γ is added to the p-value
    (Berger and Boos 1994, Journal of the American Statistical Association 89). The result exceeds the p-value by at
    most a few thousandths of it, and never lies below it: remainders of the bracket, omitted tails and rounding are
    added.

    Args:
        epsilon: in (0, 1).
        gamma: must be chosen before the rows are seen.
    """
    rows, discordant = counts.rows, counts.lost + counts.won
    if rows == 0 or counts.lost - counts.won >= rows * epsilon:
        return 1.0
    low, high = _share_interval(discordant, rows, gamma)
    low = max(low, epsilon)  # |p - q| ≤ p + q
    if high <= low:
        return min(gamma, 1.0)
    region = _Region.of(counts, epsilon, low, high)
    nodes = _nodes(low, high, rows, epsilon)
    probabilities = region.probability(nodes)
    probabilities += _rounding(rows) + 3 * math.exp(-_LOG_TAIL)
    largest = _upper_bound(nodes, probabilities, rows, epsilon)
    return min(1.0, largest + gamma)


@dataclass(frozen=True)
class _Region:
    """Outcomes with a statistic at most as large as the observed one.

    Args:
        rows: number of rows n.
        discordant: (counts,) numbers m of discordant rows, consecutive; others have a probability below 1e-10.
        most_lost: (counts,) largest number b(m) of lost rows in the region, or -1; not decreasing.
    """

    rows: int
    epsilon: float
    discordant: np.ndarray
    most_lost: np.ndarray

    @classmethod
    def of(cls, counts: LossCounts, epsilon: float, low: float, high: float) -> _Region:
        """Returns the region of an observation, for shares of discordant rows between `low` and `high`."""
        rows = counts.rows
        # Chernoff bounds of the tails of a binomial distribution
        below = rows * low - math.sqrt(2 * rows * low * _LOG_TAIL)
        above = rows * high + _LOG_TAIL / 3 + math.sqrt(_LOG_TAIL**2 / 9 + 2 * rows * high * _LOG_TAIL)
        discordant = np.arange(max(0, math.floor(below)), min(rows, math.ceil(above)) + 1)
        observed = float(_score(np.array(counts.lost), np.array(counts.lost + counts.won), rows, epsilon))
        largest = observed + _TIE * max(1.0, abs(observed))
        inside, outside = np.full(len(discordant), -1), discordant + 1
        while (outside - inside > 1).any():
            middle = (inside + outside) // 2
            valid = middle >= 0
            accepted = ~valid | (_score(np.maximum(middle, 0), discordant, rows, epsilon) <= largest)
            inside, outside = np.where(accepted, middle, inside), np.where(accepted, outside, middle)
        return cls(rows, epsilon, discordant, np.maximum.accumulate(inside))

    def probability(self, shares: np.ndarray) -> np.ndarray:
        """Returns the probability of the region for shares (nodes,) of discordant rows, at a mean loss of ε."""
        won = np.maximum((shares - self.epsilon) / (2 * shares), 1e-300)
        lost = (shares + self.epsilon) / (2 * shares)
        of_count = _binomial(
            np.array(self.rows), self.discordant[:, None], np.log(shares), np.log(np.maximum(1 - shares, 1e-300))
        )

        def of_lost(discordant: np.ndarray, count: np.ndarray) -> np.ndarray:
            return _binomial(discordant[:, None], count[:, None], np.log(lost), np.log(won))

        # P(Bin(m, π) ≤ b) of the first m by summation, of the others from P(Bin(m, π) ≤ b) = P(Bin(m - 1, π) ≤ b) -
        # π P(Bin(m - 1, π) = b)
        first = int(self.discordant[0])
        start = max(0, math.floor(first / 2 - math.sqrt(first * _LOG_TAIL)))
        summed = np.arange(start, int(self.most_lost[0]) + 1)
        tail = of_lost(np.full(len(summed), first), summed).sum(0)
        previous, steps = self.most_lost[:-1], np.diff(self.most_lost)
        changes = -lost * of_lost(self.discordant[:-1], previous)
        for step in range(1, int(steps.max(initial=0)) + 1):
            at = np.flatnonzero(steps >= step)
            changes[at] += of_lost(self.discordant[1:][at], previous[at] + step)
        tails = np.clip(np.concatenate([tail[None], tail + np.cumsum(changes, 0)]), 0.0, 1.0)
        return (of_count * tails).sum(0)


def _score(lost: np.ndarray, discordant: np.ndarray, rows: int, epsilon: float) -> np.ndarray:
    """Returns the score statistic: the excess of the mean loss over ε, in its standard errors at a mean loss of ε.

    The standard error uses the maximum likelihood estimate d of the share of discordant rows under p - q = ε, the
    larger root of n d² - (m + ε u) d + ε u - (n - m) ε² = 0, where u is lost minus won rows.

    At fixed m the statistic increases with u while A = n ε - u > 0: the derivative of the root is -ε (1 - d) / D with
    D = 2 n d - m - ε u = n d + (ε A - m ε²) / d ≥ ε A / d, so that 2 (d - ε²) D ≥ 2 (1 - ε) ε A > ε (1 - d) A.
    """
    excess = 2 * lost - discordant
    linear = discordant + epsilon * excess
    constant = epsilon * excess - (rows - discordant) * epsilon**2
    share = (linear + np.sqrt(np.maximum(linear**2 - 4.0 * rows * constant, 0.0))) / (2.0 * rows)
    share = np.clip(share, epsilon, 1.0)
    return (excess - rows * epsilon) / np.sqrt(rows * (share - epsilon**2))


def _share_interval(count: int, rows: int, gamma: float) -> tuple[float, float]:
    """Returns a confidence interval of a binomial proportion with a coverage of at least 1 - γ (Chernoff's bound)."""
    observed, allowed = count / rows, math.log(2.0 / gamma) / rows

    def divergence(share: float) -> float:
        return sum(a * math.log(a / b) for a, b in ((observed, share), (1 - observed, 1 - share)) if a > 0)

    def bound(outside: float) -> float:
        inside = observed
        for _ in range(_BISECTION_STEPS):
            middle = (inside + outside) / 2
            if not 0.0 < middle < 1.0:
                break
            inside, outside = (middle, outside) if divergence(middle) <= allowed else (inside, middle)
        return outside

    return (0.0 if count == 0 else bound(0.0)), (1.0 if count == rows else bound(1.0))


def _nodes(low: float, high: float, rows: int, epsilon: float) -> np.ndarray:
    """Returns shares from `low` to `high` in steps of about `_CELL_WIDTH` standard deviations.

    They are equally spaced in the integral of the root of Fisher's information; the variable of integration
    sqrt(d - ε) removes the singularity at d = ε.
    """
    roots = np.linspace(math.sqrt(low - epsilon), math.sqrt(high - epsilon), _INTEGRATION_POINTS)
    shares = epsilon + roots**2
    density = np.sqrt(
        rows * (2.0 + 4 * roots**2 * (0.5 / (shares + epsilon) + 1 / np.maximum(1 - shares, 0.01 / rows)))
    )
    distance = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(roots))])
    count = math.ceil(distance[-1] / _CELL_WIDTH) + 1
    nodes = epsilon + np.interp(np.linspace(0.0, distance[-1], count + 1), distance, roots) ** 2
    nodes[0], nodes[-1] = low, high
    return np.maximum.accumulate(np.clip(nodes, low, high))


def _upper_bound(nodes: np.ndarray, probabilities: np.ndarray, rows: int, epsilon: float) -> float:
    """Returns an upper bound of the probability f between the first and the last node.

    Between two nodes at a distance of 2 r, f exceeds the larger of their values by at most r² / 2 times the largest
    |f''|. The likelihood of a row is linear in d, so f'' is the expectation, over the region, of the sum over pairs of
    different rows of the products of their scores, which has the variance 2 n (n - 1) I² with Fisher's information I of
    a row. By Cauchy and Schwarz, |f''| ≤ I sqrt(2 n (n - 1) f). As a second difference of probabilities, |f''| is also
    at most 2 n (n - 1).
    """
    half = np.diff(nodes) / 2
    larger = np.maximum(probabilities[:-1], probabilities[1:])
    pairs = rows * (rows - 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = 0.5 / (nodes[:-1] + epsilon) + 0.5 / (nodes[:-1] - epsilon) + 1.0 / (1.0 - nodes[1:])
        factor = half**2 / 2 * information * math.sqrt(2 * pairs)
        bound = ((factor + np.sqrt(factor**2 + 4 * larger)) / 2) ** 2  # f ≤ larger + factor sqrt(f)
    return float(np.fmin(bound, larger + half**2 * pairs).max())


def _binomial(total: np.ndarray, count: np.ndarray, log_share: np.ndarray, log_rest: np.ndarray) -> np.ndarray:
    """Returns probabilities of a count out of a total; 0 for counts that are not between 0 and the total."""
    possible = (count >= 0) & (count <= total)
    count = np.where(possible, count, 0)
    rest = total - count
    logarithm = _log_factorial(total) - _log_factorial(count) - _log_factorial(rest)
    return np.where(possible, np.exp(logarithm + count * log_share + rest * log_rest), 0.0)


def _log_factorial(numbers: np.ndarray) -> np.ndarray:
    """Returns log k!, by Stirling's series from 256 on (relative error of the rounding only)."""
    large = np.maximum(numbers, 255).astype(np.float64)
    series = 1 / (12 * large) - 1 / (360 * large**3) + 1 / (1260 * large**5)
    stirling = (large + 0.5) * np.log(large) - large + 0.5 * math.log(2 * math.pi) + series
    return np.where(numbers < len(_TABLE), _TABLE[np.minimum(numbers, len(_TABLE) - 1)], stirling)


def _rounding(rows: int) -> float:
    """Returns a bound of the error of a probability from the rounding of logarithms and sums."""
    return 64 * np.finfo(np.float64).eps * (rows * math.log(rows + 1.0) + 1e4)
