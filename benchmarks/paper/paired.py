"""Runs of several methods with the same task and seed, and the differences between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from paper.plan import SEEDS, TASKS

Found = dict[tuple[str, str, int], dict[str, Any]]  # (task, method, seed) → result


def complete(found: Found, methods: Iterable[str]) -> list[tuple[str, int]]:
    """(task, seed) that all the methods have."""
    methods = tuple(methods)
    return [
        (task, seed)
        for task, seed in itertools.product(TASKS, SEEDS)
        if all((task, method, seed) in found for method in methods)
    ]


def mean_and_error(differences: np.ndarray) -> str:
    """Their mean, and its standard error where there is more than one."""
    error = f" ± {differences.std(ddof=1) / len(differences) ** 0.5:.1f}" if len(differences) > 1 else ""
    return f"{differences.mean():+.1f}{error}"


def p_value(differences: np.ndarray) -> str:
    """Of `sign_flips`, as a cell of a table."""
    share = sign_flips(differences)
    return "< 0.001" if share < 0.001 else f"{share:.3f}"


def sign_flips(differences: np.ndarray) -> float:
    """Share of all sign patterns under which the mean is as far from 0 as it is (Fisher's randomization test)."""
    patterns = np.array(list(itertools.product((1.0, -1.0), repeat=len(differences))))
    means = np.abs(patterns @ differences)
    return float((means >= abs(differences.sum()) - 1e-9).mean())
