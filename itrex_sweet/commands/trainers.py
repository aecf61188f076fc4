"""Creates pretrained models and Trainers for `itrex-sweet train`."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands.training_plan import TrainingPlan
from itrex_sweet.config import BALANCED, SweetConfig, balanced_weights
from itrex_sweet.data import Rows
from itrex_sweet.errors import ConfigError, SweetError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

DEFAULT_MAX_LENGTH = 256  # tokens, as in the paper


def depth_of(name: str) -> int:
    """Returns the number of encoder layers of a pretrained model.

    Raises:
        SweetError: its config cannot be loaded.
        UnsupportedModelError: a family without exits.
    """
    from itrex_sweet.families import family_of

    config = load_pretrained("config", name)
    family_of(config)
    return config.num_hidden_layers


def load_pretrained(what: str, name: str, label_names: tuple[str, ...] | None = None) -> Any:
    """Loads the config, the tokenizer or the model of a name; converts the model to float32.

    Raises:
        SweetError: it cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from itrex_sweet.training.precision import to_float32

    if (Path(name) / "adapter_config.json").is_file():
        raise SweetError(
            f"{name} contains a PEFT adapter, not a model: merge it first, peft.AutoPeftModelForSequenceClassification"
            ".from_pretrained(FOLDER).merge_and_unload().save_pretrained(OTHER), and save the tokenizer there too."
        )
    try:
        if what == "config":
            return AutoConfig.from_pretrained(name, trust_remote_code=False)
        if what == "tokenizer":
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            name,
            trust_remote_code=False,
            num_labels=len(label_names),
            id2label=dict(enumerate(label_names)),
            label2id={label: place for place, label in enumerate(label_names)},
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
        )
        to_float32(model)
        return model
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SweetError(f"the {what} of {name} cannot be loaded: {reason[:300]}") from error


class TrainerFactory:
    """Creates Trainers with the same data and arguments for one or several models."""

    def __init__(
        self,
        args: argparse.Namespace,
        plan: TrainingPlan,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Rows,
        validation: Rows | None,
    ):
        from itrex_sweet.training.training_data import effective_max_length

        self.args, self.plan, self.tokenizer = args, plan, tokenizer
        self.class_weights = class_weights_for(args.class_weights, train)
        length = effective_max_length(tokenizer, model, args.max_length or DEFAULT_MAX_LENGTH)
        self.train = _tokenized(tokenizer, train, length)
        self.validation = None if validation is None else _tokenized(tokenizer, validation, length)

    def __call__(self, model: PreTrainedModel, folder: Path, callbacks: list[Any], plain: bool = False) -> Trainer:
        """Returns a Trainer; for a `plain` model, without exits, its loss function applies the class weights."""
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
            compute_loss_func=self._weighted_loss() if plain else None,
        )

    def _weighted_loss(self) -> Any:
        from itrex_sweet.training.label_loss import LabelLoss, trainer_loss

        if self.class_weights is None:
            return None
        return trainer_loss(LabelLoss(SweetConfig(class_weights=self.class_weights)))

    def _prepared(self, model: PreTrainedModel) -> Any:
        from itrex_sweet.training.peft_models import add_lora, freeze_backbone

        if self.args.freeze_backbone:
            return freeze_backbone(model)
        return add_lora(model, self.args.lora) if self.args.lora else model


def class_weights_for(requested: str | tuple[float, ...] | None, train: Rows) -> tuple[float, ...] | None:
    """Returns the weights of `--class-weights`, one per label.

    Raises:
        ConfigError: wrong number of weights, or `balanced` and a label without rows.
    """
    if requested is None:
        return None
    if requested == BALANCED:
        return balanced_weights(train.labels or [], train.num_labels)
    if len(requested) != train.num_labels:
        names = f" ({', '.join(train.label_names)})" if train.label_names else ""
        raise ConfigError(f"--class-weights: {len(requested)} weights for {train.num_labels} labels{names}.")
    return requested


def _tokenized(tokenizer: PreTrainedTokenizerBase, rows: Rows, length: int) -> list[dict[str, Any]]:
    from itrex_sweet.evaluation.progress import progress
    from itrex_sweet.training.training_data import tokenize_examples

    shown = functools.partial(progress, description="tokenizing", unit="batch")
    return tokenize_examples(tokenizer, rows.texts, rows.labels, length, shown)


def _accuracy(prediction: Any) -> dict[str, float]:
    logits: np.ndarray = (
        prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    )
    return {"accuracy": float((logits.argmax(axis=-1) == prediction.label_ids).mean())}
