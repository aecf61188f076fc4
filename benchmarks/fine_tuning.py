"""Fine-tuning the pretrained weights by one method, with one seed: SWEET, its baselines, and what lies between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
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

MULTI_MODEL = "multi-model"
# name → settings of SweetCallback; what exits learn of being right moves no other weight
METHODS: dict[str, dict[str, Any] | None] = {
    "sweet": dict(mode="sweet", learn_to_exit=True),
    "sweet+0.1": dict(mode="sweet", gradient_scale=0.1, learn_to_exit=True),
    "paper": dict(mode="paper", learn_to_exit=True),
    "joint": dict(mode="joint", learn_to_exit=True),
    "sweet+0.3": dict(mode="sweet", gradient_scale=0.3),
    "sweet+teacher": dict(mode="sweet", distillation=0.7),
    "sweet+0.1+teacher": dict(mode="sweet", gradient_scale=0.1, distillation=0.7),
    "sweet+0.1+last exit": dict(mode="sweet", gradient_scale=0.1, distillation=0.7),
    "joint+teacher": dict(mode="joint", distillation=0.7),
    MULTI_MODEL: None,
}


@dataclass(frozen=True)
class Settings:
    """The same for all methods."""

    exits: tuple[int, ...] = (1, 2, 4, 6)
    epochs: float = 3
    learning_rate: float = 1e-4
    batch_size: int = 32
    bf16: bool = False


def fine_tune(
    method: str,
    texts: Sequence[Any],
    labels: Sequence[int],
    seed: int,
    settings: Settings,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    teacher: Path | None = None,
) -> tuple[Artifact, float]:
    """Trains and writes the artifact into a folder.

    Args:
        callbacks: more of them, after `SweetCallback`; not for Multi-Model.
        teacher: folder of a fine-tuned model, for methods with distillation; the last exit if absent.

    Returns:
        the artifact, and seconds of training, all of a cascade's models together.
    """
    tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=128)
    columns = [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts, strict=True)]
    dataset = Dataset.from_dict({**tokenizer(*columns, truncation=True), "labels": list(labels)})
    num_labels = len(set(labels))

    def make_model() -> torch.nn.Module:
        set_seed(seed)
        return AutoModelForSequenceClassification.from_pretrained(pretrained(), num_labels=num_labels)

    def make_trainer(model: torch.nn.Module, name: str, callbacks: list[TrainerCallback]) -> Trainer:
        arguments = TrainingArguments(
            output_dir=str(folder / "checkpoints" / name),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            warmup_steps=20,
            seed=seed,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=settings.bf16,
            disable_tqdm=True,
        )
        collator = DataCollatorWithPadding(tokenizer)
        return Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator, callbacks=callbacks)

    start = time.perf_counter()
    if method == MULTI_MODEL:
        models = train_multi_model(
            make_model(), settings.exits, lambda model, exit_: make_trainer(model, f"exit-{exit_}", [])
        )
        seconds = time.perf_counter() - start
        return save_cascade(models, folder, tokenizer), seconds
    taught = {} if teacher is None else {"teacher": AutoModelForSequenceClassification.from_pretrained(teacher)}
    sweet = SweetCallback(exits=settings.exits, **METHODS[method], **taught)
    trainer = make_trainer(make_model(), "all", [sweet, *callbacks])
    trainer.train()
    seconds = time.perf_counter() - start
    return save_artifact(trainer.model, folder, tokenizer), seconds
