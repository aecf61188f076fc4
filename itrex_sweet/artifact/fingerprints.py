"""Which rows a data set held, kept as hashes: enough to tell later whether two sets share rows, not to read any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from itrex_sweet.artifact.tensors import TensorFile
from itrex_sweet.errors import ArtifactError

TRAINING, CALIBRATION, REPORTING = "training", "calibration", "reporting"
MOST_KEPT = 16384  # hashes per data set, 128 kB


@dataclass(frozen=True)
class Fingerprints:
    """The rows of one data set, as the smallest of their hashes.

    Of a set too large to keep whole, the smallest hashes are a fair sample of its rows, the same one for any set that
    shares them (bottom-k sketch, Cohen and Kaplan 2007).

    Args:
        rows: different rows in all.
        hashes: (min(rows, MOST_KEPT),) uint64, ascending.
    """

    rows: int
    hashes: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> Fingerprints:
        """Hashes rows.

        Args:
            rows: token ids of each row, special tokens included, padding left out.
        """
        hashes = np.unique(_hashes(rows))
        return cls(len(hashes), hashes[:MOST_KEPT])

    def holds(self, rows: Iterable[Iterable[int]]) -> np.ndarray:
        """(rows,) bool: whether each is known to be one of the set; of a set too large to keep whole, many are not."""
        return np.isin(_hashes(rows), self.hashes)

    def share_in(self, other: Fingerprints) -> float:
        """Share of these rows that the other set holds too, estimated where either was too large to keep whole."""
        limits = [part.hashes[-1] for part in (self, other) if part.rows > len(part.hashes)]
        mine = self.hashes[self.hashes <= min(limits)] if limits else self.hashes
        return float(np.isin(mine, other.hashes).mean()) if len(mine) else 0.0


def _hashes(rows: Iterable[Iterable[int]]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(np.asarray(row, dtype="<i8").tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def write_fingerprints(path: Path, sets: Mapping[str, Fingerprints]) -> None:
    """Writes data sets by role as a safetensors file."""
    from safetensors.numpy import save_file

    arrays = {role: part.hashes.view(np.int64).copy() for role, part in sets.items()}
    save_file(arrays, path, metadata={role: str(part.rows) for role, part in sets.items()})


def parse_fingerprints(contents: bytes, path: Path) -> dict[str, Fingerprints]:
    """Reads what `write_fingerprints` wrote.

    Args:
        path: of the file, for messages.

    Raises:
        ArtifactError: the file is damaged.
    """
    stored = TensorFile(np.frombuffer(contents, np.uint8), path)
    sets = {}
    for role, rows in stored.metadata.items():
        if role not in stored.names() or not str(rows).isdecimal():
            raise ArtifactError(f"{path} is damaged: it has no hashes of {rows!r} {role!r} rows.")
        sets[role] = Fingerprints(int(rows), stored.integers(role))
    return sets
