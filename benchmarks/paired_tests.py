"""Power and size of tests of the paired loss: the exact unconditional test, betting, and Hoeffding-Bentkus.

    python benchmarks/paired_tests.py

Power is the probability that a policy with given shares of lost and won rows is certified. For tests of the counts of
lost and won rows it is summed over all counts; for bets with adaptive stakes, which depend on the order of the rows, it
is simulated. The size is the same probability at the boundary of the null hypothesis, over the share of rows that are
lost or won.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from record import provenance, write_result

from itrex_sweet.calibration.bounds import betting_p_value, binomial_p_value
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.calibration.paired_test import _binomial, exact_paired_p_value

EPSILON, DELTA = 0.01, 0.05
CASES = {  # rows: shares of lost and won rows, in percent
    1000: ((0.2, 0.1), (0.4, 0.2), (0.6, 0.3), (1.0, 0.8)),
    2000: ((0.4, 0.2), (0.6, 0.3), (0.8, 0.4), (1.2, 1.0), (3.0, 2.8)),
    3000: ((0.6, 0.3), (0.8, 0.4), (1.2, 0.9), (1.2, 1.0), (3.0, 2.7)),
}
SHARES = np.concatenate([np.geomspace(0.01, 0.02, 25), np.geomspace(0.0205, 0.09, 30)])  # discordant, at the boundary
DRAWS = 4000


def hoeffding_bentkus_p_value(counts: LossCounts, epsilon: float) -> float:
    """Returns the p-value of Bates et al. (2021, arXiv 2101.02703), for losses moved from [-1, 1] to [0, 1]."""
    n, limit, mean = counts.rows, (epsilon + 1) / 2, (counts.mean_loss + 1) / 2
    if mean >= limit:
        return 1.0
    divergence = mean * math.log(mean / limit) + (1 - mean) * math.log((1 - mean) / (1 - limit))
    bentkus = math.e * binomial_p_value(LossCounts(math.ceil(n * mean), 0, n), limit)
    return min(1.0, math.exp(-n * divergence), bentkus)


def region(p_value: Callable[[LossCounts, float], float], rows: int, most: int) -> np.ndarray:
    """Returns the largest number of lost rows that is certified, for each number of discordant rows up to `most`."""
    found = []
    for discordant in range(most + 1):
        inside, outside = -1, discordant + 1
        while outside - inside > 1:
            middle = (inside + outside) // 2
            certified = p_value(LossCounts(middle, discordant - middle, rows), EPSILON) <= DELTA
            inside, outside = (middle, outside) if certified else (inside, middle)
        found.append(inside)
    return np.array(found)


def probability(most_lost: np.ndarray, rows: int, lost: float, won: float) -> float:
    """Returns the probability that a policy with these shares of lost and won rows is certified."""
    discordant, total = np.arange(len(most_lost)), lost + won
    tails = [
        _binomial(np.array(m), np.arange(b + 1), np.log(lost / total), np.log(max(won / total, 1e-300))).sum()
        for m, b in zip(discordant, most_lost, strict=True)
    ]
    return float((_binomial(np.array(rows), discordant, np.log(total), np.log1p(-total)) * tails).sum())


def adaptive_bets(rows: int, lost: float, won: float, stake: float | None = None) -> float:
    """Returns the share of draws in which the wealth of bets reaches 1/δ at any row.

    The stakes maximize the growth estimated from the rows before (aGRAPA: Waudby-Smith and Ramdas 2023, arXiv
    2010.09686, appendix B.3), unless a constant stake is given.
    """
    random = np.random.default_rng(0)
    mean, square, wealth, most = np.zeros(DRAWS), np.full(DRAWS, 0.25), np.zeros(DRAWS), np.zeros(DRAWS)
    for row in range(1, rows + 1):
        uniform = random.uniform(size=DRAWS)
        loss = (uniform < lost).astype(float) - (uniform > 1 - won)
        average = mean / row
        gap = EPSILON - average
        bet = stake
        if bet is None:
            bet = np.clip(gap / (np.maximum(square / row - average**2, 1e-4) + gap**2), 0.0, 0.75 / (1 - EPSILON))
        wealth += np.log1p(bet * (EPSILON - loss))
        np.maximum(most, wealth, out=most)
        mean, square = mean + loss, square + loss**2
    return float((most >= math.log(1 / DELTA)).mean())


def best_stake(lost: float, won: float) -> float:
    """Returns the constant stake whose wealth grows fastest, which only the true shares tell."""
    stakes = np.linspace(0.001, 0.999, 999) / (1 - EPSILON)
    growth = lost * np.log1p(stakes * (EPSILON - 1)) + won * np.log1p(stakes * (EPSILON + 1))
    growth += (1 - lost - won) * np.log1p(stakes * EPSILON)
    return float(stakes[growth.argmax()])


def main() -> None:
    tests = {
        "exact": functools.partial(exact_paired_p_value, gamma=DELTA / 500),
        "betting": betting_p_value,
        "Hoeffding-Bentkus": hoeffding_bentkus_p_value,
        "binomial of lost rows": binomial_p_value,
    }
    power, size = [], []
    for rows, cases in CASES.items():
        regions = {name: region(p_value, rows, int(rows * 0.1) + 60) for name, p_value in tests.items()}
        for lost, won in cases:
            shares = lost / 100, won / 100
            cell = {name: round(probability(each, rows, *shares), 4) for name, each in regions.items()}
            cell["adaptive bets"] = adaptive_bets(rows, *shares)
            cell["best constant bet"] = adaptive_bets(rows, *shares, best_stake(*shares))
            power.append({"rows": rows, "lost": lost, "won": won, **cell})
            print(power[-1], flush=True)
        for name, each in regions.items():
            sizes = [probability(each, rows, (share + EPSILON) / 2, (share - EPSILON) / 2) for share in SHARES]
            size.append({"rows": rows, "test": name, "largest": max(sizes), "mean": float(np.mean(sizes))})
            print(size[-1], flush=True)
    settings = {"epsilon": EPSILON, "delta": DELTA, "draws": DRAWS, "shares": [float(SHARES[0]), float(SHARES[-1])]}
    print(write_result("paired_tests", {**provenance(), "settings": settings, "power": power, "size": size}))


if __name__ == "__main__":
    main()
