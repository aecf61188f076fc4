"""The interface of backends.

Every backend guarantees:

1. The logits of a row do not depend on the other rows, their order, or the batch size.
2. `probe` returns the logits of the exit with its last layer run in full, up to rounding.
3. Padding is not computed: rows are packed.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.artifact import Artifact
from itrex_sweet.defaults import DTYPES
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.probabilities import softmax
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tasks import NO_ANSWER, Task

if TYPE_CHECKING:
    from itrex_sweet.runtime.encoder import Encoder

# Precisions for float artifacts; a backend may support fewer.


class Hidden(Protocol):
    """Hidden states of rows, in the form that a backend uses."""

    def __len__(self) -> int:
        """Returns the number of rows."""

    def select(self, rows: np.ndarray) -> Hidden:
        """Returns the given rows, in that order (compaction)."""


class Backend(ABC):
    """Runs one artifact. Exits are identified by their index, from 0."""

    name: str
    threads: int  # maximum number of threads per call

    @property
    def concurrent_calls(self) -> int:
        """Number of calls at the same time that are worth making; 1 if calls wait for one another."""
        return 1

    def __init__(self, artifact: Artifact):
        self.artifact = artifact

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            f"a {type(self).__name__} can be neither pickled nor copied, because it owns memory of its engine. Pickle "
            "or copy the classifier or the SweetModelForSequenceClassification, or call load_backend again."
        )

    @functools.cached_property
    def task(self) -> Task:
        """The task of the model, which defines the meaning of the logits."""
        return self.artifact.task

    def for_task(self, policy: Policy) -> Policy:
        """Returns the policy for the task of the model, where it names none."""
        task = self.task.name
        return policy if policy.task == task else policy.for_task(task, self.num_labels)

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """Number of labels; 1 for regression."""

    @property
    def num_outputs(self) -> int:
        """Number of outputs of `probe` per row: the labels, and a correctness logit if the exits have learned one."""
        return self.num_labels

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Size of the vocabulary; token ids must be smaller."""

    @property
    @abstractmethod
    def token_types(self) -> int | None:
        """Number of token types, or `None` if the model does not use them."""

    @property
    @abstractmethod
    def max_tokens(self) -> int | None:
        """Maximum number of tokens per row, or `None` if it is not limited."""

    @property
    @abstractmethod
    def padding_idx(self) -> int | None:
        """Token id that does not advance the position, see `TokenBatch`; `None` if all tokens do."""

    @abstractmethod
    def embed(self, batch: TokenBatch) -> Hidden:
        """Computes the states before the last layer of the first exit."""

    @abstractmethod
    def probe(self, exit_index: int, hidden: Hidden) -> np.ndarray:
        """Computes the outputs of an exit from the states before its last layer: (rows, num_outputs) float32.

        The outputs are the logits of the labels, followed by the correctness logit if the exits have learned one.
        """

    def context(self, threads: int = 1) -> Backend:
        """Returns a backend with the same weights, whose calls run on threads of its own, at the same time as those of
        this backend. Either one may use the other's hidden states.

        Backends whose calls have no threads of their own return themselves.

        Args:
            threads: maximum number of threads of its calls.

        Raises:
            ConfigError: the number of threads is invalid.
        """
        return self

    def read_exit(self, exit_index: int, hidden: Hidden) -> tuple[np.ndarray, criteria.CorrectnessLogit]:
        """Returns the logits (rows, labels) and the correctness logits (rows,) or `None` of an exit, float32."""
        outputs = self.probe(exit_index, hidden)
        return criteria.split_outputs(outputs, self.num_labels)

    @abstractmethod
    def advance(self, exit_index: int, hidden: Hidden) -> Hidden:
        """Runs the layers from before the last layer of an exit to before the last layer of the next one."""

    def confidence(
        self,
        policy: Policy,
        exit_index: int,
        logits: np.ndarray,
        state: criteria.State = None,
        correctness_logit: criteria.CorrectnessLogit = None,
    ) -> tuple[np.ndarray, criteria.State]:
        """Computes the same as `criteria.confidence`, up to rounding."""
        return criteria.confidence(policy, exit_index, logits, state, correctness_logit)

    def expect_call(self) -> None:  # noqa: B027 -- most backends have nothing to prepare
        """Prepares for a call that follows within some 100 microseconds, such as by waking threads; returns at once."""

    def set_yields(self, yields: bool) -> None:  # noqa: B027 -- as `expect_call`
        """Sets whether calls leave processors sooner to other threads of the process, because these compute there."""

    def probabilities(self, logits: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
        """Returns the softmax probabilities, (rows, labels) float32; NaN where they are not finite.

        Args:
            logits, temperatures: as of `best_labels`.
        """
        return softmax(logits / temperatures[:, None])

    def best_labels(self, logits: np.ndarray, temperatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the most probable label of each row, (rows,) int64, and its softmax probability, (rows,) float32; -1
        and NaN where the probabilities are not finite.

        Args:
            logits: (rows, labels) float32.
            temperatures: (rows,) float32, divide the logits.
        """
        scores = self.probabilities(logits, temperatures)
        labels = scores.argmax(axis=1)
        probabilities = scores[np.arange(len(scores)), labels]
        return np.where(np.isnan(probabilities), NO_ANSWER, labels), probabilities

    def answer(self, batch: TokenBatch, policy: Policy) -> Answers | None:
        """Runs a batch through all exits, if the backend implements this faster than the executor's loop.

        Returns:
            answers equal to those of the loop, in order; `None` if not implemented.
        """
        return None

    @abstractmethod
    def merge(self, parts: Sequence[Hidden]) -> Hidden:
        """Concatenates rows that are before the same exit."""


class EncoderBackend(Backend):
    """A backend of one encoder. Stores the encoder's dimensions but not its weights."""

    def __init__(self, artifact: Artifact, encoder: Encoder):
        super().__init__(artifact)
        self._num_labels = encoder.num_labels
        self._num_outputs = encoder.probes[-1].head.classifier.weight.shape[0]
        self._vocabulary = len(encoder.embeddings.words)
        types = encoder.embeddings.token_types
        self._token_types = None if types is None else len(types)
        self._max_tokens = encoder.max_tokens
        self._padding_idx = encoder.padding_idx

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
    def padding_idx(self) -> int | None:
        return self._padding_idx


def validate_dtype(dtype: str, encoder: Encoder) -> str:
    """Returns the dtype if the encoder supports it.

    Raises:
        ConfigError: it is unknown, or bfloat16 for a quantized encoder.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is unknown; expected one of {', '.join(DTYPES)}.")
    if dtype == "bfloat16" and encoder.quantized_linears():
        raise ConfigError("dtype='bfloat16' requires a float artifact; this one is quantized. Leave dtype out.")
    return dtype
