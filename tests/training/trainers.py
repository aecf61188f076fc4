"""Small trainers on random data, for tests of the callback."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from itrex_sweet.training import SweetCallback
from tests.tiny_models import tiny_batch, tiny_model

EXITS = (1, 3, 4)


class Rows(torch.utils.data.Dataset):
    """A data set of random rows whose second token gives the label."""

    def __init__(self, rows: int = 16, seed: int = 0, labelled: bool = True):
        self.batch = tiny_batch(rows=rows, length=8, seed=seed, padded=False)
        self.batch["input_ids"][:, 1] = 10 + self.batch["labels"]
        if not labelled:
            del self.batch["labels"]

    def __len__(self) -> int:
        return len(self.batch["input_ids"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: value[row] for name, value in self.batch.items()}


def make_trainer(model: Any, folder: Any, callback: Any = None, rows: int = 16, **settings: Any) -> Trainer:
    """Creates a silent Trainer with the callback, on the CPU. `settings`: training arguments, or the Trainer's own."""
    trainer_arguments = {
        name: settings.pop(name)
        for name in ("optimizers", "compute_metrics", "compute_loss_func", "eval_dataset", "model_init")
        if name in settings
    }
    callbacks = [SweetCallback(exits=EXITS) if callback is None else callback]
    args = TrainingArguments(
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "report_to": "none",
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 5,
            "num_train_epochs": 1,
            "learning_rate": 1e-2,
            "save_strategy": "no",
            "logging_steps": 2,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **settings,
        }
    )
    trainer_arguments.setdefault("eval_dataset", Rows(rows=13, seed=1))
    return Trainer(model=model, args=args, train_dataset=Rows(rows), callbacks=callbacks, **trainer_arguments)


def trained(
    folder: Any, callback: Any = None, model: Any = None, resume: str | None = None, **settings: Any
) -> Trainer:
    """Runs a short training with dropout, weight decay and clipping, without exits unless there is a callback."""
    model = tiny_model(dropout=0.1) if model is None else model
    defaults = {"rows": 12, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_steps": 1, "max_grad_norm": 0.1}
    trainer = make_trainer(model, folder, callback or TrainerCallback(), **{**defaults, **settings})
    trainer.train(resume_from_checkpoint=resume)
    return trainer
