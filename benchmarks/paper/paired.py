"""Paired comparison of runs with the same task and seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from paper.plan import SEEDS, TASKS

Results = dict[tuple[str, str, int], dict[str, Any]]  # (task, method, seed) → result


def complete(results: Results, methods: Iterable[str]) -> list[tuple[str, int]]:
    """Returns the (task, seed) for which all methods have a run."""
    methods = tuple(methods)
    return [
        (task, seed)
        for task, seed in itertools.product(TASKS, SEEDS)
        if all((task, method, seed) in results for method in methods)
    ]


def mean_and_error(differences: np.ndarray) -> str:
    """Formats the mean and, of more than one, its standard error."""
    error = f" ± {differences.std(ddof=1) / len(differences) ** 0.5:.1f}" if len(differences) > 1 else ""
    return f"{differences.mean():+.1f}{error}"


def p_value(differences: np.ndarray) -> str:
    """Formats the p-value of `sign_flips`."""
    share = sign_flips(differences)
    return "< 0.001" if share < 0.001 else f"{share:.3f}"


def sign_flips(differences: np.ndarray) -> float:
    """Returns the p-value of Fisher's randomization test: the share of sign patterns whose mean is as far from 0."""
    patterns = np.array(list(itertools.product((1.0, -1.0), repeat=len(differences))))
    means = np.abs(patterns @ differences)
    return float((means >= abs(differences.sum()) - 1e-9).mean())
