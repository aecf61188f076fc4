"""Fine-tuning the pretrained weights by one method, with one seed: SWEET, its baselines, and what else was tried."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from ideas import (
    Idea,
    adapters,
    earlier_logits,
    first_layer_held_to_plain,
    opening_cuts,
    rate_of_heads,
    rate_of_segments,
)
from record import pretrained
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from itrex_sweet import SweetCallback, save_artifact, save_cascade, train_multi_model
from itrex_sweet.artifact import Artifact
from itrex_sweet.training.peft_models import add_lora

MAX_LENGTH = 128


@dataclass(frozen=True)
class Method:
    """How exits are trained.

    Args:
        options: of `SweetCallback`.
        taught: whether every exit learns from the plain fine-tuning of the same rows with the same seed.
        begins_plain: whether training begins with its weights, instead of the pretrained ones.
        lora: rank of low-rank adapters to train instead of the whole model; 0 for none.
        idea: what else changes the Trainer before it trains.
        exportable: whether an artifact can be made of what comes out.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    taught: bool = False
    begins_plain: bool = False
    lora: int = 0
    idea: Idea | None = None
    exportable: bool = True

    @property
    def needs_plain(self) -> bool:
        """Whether a plain fine-tuning comes first."""
        return self.taught or self.begins_plain


def _after_plain(scale: Any, idea: Idea | None = None, **more: Any) -> Method:
    """Exits trained after the plain fine-tuning, with a share of the gradient through each cut."""
    return Method(dict(gradient_scale=scale, learn_to_exit=True), begins_plain=True, idea=idea, **more)


def _taught_too(scale: Any) -> Method:
    return Method(dict(gradient_scale=scale, distillation=0.7), taught=True, begins_plain=True)


MULTI_MODEL = "multi-model"
GRADED = (0.1, 0.3162, 1.0)  # for four exits: rises evenly in its logarithm
LOW = (0.01, 0.0316, 0.1)
# `None`: independent models. What exits learn of being right moves no other weight.
METHODS: dict[str, Method | None] = {
    MULTI_MODEL: None,
    "sweet": Method(dict(learn_to_exit=True)),
    "joint": Method(dict(mode="joint", learn_to_exit=True)),
    "paper": Method(dict(mode="paper", learn_to_exit=True)),
    "sweet+lora": Method(dict(learn_to_exit=True), lora=16),
    "joint+lora": Method(dict(mode="joint", learn_to_exit=True), lora=16),
    "after-cut-first": _after_plain("cut_first"),  # the recipe
    # What else was tried.
    "sweet+0.1": Method(dict(gradient_scale=0.1, learn_to_exit=True)),
    "sweet+0.1+teacher": Method(dict(gradient_scale=0.1, distillation=0.7), taught=True),
    "graded": Method(dict(gradient_scale=GRADED, learn_to_exit=True)),
    "opening": Method(dict(gradient_scale=LOW, learn_to_exit=True), idea=opening_cuts(LOW, GRADED)),
    "cut-first": Method(dict(gradient_scale="cut_first", learn_to_exit=True)),
    "after-joint": Method(dict(mode="joint", learn_to_exit=True), begins_plain=True),
    "after-0": _after_plain(0.0),
    "after-0.1": _after_plain(0.1),
    "after-0.1+teacher": _taught_too(0.1),
    "after-0.3": _after_plain(0.3),
    "after-0.3+teacher": _taught_too(0.3),
    "after-graded": _after_plain(GRADED),
    "after-cut-graded": _after_plain((0.0, *GRADED[1:])),
    "after-0.01-first": _after_plain((0.01, 1.0, 1.0)),
    "after-cut-first+teacher": _taught_too("cut_first"),
    "after-cut-first+agreement": Method(dict(gradient_scale="cut_first", distillation=0.7), begins_plain=True),
    "after-cut-first+first-x2": _after_plain("cut_first", rate_of_segments(2.0, 1.0, 1.0, 1.0)),
    "after-cut-first+first-x2-others-half": _after_plain("cut_first", rate_of_segments(2.0, 0.5, 0.5, 0.5)),
    "after-cut-first+heads-x10": _after_plain("cut_first", rate_of_heads(10.0)),
    "after-cut-first+held": _after_plain("cut_first", first_layer_held_to_plain(1.0)),
    "after-cut-first+adapters": _after_plain("cut_first", adapters(64), exportable=False),
    "after-cut-first+earlier": Method(
        dict(gradient_scale="cut_first"), begins_plain=True, idea=earlier_logits(), exportable=False
    ),
}


@dataclass(frozen=True)
class Settings:
    """The same for all methods.

    Args:
        exits: counts of layers.
        weights: a folder or hub id; `None` for the real weights of MiniLM-6.
        by_length: whether a batch holds texts of like length, which saves most of the padding.
    """

    exits: tuple[int, ...] = (1, 2, 4, 6)
    weights: str | None = None
    epochs: float = 3
    learning_rate: float = 1e-4
    batch_size: int = 32
    by_length: bool = False
    bf16: bool = False


@dataclass(frozen=True)
class FineTuned:
    """What came out.

    Args:
        artifact: written into the folder; `None` of what cannot be exported.
        model: with its exits on it; `None` of a cascade.
        seconds: of training, all of a cascade's models together.
    """

    artifact: Artifact | None
    model: torch.nn.Module | None
    seconds: float


def fine_tune(
    method: str,
    texts: Sequence[Any],
    labels: Sequence[int],
    seed: int,
    settings: Settings,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    plain: Path | None = None,
) -> FineTuned:
    """Trains and writes the artifact into a folder.

    Args:
        callbacks: more of them, after `SweetCallback`; not for Multi-Model.
        plain: a plain fine-tuning, for methods that need one: the folder of Multi-Model's full-depth model.
    """
    weights = settings.weights or pretrained()
    tokenizer = AutoTokenizer.from_pretrained(weights, model_max_length=MAX_LENGTH)
    dataset = Dataset.from_dict({**tokenizer(*columns_of(texts), truncation=True), "labels": list(labels)})
    collator = DataCollatorWithPadding(tokenizer)

    def make_model(start: Any) -> torch.nn.Module:
        set_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=len(set(labels)))
        if hasattr(model.config, "sweet"):
            del model.config.sweet  # a cascade's stage says of itself that it has one exit
        return model

    def make_trainer(model: torch.nn.Module, name: str, callbacks: list[TrainerCallback]) -> Trainer:
        arguments = TrainingArguments(
            output_dir=str(folder / "checkpoints" / name),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            train_sampling_strategy="group_by_length" if settings.by_length else "random",
            warmup_steps=20,
            seed=seed,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=settings.bf16,
            disable_tqdm=True,
        )
        return Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator, callbacks=callbacks)

    start = time.perf_counter()
    how = METHODS[method]
    if how is None:
        models = train_multi_model(
            make_model(weights), settings.exits, lambda model, exit_: make_trainer(model, f"exit-{exit_}", [])
        )
        seconds = time.perf_counter() - start
        return FineTuned(save_cascade(models, folder, tokenizer), None, seconds)
    teacher = {"teacher": AutoModelForSequenceClassification.from_pretrained(plain)} if how.taught else {}
    model = make_model(plain if how.begins_plain else weights)
    model = add_lora(model, how.lora) if how.lora else model
    sweet = SweetCallback(**{"exits": settings.exits, "mode": "sweet", **how.options, **teacher})
    trainer = make_trainer(model, "all", [sweet, *callbacks])
    if how.idea:
        how.idea(trainer, plain)
    trainer.train()
    seconds = time.perf_counter() - start
    artifact = save_artifact(trainer.model, folder, tokenizer) if how.exportable else None
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # without autocast
    return FineTuned(artifact, model, seconds)


def columns_of(texts: Sequence[Any]) -> list[list[str]]:
    """What a tokenizer takes: all first sentences, and of pairs all second ones."""
    return [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts, strict=True)]
