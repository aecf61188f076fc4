"""Dropout of the exits, drawn from generators of their own, so that the exits change no other random number."""

from __future__ import annotations

import hashlib

import torch


def dropout(states: torch.Tensor, rate: float, generator: torch.Generator | None) -> torch.Tensor:
    """Zeroes elements at random and scales the others by `1 / (1 - rate)`, as `torch.nn.functional.dropout`.

    Args:
        states: any shape.
        rate: probability of an element to be zeroed, in [0, 1].
        generator: on the device of the states; `None` applies no dropout.
    """
    if generator is None or rate == 0.0:
        return states
    mask = torch.empty_like(states, requires_grad=False).bernoulli_(1.0 - rate, generator=generator)
    return states * mask.div_((1.0 - rate) or 1.0)


class ExitGenerators:
    """One random generator per exit and device, seeded with the exit and a common seed.

    The numbers of an exit do not depend on which other exits exist.

    Args:
        seed: integers, such as the seed of a training, the step and the rank of the process.
    """

    def __init__(self, *seed: int):
        self._seed = seed
        self._generators: dict[tuple[int, torch.device], torch.Generator] = {}

    def of(self, exit_: int, device: torch.device) -> torch.Generator:
        """Returns the generator of an exit, which continues its sequence from call to call."""
        key = (exit_, device)
        if key not in self._generators:
            digest = hashlib.blake2b(repr((*self._seed, exit_)).encode(), digest_size=7).digest()
            self._generators[key] = torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))
        return self._generators[key]
