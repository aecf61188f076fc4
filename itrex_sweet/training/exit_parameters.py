"""Which parameters of a model with exits belong to which exit."""

from __future__ import annotations

from torch import nn

from itrex_sweet.config import SweetConfig
from itrex_sweet.families import EXIT_HEADS, Family
from itrex_sweet.training.heads import module_at
from itrex_sweet.training.peft_models import underlying_model, without_wrappers


class ExitParameters:
    """The half of an `Attachment` that knows parameters.

    Args:
        model: as it was given.
        config: the settings, exits resolved.
        family: of the model.
    """

    def __init__(self, model: nn.Module, config: SweetConfig, family: Family):
        self.model = model
        self.config = config
        self.exits: tuple[int, ...] = config.exits
        self._family = family
        self._base = underlying_model(model)
        self._layers: list[nn.Module] = list(module_at(self._base, family.layers_path))
        self._frozen: list[nn.Parameter] = []

    def parameters_by_segment(self) -> dict[int, list[tuple[str, nn.Parameter]]]:
        """Every parameter of the model, once: exit → (name, parameter) of its segment and its head.

        The embeddings, and in DeBERTa the shared relative-position table, its norm and the convolution,
        belong to the first segment; the model's own pooler and head to the last. Where exits have private layers, all
        of the model belongs to the last, and to each other exit what is its own.
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
        own = [module_at(self._base, path) for path in (self._family.head_dense, self._family.head_out)]
        last = {id(parameter) for module in own for parameter in module.parameters()}
        first = set() if private else {id(parameter) for parameter in backbone.parameters()} - last
        segments: dict[int, list[tuple[str, nn.Parameter]]] = {exit_: [] for exit_ in self.exits}
        for name, parameter in self.model.named_parameters():
            default = self.exits[0] if id(parameter) in first else self.exits[-1]
            segments[owner.get(id(parameter), default)].append((name, parameter))
        return segments

    def layer_parameters(self) -> list[list[nn.Parameter]]:
        """The trainable parameters of each encoder layer, first to last."""
        return [[one for one in layer.parameters() if one.requires_grad] for layer in self._layers]

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        """Every parameter, once: those whose gradients are clipped to one norm stand together.

        In `sweet` mode that is a segment and its head; in `decoupled` mode what an exit owns, and for the last exit the
        model itself; else the whole model. What a head learns about being right is always by itself, so that it
        shortens nothing else's steps, and comes last.
        """
        certainties = [
            list(without_wrappers(head).certainty.parameters())
            for head in self._heads().values()
            if self.config.learn_to_exit
        ]
        apart = {id(parameter) for group in certainties for parameter in group}
        segments = [[parameter for _, parameter in named] for named in self.parameters_by_segment().values()]
        if self.config.mode != "sweet" and not self.config.has_private_layers:
            segments = [[parameter for segment in segments for parameter in segment]]
        return [[one for one in segment if id(one) not in apart] for segment in segments] + certainties

    def head_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """(name, parameter) of what was added for the exits; not of the model's own."""
        return [
            (f"{EXIT_HEADS}.{exit_}.{name}", parameter)
            for exit_, head in self._heads().items()
            for name, parameter in head.named_parameters()
        ]

    def freeze_model(self) -> None:
        """Leaves nothing but the exits to train, until `unfreeze_model`."""
        added = {id(parameter) for _, parameter in self.head_parameters()}
        for parameter in self.model.parameters():
            if parameter.requires_grad and id(parameter) not in added:
                parameter.requires_grad_(False)
                self._frozen.append(parameter)

    def unfreeze_model(self) -> None:
        """Lets train again what `freeze_model` froze."""
        while self._frozen:
            self._frozen.pop().requires_grad_(True)

    def _heads(self) -> dict[int, nn.Module]:
        return {int(exit_): head for exit_, head in getattr(self._base, EXIT_HEADS).items()}

    def _segment(self, index: int) -> int:
        """Which segment, from 0, the layer with this index, from 0, belongs to."""
        return sum(index >= exit_ for exit_ in self.exits[:-1])
