"""The Multi-Model baseline at run time: a cascade of independent models, each of which starts from the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.runtime.backends.base import Backend, Hidden
from itrex_sweet.runtime.ragged import TokenBatch


@dataclass(frozen=True)
class CascadeHidden:
    """Rows in one stage of a cascade, with their tokens as the input of the next stage."""

    batch: TokenBatch
    hidden: Hidden

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, rows: np.ndarray) -> CascadeHidden:
        return CascadeHidden(self.batch.select(rows), self.hidden.select(rows))


class CascadeBackend(Backend):
    """Runs a cascade of models: exit `i` is the only exit of stage `i`."""

    def __init__(self, artifact: Artifact, stages: Sequence[Backend]):
        super().__init__(artifact)
        self.stages = tuple(stages)
        self.name = self.stages[-1].name

    @property
    def threads(self) -> int:
        """Maximum number of threads of a stage."""
        return max(stage.threads for stage in self.stages)

    @property
    def num_labels(self) -> int:
        return self.stages[-1].num_labels

    @property
    def vocabulary(self) -> int:
        return min(stage.vocabulary for stage in self.stages)

    @property
    def token_types(self) -> int | None:
        return min((stage.token_types for stage in self.stages if stage.token_types is not None), default=None)

    @property
    def max_tokens(self) -> int | None:
        limits = [stage.max_tokens for stage in self.stages if stage.max_tokens is not None]
        return min(limits, default=None)

    @property
    def padding_idx(self) -> int | None:
        return self.stages[-1].padding_idx

    def expect_call(self) -> None:
        self.stages[0].expect_call()

    def set_yields(self, yields: bool) -> None:
        for stage in self.stages:
            stage.set_yields(yields)

    def embed(self, batch: TokenBatch) -> CascadeHidden:
        return CascadeHidden(batch, self.stages[0].embed(batch))

    def probe(self, exit_index: int, hidden: CascadeHidden) -> np.ndarray:
        return self.stages[exit_index].probe(0, hidden.hidden)

    def advance(self, exit_index: int, hidden: CascadeHidden) -> CascadeHidden:
        return CascadeHidden(hidden.batch, self.stages[exit_index + 1].embed(hidden.batch))

    def merge(self, parts: Sequence[CascadeHidden]) -> CascadeHidden:
        if len(parts) == 1:
            return parts[0]
        # Rows are merged only before the next stage, which starts from the tokens.
        return CascadeHidden(
            TokenBatch.concatenate([part.batch for part in parts]), _UnusedHidden(sum(map(len, parts)))
        )


@dataclass(frozen=True)
class _UnusedHidden:
    """Placeholder for the states of a finished stage."""

    rows: int

    def __len__(self) -> int:
        return self.rows

    def select(self, rows: np.ndarray) -> _UnusedHidden:
        return _UnusedHidden(len(rows))
