"""Fine-tuning the pretrained weights by one method, with one seed: SWEET, its baselines, and what lies between."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
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
from itrex_sweet.training.methods import with_lora

MAX_LENGTH = 128


@dataclass(frozen=True)
class Method:
    """How exits are trained.

    Args:
        options: of `SweetCallback`.
        taught: whether every exit learns from the plain fine-tuning of the same rows with the same seed.
        begins_plain: whether training begins with its weights, instead of the pretrained ones.
        lora: rank of low-rank adapters to train instead of the whole model; 0 for none.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    taught: bool = False
    begins_plain: bool = False
    lora: int = 0

    @property
    def needs_plain(self) -> bool:
        """Whether a plain fine-tuning comes first."""
        return self.taught or self.begins_plain


MULTI_MODEL = "multi-model"
GRADED = (0.1, 0.3162, 1.0)  # for four exits: rises evenly in its logarithm
# `None`: independent models. What exits learn of being right moves no other weight.
METHODS: dict[str, Method | None] = {
    MULTI_MODEL: None,
    "sweet": Method(dict(learn_to_exit=True)),
    "joint": Method(dict(mode="joint", learn_to_exit=True)),
    "paper": Method(dict(mode="paper", learn_to_exit=True)),
    "sweet+0.1": Method(dict(gradient_scale=0.1, learn_to_exit=True)),
    "sweet+0.1+teacher": Method(dict(gradient_scale=0.1, distillation=0.7), taught=True),
    "after-0": Method(dict(learn_to_exit=True), begins_plain=True),
    "after-0.1": Method(dict(gradient_scale=0.1, learn_to_exit=True), begins_plain=True),
    "after-0.3": Method(dict(gradient_scale=0.3, learn_to_exit=True), begins_plain=True),
    "after-0.1+teacher": Method(dict(gradient_scale=0.1, distillation=0.7), taught=True, begins_plain=True),
    "graded": Method(dict(gradient_scale=GRADED, learn_to_exit=True)),
    "after-graded": Method(dict(gradient_scale=GRADED, learn_to_exit=True), begins_plain=True),
    "cut-first": Method(dict(gradient_scale="cut_first", learn_to_exit=True)),
    "after-cut-first": Method(dict(gradient_scale="cut_first", learn_to_exit=True), begins_plain=True),
    "after-0.3+teacher": Method(dict(gradient_scale=0.3, distillation=0.7), taught=True, begins_plain=True),
    "after-joint": Method(dict(mode="joint", learn_to_exit=True), begins_plain=True),
    "sweet+lora": Method(dict(learn_to_exit=True), lora=16),
    "joint+lora": Method(dict(mode="joint", learn_to_exit=True), lora=16),
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


def fine_tune(
    method: str,
    texts: Sequence[Any],
    labels: Sequence[int],
    seed: int,
    settings: Settings,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    plain: Path | None = None,
) -> tuple[Artifact, float]:
    """Trains and writes the artifact into a folder.

    Args:
        callbacks: more of them, after `SweetCallback`; not for Multi-Model.
        plain: a plain fine-tuning, for methods that need one: the folder of Multi-Model's full-depth model.

    Returns:
        the artifact, and seconds of training, all of a cascade's models together.
    """
    weights = settings.weights or pretrained()
    tokenizer = AutoTokenizer.from_pretrained(weights, model_max_length=MAX_LENGTH)
    columns = [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts, strict=True)]
    dataset = Dataset.from_dict({**tokenizer(*columns, truncation=True), "labels": list(labels)})
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
        return save_cascade(models, folder, tokenizer), seconds
    teacher = {"teacher": AutoModelForSequenceClassification.from_pretrained(plain)} if how.taught else {}
    model = make_model(plain if how.begins_plain else weights)
    model = with_lora(model, how.lora) if how.lora else model
    sweet = SweetCallback(exits=settings.exits, **how.options, **teacher)
    trainer = make_trainer(model, "all", [sweet, *callbacks])
    trainer.train()
    seconds = time.perf_counter() - start
    return save_artifact(trainer.model, folder, tokenizer), seconds
