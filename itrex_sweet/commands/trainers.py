"""Pretrained models and Trainers for `itrex-sweet train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands.training_plan import TrainingPlan
from itrex_sweet.data import Rows
from itrex_sweet.errors import SweetError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer


def depth_of(name: str) -> int:
    """Encoder layers of a pretrained model.

    Raises:
        SweetError: its config cannot be loaded.
        UnsupportedModelError: a family without exits.
    """
    from itrex_sweet.families import family_of

    config = load_pretrained("config", name)
    family_of(config)
    return config.num_hidden_layers


def load_pretrained(what: str, name: str, label_names: tuple[str, ...] | None = None) -> Any:
    """The config, tokenizer or model of a name, or one line on why not."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    try:
        if what == "config":
            return AutoConfig.from_pretrained(name, trust_remote_code=False)
        if what == "tokenizer":
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return AutoModelForSequenceClassification.from_pretrained(
            name,
            num_labels=len(label_names),
            id2label=dict(enumerate(label_names)),
            label2id={label: place for place, label in enumerate(label_names)},
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
            trust_remote_code=False,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SweetError(f"the {what} of {name} cannot be loaded: {reason}") from error


class TrainerMaker:
    """Makes a Trainer for a model; every model gets the same data and arguments."""

    def __init__(
        self,
        args: argparse.Namespace,
        plan: TrainingPlan,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Rows,
        validation: Rows | None,
    ):
        self.args, self.plan, self.tokenizer = args, plan, tokenizer
        length = min(args.max_length, tokenizer.model_max_length, _longest(model))
        self.train = _tokenized(tokenizer, train, length)
        self.validation = None if validation is None else _tokenized(tokenizer, validation, length)

    def __call__(self, model: PreTrainedModel, folder: Path, callbacks: list[Any]) -> Trainer:
        import dataclasses

        from transformers import DataCollatorWithPadding, Trainer

        return Trainer(
            self._prepared(model),
            dataclasses.replace(self.plan.arguments, output_dir=str(folder)),
            train_dataset=self.train,
            eval_dataset=self.validation,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            processing_class=self.tokenizer,
            compute_metrics=_accuracy,
            callbacks=callbacks,
        )

    def _prepared(self, model: PreTrainedModel) -> Any:
        from itrex_sweet.training.methods import freeze_backbone, with_lora

        if self.args.freeze_backbone:
            return freeze_backbone(model)
        return with_lora(model, self.args.lora) if self.args.lora else model


def _longest(model: PreTrainedModel) -> float:
    """Tokens that a model's positions allow."""
    from itrex_sweet.families import family_of

    positions = getattr(model.config, "max_position_embeddings", None) or float("inf")
    skipped = (model.config.pad_token_id or 0) + 1 if family_of(model.config).positions_skip_padding else 0
    return positions - skipped


def _tokenized(tokenizer: PreTrainedTokenizerBase, rows: Rows, length: int) -> list[dict[str, Any]]:
    from itrex_sweet.evaluation.progress import progress

    examples = []
    for start in progress(range(0, len(rows), 1000), "tokenizing", unit="batch"):
        texts, labels = rows.texts[start : start + 1000], (rows.labels or [])[start : start + 1000]
        parts = (texts,) if isinstance(texts[0], str) else tuple(map(list, zip(*texts, strict=True)))
        encoded = tokenizer(*parts, truncation=True, max_length=length)
        examples += [
            {**{name: values[row] for name, values in encoded.items()}, "label": label}
            for row, label in enumerate(labels)
        ]
    return examples


def _accuracy(prediction: Any) -> dict[str, float]:
    logits: np.ndarray = (
        prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    )
    return {"accuracy": float((logits.argmax(axis=-1) == prediction.label_ids).mean())}
