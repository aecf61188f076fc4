"""The parameters of a model with exits, grouped by exit."""

from __future__ import annotations

from torch import nn

from itrex_sweet.config import SweetConfig
from itrex_sweet.families import EXIT_HEADS, Family
from itrex_sweet.training.heads import get_module
from itrex_sweet.training.peft_models import unwrap_module, unwrap_peft_model


class ExitParameters:
    """The part of an `Attachment` that groups and freezes parameters.

    Args:
        model: the model passed to `attach`.
        config: the settings, with resolved exits.
        family: of the model.
    """

    def __init__(self, model: nn.Module, config: SweetConfig, family: Family):
        self.model = model
        self.config = config
        self.exits: tuple[int, ...] = config.exits
        self._family = family
        self._base = unwrap_peft_model(model)
        self._layers: list[nn.Module] = list(get_module(self._base, family.layers_path))
        self._frozen: list[nn.Parameter] = []

    def parameters_by_segment(self) -> dict[int, list[tuple[str, nn.Parameter]]]:
        """Returns all parameters of the model by segment: exit → (name, parameter) of its segment and its head.

        The embeddings, and in DeBERTa and MPNet the shared relative positions, their norm and the convolution,
        belong to the first segment; the model's own pooler and head to the last. With private layers, the whole model
        belongs to the last exit, and every other exit has its own parameters only.
        """
        private = self.config.has_private_layers
        owner = {
            id(parameter): self.exits[-1 if private else self._segment(index)]
            for index, layer in enumerate(self._layers)
            for parameter in layer.parameters()
        }
        for exit_, head in self._heads().items():
            owner.update({id(parameter): exit_ for parameter in head.parameters()})
        backbone = getattr(self._base, self._family.backbone)
        depth = len(self._layers)
        paths = (self._family.head_dense, self._family.head_out, *self._family.norm_paths(depth, depth))
        own = [get_module(self._base, path) for path in paths if path is not None]
        last = {id(parameter) for module in own for parameter in module.parameters()}
        first = set() if private else {id(parameter) for parameter in backbone.parameters()} - last
        segments: dict[int, list[tuple[str, nn.Parameter]]] = {exit_: [] for exit_ in self.exits}
        for name, parameter in self.model.named_parameters():
            default = self.exits[0] if id(parameter) in first else self.exits[-1]
            segments[owner.get(id(parameter), default)].append((name, parameter))
        return segments

    def layer_parameters(self) -> list[list[nn.Parameter]]:
        """Returns the trainable parameters of each encoder layer, first to last."""
        return [[one for one in layer.parameters() if one.requires_grad] for layer in self._layers]

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        """Returns all parameters in groups, each of which is clipped to one gradient norm.

        In `sweet` mode a group is a segment and its head; in `decoupled` mode an exit's own parameters and, for the
        last exit, the model; else there is one group. The layers that predict correctness (`learn_to_exit`) are
        groups of their own, the last ones, so that their gradients do not scale down others.
        """
        correctness = [
            list(unwrap_module(head).certainty.parameters())
            for head in self._heads().values()
            if self.config.learn_to_exit
        ]
        in_correctness = {id(parameter) for group in correctness for parameter in group}
        segments = [[parameter for _, parameter in named] for named in self.parameters_by_segment().values()]
        if self.config.mode != "sweet" and not self.config.has_private_layers:
            segments = [[parameter for segment in segments for parameter in segment]]
        return [[one for one in segment if id(one) not in in_correctness] for segment in segments] + correctness

    def head_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Returns (name, parameter) of the parameters that the exits added to the model."""
        return [
            (f"{EXIT_HEADS}.{exit_}.{name}", parameter)
            for exit_, head in self._heads().items()
            for name, parameter in head.named_parameters()
        ]

    def freeze_model(self) -> None:
        """Freezes all parameters but those of the exits, until `unfreeze_model`."""
        added = {id(parameter) for _, parameter in self.head_parameters()}
        for parameter in self.model.parameters():
            if parameter.requires_grad and id(parameter) not in added:
                parameter.requires_grad_(False)
                self._frozen.append(parameter)

    def unfreeze_model(self) -> None:
        """Unfreezes the parameters that `freeze_model` froze."""
        while self._frozen:
            self._frozen.pop().requires_grad_(True)

    def _heads(self) -> dict[int, nn.Module]:
        return {int(exit_): head for exit_, head in getattr(self._base, EXIT_HEADS).items()}

    def _segment(self, index: int) -> int:
        """Returns the segment, from 0, of the layer with this index, from 0."""
        return sum(index >= exit_ for exit_ in self.exits[:-1])
