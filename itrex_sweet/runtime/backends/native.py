"""Runs an artifact with the package's own engine: packed rows, 8-bit or float weights, a kernel per instruction set."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.artifact import Artifact
from itrex_sweet.config import Policy
from itrex_sweet.criteria import Certainty, Memory
from itrex_sweet.errors import ArtifactError, BackendUnavailable, InputError, SweetError
from itrex_sweet.runtime.backends.base import EncoderBackend, checked_dtype
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.native.cores import checked_threads, default_threads
from itrex_sweet.runtime.native.interface import READ_BEYOND, CPolicy
from itrex_sweet.runtime.native.library import load
from itrex_sweet.runtime.native.packing import BY_THE_ENGINE, address, new_model
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.weights import load_encoder

OUT_OF_MEMORY = "out of memory"  # what the engine says
_CRITERIA = {"max_probability": 0, "learned": 1}  # that the engine knows, as `sweet_policy` names them


class NativeHidden:
    """Rows of states in memory that they share. Rows are dropped and merged by their addresses; no state is moved.

    Args:
        addresses: (rows,) uint64, where each row's states begin, (tokens of the row, hidden) float32.
        lengths: (rows,) int64, tokens of each row.
        owners: the arrays that the addresses lie in.
    """

    __slots__ = ("addresses", "in_c", "lengths", "owners")

    def __init__(self, addresses: np.ndarray, lengths: np.ndarray, owners: tuple[np.ndarray, ...]):
        self.addresses = addresses
        self.lengths = lengths
        self.owners = owners
        # Number of rows, and where their addresses and lengths are.
        self.in_c = len(addresses), address(addresses), address(lengths)

    def __len__(self) -> int:
        return len(self.addresses)

    def select(self, rows: np.ndarray) -> NativeHidden:
        return NativeHidden(self.addresses[rows], self.lengths[rows], self.owners)


class NativeBackend(EncoderBackend):
    """Runs an early-exit artifact with the native engine.

    A row's logits are the same to the bit whatever other rows come with it, and whatever the number of threads. Calls
    from several Python threads wait for one another; the interpreter's lock is free meanwhile. After a fork the child
    goes on with threads of its own, whatever the parent's threads were doing. Where the system starts fewer threads
    than a call wants, it runs on those that there are, and warns once.

    Args:
        artifact: opened by `open_artifact`.
        encoder: to run instead of the artifact's own weights.
        threads: that a call uses at most; `runtime.native.cores` says how many if absent. Short calls use fewer.
        isa: instruction set, one of `runtime.native.library.ISAS`; the best one here if absent.
        dtype: `"float32"` or `"bfloat16"`, of matrix products in layers of a float artifact. bfloat16 halves the memory
            of weights, and the time where the processor has AVX-512 BF16.
        least_work: multiply-adds that a call must have for each thread that it uses, for tests and measurements; as
            the engine decides if absent.

    Raises:
        ConfigError: an unknown dtype, bfloat16 for an 8-bit artifact, or a number of threads that is none.
        BackendUnavailable: nothing was built, the instruction set cannot be used, the artifact has layers that the
            engine does not know, or there is too little memory.
        ArtifactError: tensors whose shapes or numbers do not fit one another.
    """

    name = "native"

    def __init__(
        self,
        artifact: Artifact,
        encoder: Encoder | None = None,
        threads: int | None = None,
        isa: str | None = None,
        dtype: str | None = None,
        least_work: int = BY_THE_ENGINE,
    ):
        self.threads = default_threads() if threads is None else checked_threads(threads)
        library = load(isa)
        encoder = encoder or load_encoder(artifact)
        in_bfloat16 = checked_dtype(dtype or "float32", encoder) == "bfloat16"
        super().__init__(artifact, encoder)
        self.isa = library.isa
        self._library = library
        try:
            self._model = new_model(library, encoder, self.threads, in_bfloat16, least_work)
        except BackendUnavailable:
            raise
        except SweetError as error:
            if str(error).endswith(OUT_OF_MEMORY):
                raise BackendUnavailable(
                    f"There is too little memory to pack {artifact.directory} for the engine."
                ) from error
            raise ArtifactError(f"{artifact.directory}: the native engine refuses it: {error}") from error
        self._hidden_size = encoder.hidden_size

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights and tables."""
        return self._model.call("sweet_model_bytes")

    @property
    def workspace_bytes(self) -> int:
        """Bytes of the memory that calls work in; it grows to what the largest call needed."""
        return self._model.call("sweet_workspace_bytes")

    def confidence(
        self,
        policy: Policy,
        exit_index: int,
        logits: np.ndarray,
        memory: Memory = None,
        certainty: Certainty = None,
    ) -> tuple[np.ndarray, Memory]:
        # By the engine's own functions, so that `answer` gives the same to the bit.
        if policy.criterion not in _CRITERIA:
            return super().confidence(policy, exit_index, logits, memory, certainty)
        if policy.criterion == "learned" and exit_index < len(policy.thresholds):
            return criteria.learned(policy, exit_index, logits, certainty, self._logistic), None
        rows, labels = logits.shape
        logits = np.ascontiguousarray(logits, dtype=np.float32)
        confidences = np.empty(rows, dtype=np.float32)
        temperature = policy.temperatures[exit_index]
        self._library.call("sweet_confidence", rows, labels, address(logits), temperature, address(confidences))
        return confidences, None

    def _logistic(self, values: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(values, dtype=np.float32)
        shares = np.empty_like(values)
        self._library.call("sweet_logistic", len(values), address(values), address(shares))
        return shares

    def answer(self, batch: TokenBatch, policy: Policy) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The executor's loop inside the engine: between two exits Python costs more than a probe of a small model."""
        if policy.criterion not in _CRITERIA or (policy.criterion == "learned" and self.num_outputs == self.num_labels):
            return None
        lengths, *arrays = _inputs(batch)
        rows = len(lengths)
        temperatures, thresholds = (
            np.array(part, dtype=np.float32) for part in (policy.temperatures, policy.thresholds)
        )
        criterion = _CRITERIA[policy.criterion]
        in_c = CPolicy(
            address(temperatures),
            address(thresholds),
            min(len(temperatures), len(thresholds) + 1),
            self.num_labels,
            policy.answers_all,
            criterion,
        )
        logits = np.empty((rows, self.num_labels), dtype=np.float32)
        exits, confidences = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.float32)
        everything = (lengths, *arrays, logits, exits, confidences)
        self._model.call("sweet_answer", byref(in_c), rows, len(arrays[0]), *map(address, everything))
        return logits, exits, confidences

    def embed(self, batch: TokenBatch) -> NativeHidden:
        lengths, *arrays = _inputs(batch)
        states, hidden = self._new_states(lengths, len(arrays[0]))
        rows, starts_at, lengths_at = hidden.in_c
        inputs = map(address, arrays)
        self._model.call(
            "sweet_embed", rows, len(arrays[0]), lengths_at, *inputs, address(states), states.size, starts_at
        )
        return hidden

    def probe(self, exit_index: int, hidden: NativeHidden) -> np.ndarray:
        logits = np.empty((len(hidden), self.num_outputs), dtype=np.float32)
        self._model.call("sweet_probe", exit_index, *hidden.in_c, address(logits), logits.size)
        return logits

    def advance(self, exit_index: int, hidden: NativeHidden) -> NativeHidden:
        states, advanced = self._new_states(hidden.lengths, int(hidden.lengths.sum()))
        starts_at = advanced.in_c[1]
        self._model.call("sweet_advance", exit_index, *hidden.in_c, address(states), states.size, starts_at)
        return advanced

    def merge(self, parts: Sequence[NativeHidden]) -> NativeHidden:
        if len(parts) == 1:
            return parts[0]
        return NativeHidden(
            np.concatenate([part.addresses for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            tuple({id(owner): owner for part in parts for owner in part.owners}.values()),
        )

    def _new_states(self, lengths: np.ndarray, tokens: int) -> tuple[np.ndarray, NativeHidden]:
        """Memory for packed rows, and the rows in it: neither states nor addresses are written yet."""
        states = np.empty(tokens * self._hidden_size + READ_BEYOND, dtype=np.float32)
        return states, NativeHidden(np.empty(len(lengths), dtype=np.uint64), lengths, (states,))


def _inputs(batch: TokenBatch) -> list[np.ndarray]:
    """Lengths, token ids, types and positions as the engine reads them, as many as `cu_seqlens` says.

    Raises:
        InputError: one has another number of tokens.
    """
    inputs = (batch.input_ids, batch.token_type_ids, batch.position_ids)
    tokens = int(batch.cu_seqlens[-1])
    if any(part.shape != (tokens,) for part in inputs):
        raise InputError(f"{[part.shape for part in inputs]} token ids, types and positions for {tokens} tokens.")
    return [np.ascontiguousarray(part, dtype=np.int64) for part in (batch.lengths, *inputs)]
