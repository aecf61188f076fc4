"""What every backend offers the executor, and the laws it keeps.

1. A row's logits do not depend on the other rows, their order, or how rows are cut into batches.
2. `probe` gives the logits of the exit's last layer run in full, up to rounding.
3. Nothing is computed for padding: rows are packed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.artifact import Artifact
from itrex_sweet.config import Policy
from itrex_sweet.errors import ConfigError
from itrex_sweet.runtime.ragged import TokenBatch

if TYPE_CHECKING:
    from itrex_sweet.runtime.encoder import Encoder


# What float artifacts may be computed in; a backend may know fewer.
DTYPES = ("float32", "bfloat16")


class Hidden(Protocol):
    """Rows on their way through the model, in whatever form a backend keeps them."""

    def __len__(self) -> int:
        """Number of rows."""

    def select(self, rows: np.ndarray) -> Hidden:
        """The rows named, in that order (compaction)."""


class Backend(ABC):
    """Executes one artifact. Exits are named by their place among the exits, from 0."""

    name: str
    threads: int  # that a call computes with at most

    def __init__(self, artifact: Artifact):
        self.artifact = artifact

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            f"a {type(self).__name__} is neither pickled nor copied: it holds memory of its engine. Pickle or copy the "
            "model (SweetModelForSequenceClassification), which opens its folder again, or load_backend(artifact, ...)."
        )

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """Labels of every exit."""

    @property
    def num_outputs(self) -> int:
        """Numbers that `probe` gives of a row: the labels, and one more where exits learned to exit."""
        return self.num_labels

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Number of token ids; every id is below it."""

    @property
    @abstractmethod
    def token_types(self) -> int | None:
        """Number of token types; every type is below it. `None` where types are not read."""

    @property
    @abstractmethod
    def max_tokens(self) -> int | None:
        """Longest row in tokens, or `None` where positions are not bounded."""

    @property
    @abstractmethod
    def uncounted_token(self) -> int | None:
        """Token id that does not advance the position (see `TokenBatch`)."""

    @abstractmethod
    def embed(self, batch: TokenBatch) -> Hidden:
        """Rows before the last layer of the first exit: embeddings and the layers up to there."""

    @abstractmethod
    def probe(self, exit_index: int, hidden: Hidden) -> np.ndarray:
        """What an exit says from the states before its last layer: (rows, outputs) float32.

        Outputs are the logits of the labels; where exits learned to exit, the logit of being right comes behind them.
        """

    def read_exit(self, exit_index: int, hidden: Hidden) -> tuple[np.ndarray, criteria.Certainty]:
        """What an exit says, apart: logits (rows, labels) and the learned certainty (rows,), both float32."""
        outputs = self.probe(exit_index, hidden)
        return criteria.apart(outputs, self.num_labels)

    @abstractmethod
    def advance(self, exit_index: int, hidden: Hidden) -> Hidden:
        """From before the last layer of an exit to before the last layer of the next one."""

    def confidence(
        self,
        policy: Policy,
        exit_index: int,
        logits: np.ndarray,
        memory: criteria.Memory = None,
        certainty: criteria.Certainty = None,
    ) -> tuple[np.ndarray, criteria.Memory]:
        """As `criteria.confidence`, up to rounding."""
        return criteria.confidence(policy, exit_index, logits, memory, certainty)

    def answer(self, batch: TokenBatch, policy: Policy) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """One batch through all exits, if the backend has a faster way than the executor's loop; else `None`.

        Returns:
            of each row the logits (rows, labels) float32 that answered, the place of that exit (rows,) int64, and its
            confidence (rows,) float32; the same as the loop's.
        """
        return None

    @abstractmethod
    def merge(self, parts: Sequence[Hidden]) -> Hidden:
        """Rows waiting at the same exit, as one."""


class EncoderBackend(Backend):
    """A backend of one encoder, of which it remembers what callers ask for and not the weights."""

    def __init__(self, artifact: Artifact, encoder: Encoder):
        super().__init__(artifact)
        self._num_labels = encoder.num_labels
        self._num_outputs = encoder.probes[-1].head.classifier.weight.shape[0]
        self._vocabulary = len(encoder.embeddings.words)
        types = encoder.embeddings.token_types
        self._token_types = None if types is None else len(types)
        self._max_tokens = encoder.max_tokens
        self._uncounted_token = encoder.uncounted_token

    @property
    def num_labels(self) -> int:
        return self._num_labels

    @property
    def num_outputs(self) -> int:
        return self._num_outputs

    @property
    def vocabulary(self) -> int:
        return self._vocabulary

    @property
    def token_types(self) -> int | None:
        return self._token_types

    @property
    def max_tokens(self) -> int | None:
        return self._max_tokens

    @property
    def uncounted_token(self) -> int | None:
        return self._uncounted_token


def checked_dtype(dtype: str, encoder: Encoder) -> str:
    """The dtype, if the encoder can be computed in it.

    Raises:
        ConfigError: an unknown one, or bfloat16 for an 8-bit encoder.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is unknown; there are {', '.join(DTYPES)}.")
    if dtype == "bfloat16" and encoder.quantized_linears():
        raise ConfigError("dtype='bfloat16' is for float artifacts; this one is quantized and says itself what it is.")
    return dtype
