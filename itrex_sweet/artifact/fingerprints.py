"""Which rows a data set held, kept as hashes: enough to tell later whether two sets share rows, not to read any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


def read_fingerprints(path: Path) -> dict[str, Fingerprints]:
    """Reads what `write_fingerprints` wrote; nothing where there is no file.

    Raises:
        ArtifactError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="np") as stored:
            counts = stored.metadata() or {}
            return {
                role: Fingerprints(int(rows), stored.get_tensor(role).view(np.uint64)) for role, rows in counts.items()
            }
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error!r}); copy the whole folder again.") from error
