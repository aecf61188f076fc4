"""Encoders whose arrays are torch tensors, for backends that compute with torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from itrex_sweet.artifact import Artifact
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.weights import load_encoder


def load_torch_encoder(
    artifact: Artifact, tensors: Mapping[str, torch.Tensor] | None = None, with_correctness_logit: bool | None = None
) -> Encoder:
    """Reads an artifact's weights as torch tensors; arguments and errors as of `load_encoder`."""
    return with_torch_tensors(load_encoder(artifact, tensors, with_correctness_logit))


def with_torch_tensors(encoder: Encoder) -> Encoder:
    """Returns the encoder with torch tensors that share the memory of its arrays; tensors stay as they are.

    Layers that stand in several places, as in a segment and in a probe, remain one object.
    """
    done: dict[int, Any] = {}

    def convert(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(convert, part))
        if not dataclasses.is_dataclass(part) and not isinstance(part, np.ndarray):
            return part
        if id(part) not in done:
            if isinstance(part, np.ndarray):
                done[id(part)] = torch.from_numpy(part)
            else:
                fields = {each.name: convert(getattr(part, each.name)) for each in dataclasses.fields(part)}
                done[id(part)] = dataclasses.replace(part, **fields)
        return done[id(part)]

    return convert(encoder)
