"""The native backend: the package's C++ engine, for float32, bfloat16 and INT8 artifacts on packed rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.artifact import Artifact
from itrex_sweet.criteria import CorrectnessLogit, State
from itrex_sweet.errors import ArtifactError, BackendUnavailable, InputError, SweetError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import EncoderBackend, validate_dtype
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.native.c_policy import CRITERIA, EnginePolicies, offsets_of, target_of
from itrex_sweet.runtime.native.contexts import Contexts
from itrex_sweet.runtime.native.cores import validate_threads
from itrex_sweet.runtime.native.handle import DEFAULT_MIN_MACS, EngineModel, EngineThreads, ThreadCounts
from itrex_sweet.runtime.native.interface import READ_PADDING
from itrex_sweet.runtime.native.library import load
from itrex_sweet.runtime.native.packing import create_model, data_pointer
from itrex_sweet.runtime.native.sharing import shared_model, shared_threads
from itrex_sweet.runtime.ragged import TokenBatch, consecutive_positions
from itrex_sweet.runtime.weights import load_encoder

OUT_OF_MEMORY = "out of memory"  # the engine's message


class NativeHidden:
    """Hidden states of rows in shared arrays. Selecting and merging rows copies addresses only, not states.

    Args:
        addresses: (rows,) uint64, address of each row's states, (tokens of the row, hidden) float32.
        lengths: (rows,) int64, tokens of each row.
        owners: the arrays that contain the states and the positions.
        positions: (rows,) uint64, address of the positions of each row's tokens, (tokens of the row,) int64; `None` if
            those of all rows are consecutive.
    """

    __slots__ = ("addresses", "c_arguments", "lengths", "owners", "positions")

    def __init__(
        self,
        addresses: np.ndarray,
        lengths: np.ndarray,
        owners: tuple[np.ndarray, ...],
        positions: np.ndarray | None = None,
    ):
        self.addresses = addresses
        self.lengths = lengths
        self.owners = owners
        self.positions = positions
        # Number of rows, and pointers to their addresses, lengths and positions.
        self.c_arguments = (
            len(addresses),
            data_pointer(addresses),
            data_pointer(lengths),
            None if positions is None else data_pointer(positions),
        )

    def __len__(self) -> int:
        return len(self.addresses)

    def select(self, rows: np.ndarray) -> NativeHidden:
        positions = None if self.positions is None else self.positions[rows]
        return NativeHidden(self.addresses[rows], self.lengths[rows], self.owners, positions)


class NativeBackend(EncoderBackend):
    """Runs an early-exit artifact with the native engine.

    The logits of a row are bit-identical for every batch composition and every number of threads. A forked child
    continues with threads of its own. If the system starts fewer threads than requested, calls run on those that exist,
    with one warning.

    Calls release the GIL, and calls of several Python threads run at the same time: a call alone uses all threads,
    several calls share them evenly, and if there are more calls than threads, they take turns of some milliseconds.
    Shares change while calls run, so a short call does not wait for a long one to end. Hidden states may be computed in
    one thread and used in another.

    Backends of the same weights and instruction set in one process share one copy of the packed weights.

    Args:
        artifact: opened by `open_artifact`.
        encoder: replaces the artifact's own weights.
        threads: maximum number of threads of all calls together. Short calls use fewer. By default
            `runtime.native.cores.default_threads()`, which all backends without this argument share: together they use
            no more.
        isa: instruction set, one of `runtime.native.library.ISAS`; by default the best one available.
        dtype: `"float32"` or `"bfloat16"`, for matrix products in the layers of a float artifact. bfloat16 halves the
            memory of the weights, and the time on processors with AVX-512 BF16.
        min_macs_per_thread: multiply-accumulates per thread below which a call uses fewer threads, for tests and
            benchmarks; by default the engine's.

    Raises:
        ConfigError: an unknown dtype, bfloat16 for an INT8 artifact, or an invalid number of threads.
        BackendUnavailable: the engine was not built, the instruction set is not available, the engine does not support
            a layer, or out of memory.
        ArtifactError: tensors with inconsistent shapes or values out of range.
    """

    name = "native"

    @property
    def concurrent_calls(self) -> int:
        # On two cores a team of two answers as many rows as two calls of one thread each, and sooner.
        return max(1, self.threads // 2)

    def __init__(
        self,
        artifact: Artifact,
        encoder: Encoder | None = None,
        threads: int | None = None,
        isa: str | None = None,
        dtype: str | None = None,
        min_macs_per_thread: int = DEFAULT_MIN_MACS,
    ):
        if threads is not None:
            threads = validate_threads(threads)
        library = load(isa)
        own_encoder = encoder or load_encoder(artifact)
        use_bfloat16 = validate_dtype(dtype or "float32", own_encoder) == "bfloat16"
        super().__init__(artifact, own_encoder)
        self.isa = library.isa
        self._library = library

        def create() -> EngineModel:
            return create_model(library, own_encoder, use_bfloat16)

        try:
            self._model = shared_model(library, artifact, use_bfloat16, create) if encoder is None else create()
            self._use(
                shared_threads(library) if threads is None else EngineThreads(library, threads), min_macs_per_thread
            )
        except BackendUnavailable:
            raise
        except SweetError as error:
            if str(error).endswith(OUT_OF_MEMORY):
                raise BackendUnavailable(
                    f"Out of memory while packing the weights of {artifact.directory} for the native engine."
                ) from error
            raise ArtifactError(f"{artifact.directory}: the native engine rejects it: {error}") from error
        self._hidden_size = own_encoder.hidden_size
        self._policies = EnginePolicies(self._num_labels, self._num_outputs)

    def _use(self, threads: EngineThreads, min_macs_per_thread: int) -> None:
        """Runs the calls on these threads."""
        self.threads = threads.threads
        self._threads = threads
        self._min_macs_per_thread = min_macs_per_thread
        self._contexts = Contexts(self._model, threads, min_macs_per_thread)

    def context(self, threads: int = 1) -> NativeBackend:
        context = object.__new__(type(self))
        context.__dict__.update(self.__dict__)
        context._use(EngineThreads(self._library, validate_threads(threads)), self._min_macs_per_thread)
        return context

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights and embedding tables, which other backends may share."""
        return self._model.call("sweet_model_bytes")

    @property
    def workspace_bytes(self) -> int:
        """Bytes of the memory for intermediate results, without that of running calls; grows to the largest calls."""
        return self._contexts.workspace_bytes()

    @property
    def thread_counts(self) -> ThreadCounts:
        """Numbers of calls and threads that run, of all backends that share the threads."""
        return self._threads.counts()

    def confidence(
        self,
        policy: Policy,
        exit_index: int,
        logits: np.ndarray,
        state: State = None,
        correctness_logit: CorrectnessLogit = None,
    ) -> tuple[np.ndarray, State]:
        # Computed by the engine, so that the result is bit-identical to that of `answer`.
        if policy.criterion not in CRITERIA:
            return super().confidence(policy, exit_index, logits, state, correctness_logit)
        if policy.criterion == "learned" and exit_index < len(policy.thresholds):
            return criteria.learned(policy, exit_index, logits, correctness_logit, self._logistic), None
        rows, labels = logits.shape
        logits = np.ascontiguousarray(logits, dtype=np.float32)
        confidences = np.empty(rows, dtype=np.float32)
        temperature, offsets = policy.temperatures[exit_index], offsets_of(policy, labels)
        self._library.call(
            "sweet_confidence",
            *(rows, labels, data_pointer(logits), temperature),
            *(_optional(offsets), target_of(policy), data_pointer(confidences)),
        )
        return confidences, None

    def _logistic(self, values: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(values, dtype=np.float32)
        probabilities = np.empty_like(values)
        self._library.call("sweet_logistic", len(values), data_pointer(values), data_pointer(probabilities))
        return probabilities

    def best_labels(self, logits: np.ndarray, temperatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Computed by the engine, so that the result is bit-identical to that of `answer`.
        rows, labels = logits.shape
        logits, temperatures = (np.ascontiguousarray(part, dtype=np.float32) for part in (logits, temperatures))
        best, probabilities = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.float32)
        arrays = (logits, temperatures, best, probabilities)
        self._library.call("sweet_best_label", rows, labels, *map(data_pointer, arrays))
        return best, probabilities

    def probabilities(self, logits: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
        # Computed by the engine, so that the greatest is bit-identical to that of `best_labels`.
        rows, labels = logits.shape
        logits, temperatures = (np.ascontiguousarray(part, dtype=np.float32) for part in (logits, temperatures))
        probabilities = np.empty_like(logits)
        arrays = (logits, temperatures, probabilities)
        self._library.call("sweet_probabilities", rows, labels, *map(data_pointer, arrays))
        return probabilities

    def expect_call(self) -> None:
        if self.threads > 1:
            self._threads.wake()

    def set_yields(self, yields: bool) -> None:
        self._threads.set_yields(yields)

    def answer(self, batch: TokenBatch, policy: Policy) -> Answers | None:
        """Runs the loop over exits inside the engine; in Python, it costs more than a probe of a small model."""
        in_engine = self._policies.of(policy)
        if in_engine is None:
            return None
        lengths, ids, types, positions = _inputs(batch)
        rows, labels = len(lengths), self._num_labels
        integers = np.empty((2, rows), dtype=np.int64)
        floats = np.empty(rows * (labels + 2), dtype=np.float32)
        exits, logits = data_pointer(integers), data_pointer(floats)
        confidences = logits + 4 * rows * labels
        self._contexts.run(
            "sweet_answer",
            in_engine.address,
            rows,
            len(ids),
            data_pointer(lengths),
            data_pointer(ids),
            None if types is None else data_pointer(types),
            None if positions is None else data_pointer(positions),
            logits,
            exits,
            confidences,
            exits + 8 * rows if in_engine.with_labels else None,
            confidences + 4 * rows,
        )
        end = rows * labels
        answers = Answers(np.arange(rows), floats[:end].reshape(rows, labels), integers[0], floats[end : end + rows])
        if in_engine.with_labels:
            answers.labels, answers.probabilities = integers[1], floats[end + rows :]
        return answers

    def embed(self, batch: TokenBatch) -> NativeHidden:
        lengths, ids, types, positions = _inputs(batch)
        gaps = None if positions is None else _position_addresses(positions, batch.cu_seqlens)
        types = np.zeros_like(ids) if types is None else types
        positions = consecutive_positions(batch.cu_seqlens) if positions is None else positions
        states, hidden = self._new_states(lengths, len(ids), gaps, () if gaps is None else (positions,))
        rows, starts, c_lengths, _ = hidden.c_arguments
        inputs = map(data_pointer, (ids, types, positions))
        self._contexts.run("sweet_embed", rows, len(ids), c_lengths, *inputs, data_pointer(states), states.size, starts)
        return hidden

    def probe(self, exit_index: int, hidden: NativeHidden) -> np.ndarray:
        logits = np.empty((len(hidden), self.num_outputs), dtype=np.float32)
        self._contexts.run("sweet_probe", exit_index, *hidden.c_arguments, data_pointer(logits), logits.size)
        return logits

    def advance(self, exit_index: int, hidden: NativeHidden) -> NativeHidden:
        owners = () if hidden.positions is None else hidden.owners
        states, advanced = self._new_states(hidden.lengths, int(hidden.lengths.sum()), hidden.positions, owners)
        starts = advanced.c_arguments[1]
        self._contexts.run("sweet_advance", exit_index, *hidden.c_arguments, data_pointer(states), states.size, starts)
        return advanced

    def merge(self, parts: Sequence[NativeHidden]) -> NativeHidden:
        if len(parts) == 1:
            return parts[0]
        positions = None
        if any(part.positions is not None for part in parts):
            positions = np.concatenate(
                [np.zeros(len(part), np.uint64) if part.positions is None else part.positions for part in parts]
            )
        return NativeHidden(
            np.concatenate([part.addresses for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            tuple({id(owner): owner for part in parts for owner in part.owners}.values()),
            positions,
        )

    def _new_states(
        self, lengths: np.ndarray, tokens: int, positions: np.ndarray | None, owners: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, NativeHidden]:
        """Allocates states and addresses for packed rows; the engine initializes both."""
        states = np.empty(tokens * self._hidden_size + READ_PADDING, dtype=np.float32)
        addresses = np.empty(len(lengths), dtype=np.uint64)
        return states, NativeHidden(addresses, lengths, (states, *owners), positions)


def _position_addresses(positions: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray | None:
    """Returns the address of each row's positions, or `None` if those of all rows are consecutive."""
    is_gap = np.diff(positions) != 1
    is_gap[cu_seqlens[1:-1] - 1] = False  # from one row to the next
    if not is_gap.any():
        return None
    return (positions.ctypes.data + positions.itemsize * cu_seqlens[:-1]).astype(np.uint64)


def _optional(array: np.ndarray | None) -> int | None:
    return None if array is None else data_pointer(array)


def _inputs(batch: TokenBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Returns lengths, token ids, and token types and positions if the batch has them, as contiguous int64 arrays.

    Raises:
        InputError: an array does not have the number of tokens in `cu_seqlens`.
    """
    shape = (int(batch.cu_seqlens[-1]),)
    ids, types, positions = batch.input_ids, batch.given_types, batch.given_positions
    if (
        ids.shape != shape
        or (types is not None and types.shape != shape)
        or (positions is not None and positions.shape != shape)
    ):
        shapes = [part.shape for part in (ids, batch.token_type_ids, batch.position_ids)]
        raise InputError(f"token ids, types and positions have shapes {shapes}; expected {shape[0]} tokens each.")
    return (
        np.ascontiguousarray(batch.lengths, np.int64),
        np.ascontiguousarray(ids, np.int64),
        None if types is None else np.ascontiguousarray(types, np.int64),
        None if positions is None else np.ascontiguousarray(positions, np.int64),
    )
