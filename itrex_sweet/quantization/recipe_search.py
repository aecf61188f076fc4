"""Choosing how to quantize: the cheapest recipe whose cost stays within limits, layers that hurt left in float.

Neural Compressor's `autotune` is not used: it ranks models by one number of its own converted model, and what counts
here is every exit of the artifact, and the rows that change their exit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itrex_sweet.errors import QuantizationError
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.quantization.comparison import ComparisonResult, ExitComparison, Limits
from itrex_sweet.quantization.observation import LinearObservation, Observations
from itrex_sweet.quantization.packing import pack
from itrex_sweet.runtime.weights import load_encoder

logger = logging.getLogger(__name__)

# Cheapest first at run time: fixed scales; fixed scales and a product per input; a scale per row, found at run time.
RECIPES = ("static", "smooth", "dynamic")
MOST_IN_FLOAT = 0.5  # share of the linear layers, beyond which little is left to gain
_ROWS_FOR_RANKING = 64


@dataclass(frozen=True)
class Candidate:
    """A quantized model and what it costs."""

    tensors: Mapping[str, torch.Tensor]
    observations: Observations
    verdict: ComparisonResult


class Search:
    """Makes and judges candidates.

    Args:
        judge: of the float model that is quantized.
        observe: recipe → what Neural Compressor found; called once per recipe.
    """

    def __init__(self, judge: ExitComparison, observe: Callable[[str], Observations]):
        self.judge = judge
        self.tensors = judge.artifact.tensors()
        self._observe = observe
        self._observed: dict[str, Observations] = {}

    def candidate(self, recipe: str, float_layers: Sequence[str] = ()) -> Candidate:
        """Quantizes by one recipe, some layers left in float."""
        observations = self._observations(recipe)
        packed = pack(self.tensors, observations.linears, float_layers)
        verdict = self.judge.verdict(load_encoder(self.judge.artifact, packed), recipe, float_layers)
        return Candidate(packed, observations, verdict)

    def cheapest_within(self, limits: Limits) -> Candidate:
        """Tries the recipes whole, then each with the layers that hurt left in float.

        Raises:
            QuantizationError: nothing is within the limits; the message holds the table.
        """
        tried: list[ComparisonResult] = []
        for candidate in self._candidates():
            tried.append(candidate.verdict)
            if candidate.verdict.within(limits):
                logger.info("%s", self.judge.table(tried))
                return candidate
        raise QuantizationError(
            f"no recipe loses at most {100 * limits.drop:g} points of {self.judge.metric_name} at every exit with at "
            f"most {limits.moved:.0%} of the rows leaving at another exit. Allow more (max_drop, max_moved), or judge "
            f"on more rows than {len(self.judge.rows.judged)}.\n{self.judge.table(tried)}"
        )

    def _candidates(self) -> Iterator[Candidate]:
        for recipe in RECIPES:
            yield self.candidate(recipe)
        for recipe in RECIPES:
            ranked = self._by_harm(recipe)
            count = 1
            while count <= MOST_IN_FLOAT * len(ranked):
                yield self.candidate(recipe, sorted(ranked[:count]))
                count *= 2

    def _by_harm(self, recipe: str) -> list[str]:
        """Linear layers, worst first: by how far the exits' logits move when it alone is quantized."""
        linears = self._observations(recipe).linears
        exact = self.judge.observe(None, "float32", _ROWS_FOR_RANKING).logits
        harm = {}
        for path in progress(list(linears), f"{recipe}: layer by layer", unit="layer"):
            alone: dict[str, LinearObservation] = {path: linears[path]}
            encoder = load_encoder(self.judge.artifact, pack(self.tensors, alone))
            moved = self.judge.observe(encoder, path, _ROWS_FOR_RANKING).logits
            harm[path] = float(np.square(moved - exact).mean())
        return sorted(harm, key=harm.__getitem__, reverse=True)

    def _observations(self, recipe: str) -> Observations:
        if recipe not in self._observed:
            self._observed[recipe] = self._observe(recipe)
        return self._observed[recipe]
