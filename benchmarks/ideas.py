"""What was tried in training besides the options of `SweetCallback`: each idea changes a Trainer before it trains."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback

from itrex_sweet.families import EXIT_HEADS, family_of
from itrex_sweet.training.attaching import attachment_of
from itrex_sweet.training.heads import get_module

# Of a Trainer whose model has its exits, and of the folder of the plain fine-tuning that it began from.
Idea = Callable[[Trainer, "Path | None"], None]


def rate_of_segments(*times: float) -> Idea:
    """Each segment learns, with its head, at its own multiple of the learning rate."""

    def change(trainer: Trainer, plain: Path | None) -> None:
        segments = attachment_of(trainer.model).parameters_by_segment().values()
        groups = ([parameter for _, parameter in named] for named in segments)
        trainer.optimizer = _optimizer(trainer, zip(times, groups, strict=True))

    return change


def rate_of_heads(times: float) -> Idea:
    """The exits' heads, the model's own aside, learn at a multiple of the learning rate."""

    def change(trainer: Trainer, plain: Path | None) -> None:
        heads = [parameter for _, parameter in attachment_of(trainer.model).head_parameters()]
        ids = {id(parameter) for parameter in heads}
        rest = [parameter for parameter in trainer.model.parameters() if id(parameter) not in ids]
        trainer.optimizer = _optimizer(trainer, [(1.0, rest), (times, heads)])

    return change


def _optimizer(trainer: Trainer, groups: Iterable[tuple[float, list[nn.Parameter]]]) -> torch.optim.Optimizer:
    """The Trainer's own, with multiples of its learning rate."""
    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    decay = trainer.args.weight_decay
    return kind(
        [{"params": of_one, "lr": times * options["lr"], "weight_decay": decay} for times, of_one in groups], **options
    )


def opening_cuts(first: tuple[float, ...], last: tuple[float, ...]) -> Idea:
    """The share of the gradient that passes each cut goes from the first to the last, evenly in its logarithm."""

    class Opening(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            done = state.global_step / state.max_steps
            shares = np.exp((1 - done) * np.log(first) + done * np.log(last))
            attachment = attachment_of(model)
            attachment.config = dataclasses.replace(attachment.config, gradient_scale=tuple(shares.tolist()))

    return lambda trainer, plain: trainer.add_callback(Opening())


def first_layer_held_to_plain(weight: float) -> Idea:
    """The loss gets the mean square between the first layer's hidden states and the plain model's, over their variance.
    Of BERT alone.
    """

    def change(trainer: Trainer, plain: Path | None) -> None:
        taught = AutoModelForSequenceClassification.from_pretrained(plain).eval().requires_grad_(False)

        def add(model: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
            if model.training:
                # Run again: an exit that stands alone has let its own graph go.
                with torch.autocast("cpu", torch.bfloat16, enabled=trainer.args.bf16):
                    ours, theirs = (_after_first_layer(each, kwargs).float() for each in (model, taught))
                real = kwargs["attention_mask"].bool()
                output.loss = output.loss + weight * (ours - theirs)[real].square().mean() / theirs[real].var()
            return output

        trainer.model.register_forward_hook(add, with_kwargs=True)

    return change


def _after_first_layer(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    hidden = model.bert.embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs.get("token_type_ids"))
    mask = torch.where(inputs["attention_mask"][:, None, None, :].bool(), 0.0, torch.finfo(hidden.dtype).min)
    output = model.bert.encoder.layer[0](hidden, mask)
    return output[0] if isinstance(output, tuple) else output


def adapters(width: int) -> Idea:
    """Every exit but the last reads its hidden states through an adapter that begins as nothing."""

    def change(trainer: Trainer, plain: Path | None) -> None:
        size = trainer.model.config.hidden_size
        for head in getattr(trainer.model, EXIT_HEADS).values():
            head.adapter = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, size))
            _begin_as_nothing(head.adapter[-1])
            head.register_forward_pre_hook(lambda head, args: (args[0] + head.adapter(args[0]), *args[1:]))

    return change


def earlier_logits() -> Idea:
    """Every exit adds a linear map, that begins as nothing, of the logits of the one before it; no gradient goes back
    through them.
    """

    def change(trainer: Trainer, plain: Path | None) -> None:
        model = trainer.model
        labels = model.config.num_labels
        heads = [*getattr(model, EXIT_HEADS).values(), get_module(model, family_of(model.config).head_out)]
        said: dict[nn.Module, torch.Tensor] = {}
        for before, head in itertools.pairwise(heads):
            head.of_earlier = nn.Linear(labels, labels, bias=False)
            _begin_as_nothing(head.of_earlier)
            head.register_forward_hook(
                lambda head, args, logits, before=before: logits + head.of_earlier(said[before]).to(logits.dtype)
            )
        for head in heads:
            head.register_forward_hook(lambda head, args, logits: said.update({head: logits.detach().float()}))

    return change


def _begin_as_nothing(linear: nn.Linear) -> None:
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
