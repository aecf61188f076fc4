"""Selects a quantization recipe: the fastest one within limits, with sensitive layers left in float if needed.

Neural Compressor's `autotune` is not used: it evaluates one score of its own converted model, while the limits here are
on the score of each exit and on the rows that leave at another exit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itrex_sweet.defaults import RECIPES
from itrex_sweet.errors import QuantizationError
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.quantization.comparison import ComparisonResult, ExitComparison, Limits
from itrex_sweet.quantization.observation import LinearObservation, Observations
from itrex_sweet.quantization.packing import pack
from itrex_sweet.runtime.weights import load_encoder

logger = logging.getLogger(__name__)

MAX_FLOAT_SHARE = 0.5  # of the linear layers and tables
_SENSITIVITY_ROWS = 64


@dataclass(frozen=True)
class Candidate:
    """A quantized model and its comparison with the float model."""

    tensors: Mapping[str, torch.Tensor]
    observations: Observations
    result: ComparisonResult


class RecipeSearch:
    """Creates and compares candidates.

    Args:
        comparison: with the float model.
        observe: recipe → observations; called once per recipe.
        tables: module paths of the embedding tables to quantize; like linear layers, they are left in float if needed.
    """

    def __init__(self, comparison: ExitComparison, observe: Callable[[str], Observations], tables: Sequence[str] = ()):
        self.comparison = comparison
        self.tensors = comparison.artifact.tensors()
        self._observe, self._tables = observe, tuple(tables)
        self._observed: dict[str, Observations] = {}

    def candidate(self, recipe: str, float_layers: Sequence[str] = ()) -> Candidate:
        """Quantizes with one recipe, some layers left in float."""
        observations = self._observations(recipe)
        packed = pack(self.tensors, observations.linears, float_layers, self._tables)
        result = self.comparison.compare(load_encoder(self.comparison.artifact, packed), recipe, float_layers)
        return Candidate(packed, observations, result)

    def cheapest_within(self, limits: Limits) -> Candidate:
        """Returns the fastest candidate within limits: first of the recipes, then with sensitive layers left in float.

        If every recipe changes more answers than the limit, the one that changes the fewest is returned: changed
        answers count in the budget of a later calibration, but float layers take several times as long.

        Raises:
            QuantizationError: nothing is within the limits; the message holds the table.
        """
        tried: list[ComparisonResult] = []
        best: Candidate | None = None
        for candidate in map(self.candidate, RECIPES):
            tried.append(candidate.result)
            if not candidate.result.within(limits):
                continue
            if best is None or candidate.result.changed < best.result.changed:
                best = candidate
            if best.result.changed <= limits.changed:
                break
        if best is None:
            for candidate in self._with_float_layers():
                tried.append(candidate.result)
                if candidate.result.within(limits):
                    best = candidate
                    break
        if best is not None:
            logger.info("%s", self.comparison.table(tried))
            return best
        raise QuantizationError(
            f"no recipe loses at most {100 * limits.drop:g} points of {self.comparison.metric_name} at every exit with "
            f"at most {limits.moved:.0%} of the rows leaving at another exit. Raise max_drop or max_moved, or use more "
            f"rows than the {len(self.comparison.rows.evaluated)} compared.\n{self.comparison.table(tried)}"
        )

    def _with_float_layers(self) -> Iterator[Candidate]:
        for recipe in RECIPES:
            ranked = self._by_sensitivity(recipe)
            count = 1
            while count <= MAX_FLOAT_SHARE * len(ranked):
                yield self.candidate(recipe, sorted(ranked[:count]))
                count *= 2

    def _by_sensitivity(self, recipe: str) -> list[str]:
        """Returns layers and tables by falling mean squared change of the logits when only that one is quantized."""
        linears = self._observations(recipe).linears
        exact = self.comparison.observe(None, "float32", _SENSITIVITY_ROWS).logits
        sensitivity = {}
        for path in progress([*self._tables, *linears], f"{recipe}: layer by layer", unit="layer"):
            alone: dict[str, LinearObservation] = {path: linears[path]} if path in linears else {}
            tables = [path] if path in self._tables else []
            encoder = load_encoder(self.comparison.artifact, pack(self.tensors, alone, tables=tables))
            changed = self.comparison.observe(encoder, path, _SENSITIVITY_ROWS).logits
            sensitivity[path] = float(np.square(changed - exact).mean())
        return sorted(sensitivity, key=sensitivity.__getitem__, reverse=True)

    def _observations(self, recipe: str) -> Observations:
        if recipe not in self._observed:
            self._observed[recipe] = self._observe(recipe)
        return self._observed[recipe]
