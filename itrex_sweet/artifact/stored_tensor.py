"""One tensor of a weights file, as NumPy holds it."""

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
    """A tensor and the type that it is stored in. NumPy has no bfloat16, so its 16 bits are held as integers.

    Args:
        dtype: NumPy's name of the type, or `BFLOAT16`.
        values: the numbers, of the tensor's shape; of bfloat16 the 16 bits, as unsigned integers.
        file: that holds it, named in errors.
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
        """Returns the numbers in float32, contiguous; without a copy if they are so already."""
        return float32_of(self.values, self.dtype)

    def as_torch(self) -> torch.Tensor:
        """Returns a torch tensor that shares the memory."""
        import torch

        if self.dtype == BFLOAT16:
            return torch.from_numpy(self.values.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(self.values)

    @classmethod
    def of_torch(cls, tensor: torch.Tensor, file: Path) -> StoredTensor:
        """Makes one of a torch tensor, whose memory it shares."""
        import torch

        tensor = tensor.detach()
        if tensor.dtype == torch.bfloat16:
            return cls(BFLOAT16, tensor.view(torch.int16).numpy().view(np.uint16), file)
        return cls(str(tensor.dtype).removeprefix("torch."), tensor.numpy(), file)


def float32_of(values: np.ndarray, dtype: str) -> np.ndarray:
    """Converts numbers as `StoredTensor` holds them to float32, contiguous."""
    if dtype == BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(values, dtype=np.float32, order="C")
