"""Methods of torch modules: some do nothing, the others raise an error that says what to do instead."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from itrex_sweet.classifier.options import checked_dtype_name
from itrex_sweet.errors import ConfigError
from itrex_sweet.modeling.loading import refuse_other_devices


class ModuleMethods:
    """Methods of torch modules that transformers' pipelines and users call."""

    computed_in: str
    input_modalities = ("text",)

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the logits."""
        return torch.float32

    def can_generate(self) -> bool:
        """Returns False."""
        return False

    def to(self, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, copy: bool = False):
        """Returns the model unchanged; accepts the CPU, and the dtype that it computes in.

        Raises:
            ConfigError: another device or dtype.
        """
        for argument in args:
            if isinstance(argument, torch.dtype):
                dtype = argument
            elif isinstance(argument, torch.Tensor):
                device = argument.device
            elif not isinstance(argument, bool):
                device = argument
        refuse_other_devices("device", device)
        if dtype is not None and checked_dtype_name(dtype) != self.computed_in:
            self._refuse_dtype(dtype)
        return self

    def cpu(self):
        """Returns the model unchanged."""
        return self

    def cuda(self, device: Any = None) -> NoReturn:
        """Raises ConfigError: only the CPU is supported."""
        refuse_other_devices("device", "cuda")
        raise AssertionError  # it was refused

    def float(self):
        """Returns the model if it computes in float32."""
        return self.to(dtype=torch.float32)

    def bfloat16(self):
        """Returns the model if it computes in bfloat16."""
        return self.to(dtype=torch.bfloat16)

    def half(self) -> NoReturn:
        """Raises ConfigError: the precision is chosen at load."""
        self._refuse_dtype(torch.float16)

    def double(self) -> NoReturn:
        """Raises ConfigError: the precision is chosen at load."""
        self._refuse_dtype(torch.float64)

    def eval(self):
        """Returns the model unchanged: there is no training mode."""
        return self

    def train(self, mode: bool = True):
        """Returns the model for `train(False)`.

        Raises:
            ConfigError: training mode.
        """
        if mode:
            raise ConfigError(
                "this model is for inference only: train the transformers model, with "
                "Trainer(..., callbacks=[SweetCallback()]) or itrex-sweet train, and load the result."
            )
        return self

    def requires_grad_(self, requires_grad: bool = True):
        """Returns the model for `requires_grad_(False)`; errors as those of `train`."""
        return self.train(requires_grad)

    def parameters(self, *_: Any, **__: Any) -> NoReturn:
        """Raises ConfigError: a backend holds the weights in a form of its own."""
        raise ConfigError(
            "a backend holds the weights, in a form of its own: model.artifact.tensors() reads those of the folder, "
            "and model.device and model.dtype tell the rest."
        )

    named_parameters = buffers = named_buffers = state_dict = load_state_dict = parameters

    def _refuse_dtype(self, dtype: torch.dtype) -> NoReturn:
        raise ConfigError(
            f"{dtype}: the precision, here {self.computed_in}, is chosen at load, from_pretrained(..., dtype='float32' "
            "or 'bfloat16'), or by itrex-sweet quantize for 8-bit integers."
        )
