"""Policies with and without dropping: costs, upper bounds of the gain, and choices from saved logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from decoupled.scoring import DEPTH
from decoupled.variants import CHOSEN, VARIANTS

from token_dropping import costs, policies
from token_dropping.schedules import NONE, Schedule
from token_dropping.stored import read

EPSILONS = (0.01, 0.02)
EXITS = (*VARIANTS[CHOSEN].exits, DEPTH)
SHAPES = ((2, 0.3), (2, 0.5), (3, 0.7), (3, 0.5), (3, 0.3), (4, 0.5), (4, 0.3))
SPLITS, MIN_ROWS = 10, 1000  # of the pool, for certification
TIME = "time, batch 32"


def bounds_of(
    logits: np.ndarray,
    labels: np.ndarray,
    lengths: np.ndarray,
    exits: tuple[int, ...],
    choose: Callable[..., dict] = policies.certified_choices,
) -> dict[str, Any]:
    """Returns upper bounds of the gain by dropping: of the cost of chosen policies, if no schedule changed an answer.

    Args:
        logits: (rows, exits, labels), with all tokens.
        labels, lengths: (rows,).
        choose: a function of `policies` that chooses a policy for each of `EPSILONS`.

    Returns:
        for each unit of cost and each epsilon the cost with all tokens, and the factor of each schedule of `SHAPES`.
    """
    reference = logits[:, -1].argmax(-1)
    result: dict[str, Any] = {"rows": len(labels), "tokens": round(float(lengths.mean()), 1)}
    for unit, price in prices(exits).items():
        by_schedule = {}
        for schedule in (NONE, *(Schedule((step,)) for step in SHAPES)):
            # Full depth with all tokens, the first outcomes, is the unit of the costs.
            found = {name: policies.Outcomes.of(logits, price(each, lengths)) for name, each in named(NONE, schedule)}
            chosen = choose({schedule.name: found[schedule.name]}, labels, reference, EPSILONS)
            by_schedule[schedule] = {
                epsilon: policies.figures(choice, found, labels, reference)["cost"]
                for epsilon, choice in chosen.items()
            }
        result[unit] = {
            str(epsilon): {
                "all tokens": by_schedule[NONE][epsilon],
                "factors": {
                    f"{share:g} before {layer}": round(
                        by_schedule[NONE][epsilon] / by_schedule[Schedule(((layer, share),))][epsilon], 3
                    )
                    for layer, share in SHAPES
                },
            }
            for epsilon in EPSILONS
        }
    return result


def named(*schedules: Schedule) -> Iterator[tuple[str, Schedule]]:
    """Yields schedules with their names."""
    return ((each.name, each) for each in schedules)


def prices(exits: tuple[int, ...]) -> dict[str, Any]:
    """Returns unit → function of schedule and lengths that gives the costs of rows."""
    times = costs.LayerTimes.from_dict(read()["times"]["batch"]["32"])
    return {
        "token-layers": lambda schedule, lengths: costs.token_layers(schedule, lengths, exits),
        TIME: lambda schedule, lengths: costs.milliseconds(schedule, lengths, exits, times),
    }


def save(path: Path, logits: dict, labels: dict, lengths: dict) -> None:
    """Saves what `combined` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{split}/{name}": each for split, of in logits.items() for name, each in of.items()}
    for kind, of in (("labels", labels), ("lengths", lengths)):
        arrays |= {f"{split}/{kind}": each for split, each in of.items()}
    np.savez(path, **arrays)


def combined(path: Path, among: list[Schedule]) -> dict[str, Any]:
    """Returns figures on validation rows of policies chosen on the pool by time at batch 32: with all tokens, and with
    schedules among the candidates; by the observed loss, and certified.
    """
    arrays = np.load(path)
    price = prices(EXITS)[TIME]
    found = {
        split: {
            schedule.name: policies.Outcomes.of(
                arrays[f"{split}/{schedule.name}"], price(schedule, arrays[f"{split}/lengths"])
            )
            for schedule in (NONE, *among)
        }
        for split in ("pool", "validation")
    }
    labels = {split: arrays[f"{split}/labels"] for split in found}
    reference = {split: found[split][NONE.name].predictions[:, -1] for split in found}
    result: dict[str, Any] = {str(epsilon): {} for epsilon in EPSILONS}
    for kind, choose, repeats in (
        ("observed", policies.observed_choices, 1),
        ("certified", policies.certified_choices, SPLITS if len(labels["pool"]) > MIN_ROWS else 0),
    ):
        for schedules, pick in (("all tokens", {NONE.name}), ("with schedules", set(found["pool"]))):
            pool = {each: outcomes for each, outcomes in found["pool"].items() if each in pick}
            chosen = [choose(pool, labels["pool"], reference["pool"], EPSILONS, seed) for seed in range(repeats)]
            for epsilon in EPSILONS if chosen else ():
                figures = [
                    policies.figures(each[epsilon], found["validation"], labels["validation"], reference["validation"])
                    for each in chosen
                ]
                result[str(epsilon)][f"{kind}, {schedules}"] = policies.mean_figures(figures)
    return result
