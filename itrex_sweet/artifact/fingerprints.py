"""Fingerprints of data sets: hashes of their rows, which show whether two data sets share rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from itrex_sweet.artifact.tensors import TensorFile
from itrex_sweet.errors import ArtifactError

TRAINING, CALIBRATION, REPORTING = "training", "calibration", "reporting"
SELECTION = "selection"  # of a checkpoint, by evaluation during training
QUANTIZATION = "quantization"  # ranges observed, recipes judged, temperatures fitted
MAX_HASHES = 16384  # hashes per data set, 128 kB
_LONGEST = ".longest"  # name of a role's tensor beside that of its hashes


@dataclass(frozen=True)
class Fingerprints:
    """The smallest hashes of the rows of one data set.

    Of a large set, the smallest hashes are a uniform sample of its rows, the same sample for any set that
    shares them (bottom-k sketch, Cohen and Kaplan 2007).

    Args:
        rows: number of distinct rows.
        hashes: (min(rows, MAX_HASHES),) uint64, ascending.
        longest: number of tokens of the longest row, to which other texts may have been truncated; 0 if not recorded.
    """

    rows: int
    hashes: np.ndarray
    longest: int = 0

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> Fingerprints:
        """Hashes rows.

        Args:
            rows: token ids of each row, with special tokens, without padding.
        """
        rows = list(rows)
        hashes = np.unique(_hashes(rows))
        return cls(len(hashes), hashes[:MAX_HASHES], max(map(len, rows), default=0))

    def union(self, other: Fingerprints) -> Fingerprints:
        """Returns the union of both sets; its size is an estimate if not all hashes are stored."""
        limits = self._limits(other)
        hashes = np.union1d(self.hashes, other.hashes)
        hashes = hashes[hashes <= min(limits)] if limits else hashes
        rows = round(len(hashes) * 2**64 / int(min(limits))) if limits else len(hashes)
        return Fingerprints(rows, hashes[:MAX_HASHES], max(self.longest, other.longest))

    def contains(self, rows: Iterable[Iterable[int]]) -> np.ndarray:
        """Returns (rows,) bool: whether the hash of each row is stored; a large set stores only some of its hashes."""
        return np.isin(_hashes(rows), self.hashes)

    def share_of(self, rows: Iterable[Iterable[int]]) -> float:
        """Returns the share of given rows that are in the set, an estimate if not all hashes are stored."""
        hashes = _hashes(rows)
        limits = self._limits(self)
        comparable = hashes <= min(limits) if limits else np.ones(len(hashes), dtype=bool)
        return float(np.isin(hashes[comparable], self.hashes).mean()) if comparable.any() else 0.0

    def overlap(self, other: Fingerprints) -> float:
        """Returns the share of these rows that are in the other set too, an estimate if not all hashes are stored."""
        limits = self._limits(other)
        comparable = self.hashes[self.hashes <= min(limits)] if limits else self.hashes
        return float(np.isin(comparable, other.hashes).mean()) if len(comparable) else 0.0

    def _limits(self, other: Fingerprints) -> list[np.uint64]:
        """Returns the greatest stored hash of each set that stores only some of its hashes."""
        return [part.hashes[-1] for part in (self, other) if part.rows > len(part.hashes) > 0]


def _hashes(rows: Iterable[Iterable[int]]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(np.asarray(row, dtype="<i8").tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def write_fingerprints(path: Path, sets: Mapping[str, Fingerprints]) -> None:
    """Writes data sets by role as a safetensors file."""
    from safetensors.numpy import save_file

    arrays = {role: part.hashes.view(np.int64).copy() for role, part in sets.items()}
    arrays |= {f"{role}{_LONGEST}": np.array([part.longest], dtype=np.int64) for role, part in sets.items()}
    save_file(arrays, path, metadata={role: str(part.rows) for role, part in sets.items()})


def parse_fingerprints(contents: bytes, path: Path) -> dict[str, Fingerprints]:
    """Reads a file written by `write_fingerprints`.

    Args:
        path: path of the file, for error messages.

    Raises:
        ArtifactError: the file is damaged.
    """
    stored = TensorFile(np.frombuffer(contents, np.uint8), path)
    sets = {}
    for role, rows in stored.metadata.items():
        if role not in stored.names() or not str(rows).isdecimal():
            raise ArtifactError(f"{path} is damaged: it has no hashes of {rows!r} {role!r} rows.")
        longest = stored.integers(f"{role}{_LONGEST}") if f"{role}{_LONGEST}" in stored.names() else ()
        sets[role] = Fingerprints(int(rows), stored.integers(role), int(longest[0]) if len(longest) else 0)
    return sets
