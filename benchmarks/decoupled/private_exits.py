"""Exits with one or more private layers, for one or two query rows, on the trunk's hidden states."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from itrex_sweet.config import SweetConfig
from itrex_sweet.families import family_of
from itrex_sweet.training.dropout import dropout
from itrex_sweet.training.heads import create_exit_head, get_module
from itrex_sweet.training.private_layer import PrivateLayer


class PrivateExit(nn.Module):
    """An exit: private layers, pooler, classifier.

    Args:
        model: the trunk, whose weights initialize the exit.
        exit_: count of layers.
        depth: number of private layers, all on the states before layer `exit_`; the second is a copy of the trunk's
            next layer.
        query_rows: 1 for the first token; 2 for the first token and the mean of all, concatenated before the pooler.
        sees: size of the pooled state of the exit before, which the pooler also reads; 0 for none.
        scratch: initialize the private layers at random.
        even: the private layers begin with even attention.
    """

    def __init__(
        self,
        model: nn.Module,
        exit_: int,
        depth: int = 1,
        query_rows: int = 1,
        sees: int = 0,
        scratch: bool = False,
        even: bool = False,
    ):
        super().__init__()
        family = family_of(model.config)
        trunk = get_module(model, family.layers_path)
        self.exit = exit_
        copied = [min(exit_ - 1 + place, len(trunk) - 1) for place in range(depth)]
        self.layers = nn.ModuleList(PrivateLayer(trunk[index], family, model.config, index) for index in copied)
        self.head = create_exit_head(model, family, SweetConfig(mode="sweet"), exit_)
        self.query_rows = query_rows
        hidden = model.config.hidden_size
        more = hidden * (query_rows - 1) + sees
        self.widened = nn.Parameter(torch.zeros(hidden, more)) if more else None
        if scratch:
            self._randomize(model.config.initializer_range)
        if even:
            for layer in self.layers:
                layer.attend_evenly()

    def _randomize(self, deviation: float) -> None:
        generator = torch.Generator().manual_seed(self.exit)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=deviation, generator=generator)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        generator: torch.Generator | None,
        before: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits (rows, labels) and the pooled state (rows, hidden).

        Args:
            states: (rows, tokens, hidden) before the exit's last layer.
            mask: (rows, tokens), 0 at padding.
            generator: draws dropout in training.
            before: (rows, hidden) pooled state of the exit before, or `None`.
        """
        generator = generator if self.training else None
        inputs = [self._through_layers(None, states, mask, generator)]
        if self.query_rows == 2:
            real = mask[..., None].to(states.dtype)
            inputs.append(self._through_layers((states * real).sum(1) / real.sum(1), states, mask, generator))
        if before is not None:
            inputs.append(before)
        dense = self.head.dense(inputs[0])
        if self.widened is not None:
            dense = dense + F.linear(torch.cat(inputs[1:], dim=-1), self.widened)
        pooled = self.head.activation(dense)
        return self.head.classifier(dropout(pooled, self.head.dropout_before_classifier.p, generator)), pooled

    def _through_layers(
        self,
        query: torch.Tensor | None,
        states: torch.Tensor,
        mask: torch.Tensor,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        """Applies every private layer to a query (rows, hidden) on the same states; `None` is the first token."""
        for layer in self.layers:
            if query is None:
                query = layer(states, mask, generator=generator)
            else:  # prepended to the states, and masked so that no token attends to it
                ahead = torch.cat([query[:, None], states], dim=1)
                query = layer(ahead, F.pad(mask, (1, 0), value=0), generator=generator)
        return query
