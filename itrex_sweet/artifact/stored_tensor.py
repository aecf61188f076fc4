"""A tensor of a weights file, stored in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor and its stored type. NumPy has no bfloat16, so its 16 bits are stored as integers.

    Args:
        dtype: NumPy name of the type, or `BFLOAT16`.
        values: the numbers, in the tensor's shape; for bfloat16 its bits as uint16.
        file: path of its file, for error messages.
    """

    dtype: str
    values: np.ndarray
    file: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return self.values.nbytes

    def as_float32(self) -> np.ndarray:
        """Returns the numbers as contiguous float32, without a copy if possible."""
        return float32_of(self.values, self.dtype)

    def as_torch(self) -> torch.Tensor:
        """Returns a torch tensor that shares the memory."""
        import torch

        if self.dtype == BFLOAT16:
            return torch.from_numpy(self.values.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(self.values)

    @classmethod
    def of_torch(cls, tensor: torch.Tensor, file: Path) -> StoredTensor:
        """Creates one that shares the memory of a torch tensor."""
        import torch

        tensor = tensor.detach()
        if tensor.dtype == torch.bfloat16:
            return cls(BFLOAT16, tensor.view(torch.int16).numpy().view(np.uint16), file)
        return cls(str(tensor.dtype).removeprefix("torch."), tensor.numpy(), file)


def float32_of(values: np.ndarray, dtype: str) -> np.ndarray:
    """Converts values of a `StoredTensor` to contiguous float32."""
    if dtype == BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(values, dtype=np.float32, order="C")
