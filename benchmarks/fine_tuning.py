"""Fine-tunes the pretrained weights with one method and one seed: SWEET, its baselines, and the two-stage recipe."""

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
from itrex_sweet.training.peft_models import add_lora

MAX_LENGTH = 128


@dataclass(frozen=True)
class Method:
    """A method to train exits.

    Args:
        options: arguments of `SweetCallback`.
        starts_from_plain: start from the plain fine-tuning of the same rows with the same seed, instead of the
            pretrained weights.
        lora: rank of low-rank adapters to train instead of the whole model; 0 for none.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    starts_from_plain: bool = False
    lora: int = 0


MULTI_MODEL = "multi-model"
RECIPE = "after-cut-first"
# `None`: independent models. `learn_to_exit` does not change other weights.
METHODS: dict[str, Method | None] = {
    MULTI_MODEL: None,
    "sweet": Method(dict(learn_to_exit=True)),
    "joint": Method(dict(mode="joint", learn_to_exit=True)),
    "paper": Method(dict(mode="paper", learn_to_exit=True)),
    "sweet+lora": Method(dict(learn_to_exit=True), lora=16),
    "joint+lora": Method(dict(mode="joint", learn_to_exit=True), lora=16),
    RECIPE: Method(dict(gradient_scale="cut_first", learn_to_exit=True), starts_from_plain=True),
}


@dataclass(frozen=True)
class Settings:
    """Training settings, the same for all methods.

    Args:
        exits: counts of layers.
        weights: a folder or hub id; `None` for the MiniLM weights that the demo uses.
        by_length: group texts of similar length in batches, which avoids most of the padding.
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
    """The result of `fine_tune`.

    Args:
        artifact: saved in the folder.
        seconds: duration of training, of all models for a cascade.
    """

    artifact: Artifact
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
    """Trains a model and saves the artifact in a folder.

    Args:
        method: a key of `METHODS`.
        texts: texts or pairs of texts.
        labels: one per text.
        seed: seed of the training.
        settings: the same for all methods.
        folder: of the artifact and the checkpoints.
        callbacks: more callbacks, after `SweetCallback`; not for Multi-Model.
        plain: folder of a plain fine-tuning, for methods that start from one.
    """
    weights = settings.weights or pretrained()
    tokenizer = AutoTokenizer.from_pretrained(weights, model_max_length=MAX_LENGTH)
    dataset = Dataset.from_dict({**tokenizer(*columns_of(texts), truncation=True), "labels": list(labels)})
    collator = DataCollatorWithPadding(tokenizer)

    def make_model(start: Any) -> torch.nn.Module:
        set_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=len(set(labels)))
        if hasattr(model.config, "sweet"):
            del model.config.sweet  # the stage of a cascade has settings with one exit
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
    chosen = METHODS[method]
    if chosen is None:
        models = train_multi_model(
            make_model(weights), settings.exits, lambda model, exit_: make_trainer(model, f"exit-{exit_}", [])
        )
        seconds = time.perf_counter() - start
        return FineTuned(save_cascade(models, folder, tokenizer), seconds)
    model = make_model(plain if chosen.starts_from_plain else weights)
    model = add_lora(model, chosen.lora) if chosen.lora else model
    sweet = SweetCallback(**{"exits": settings.exits, "mode": "sweet", **chosen.options})
    trainer = make_trainer(model, "all", [sweet, *callbacks])
    trainer.train()
    seconds = time.perf_counter() - start
    return FineTuned(save_artifact(trainer.model, folder, tokenizer), seconds)


def columns_of(texts: Sequence[Any]) -> list[list[str]]:
    """Returns the positional arguments of a tokenizer: the texts, or the first and the second texts of pairs."""
    return [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts, strict=True)]
