"""Creates pretrained models and Trainers for `itrex-sweet train`."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands.training_plan import TrainingPlan
from itrex_sweet.config import BALANCED, SweetConfig, balanced_positive_weights, balanced_weights
from itrex_sweet.data import Rows
from itrex_sweet.errors import ConfigError, SweetError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, task_named, task_of

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

DEFAULT_MAX_LENGTH = 256  # tokens, as in the paper


TASK_OPTIONS = {"single-label": SINGLE_LABEL, "multi-label": MULTI_LABEL, "regression": REGRESSION}


def task_for(option: str | None, name: str) -> str:
    """Returns the task of a training: that of the option, or else the `problem_type` of the pretrained model's config.

    Raises:
        SweetError: the config cannot be loaded.
        ConfigError: an unknown `problem_type`.
    """
    if option is not None:
        return TASK_OPTIONS[option]
    problem_type = getattr(load_pretrained("config", name), "problem_type", None)
    return SINGLE_LABEL if problem_type is None else task_named(problem_type).name


def depth_of(name: str) -> int:
    """Returns the number of encoder layers of a pretrained model.

    Raises:
        SweetError: its config cannot be loaded.
        ConfigError: a config that no artifact can have.
        UnsupportedModelError: a family without exits.
    """
    from itrex_sweet.families import family_of
    from itrex_sweet.training.validation import check_model_config

    config = load_pretrained("config", name)
    config.problem_type, config.id2label = None, {0: "0", 1: "1"}  # those of the training may be others
    family_of(config)
    check_model_config(config)
    return config.num_hidden_layers


def load_pretrained(
    what: str,
    name: str,
    label_names: tuple[str, ...] | None = None,
    task: str = SINGLE_LABEL,
    is_fine_tuned: bool = False,
) -> Any:
    """Loads the config, the tokenizer or the model of a name; converts the model to float32.

    Args:
        what: `"config"`, `"tokenizer"` or `"model"`.
        name: a folder, or a name on the hub.
        label_names: of the model, by id.
        task: of the model.
        is_fine_tuned: the head has to be there, for these labels; otherwise a new one replaces it where it is not.

    Raises:
        SweetError: it cannot be loaded, or lacks weights of the encoder, or of the head of a fine-tuned model.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from itrex_sweet.artifact.config_spelling import missing_fields_of
    from itrex_sweet.training.precision import to_float32

    if (Path(name) / "adapter_config.json").is_file():
        raise SweetError(
            f"{name} contains a PEFT adapter, not a model: merge it first, peft.AutoPeftModelForSequenceClassification"
            ".from_pretrained(FOLDER).merge_and_unload().save_pretrained(OTHER), and save the tokenizer there too."
        )
    try:
        if what == "config":
            return AutoConfig.from_pretrained(name, trust_remote_code=False, **missing_fields_of(name))
        if what == "tokenizer":
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name,
            output_loading_info=True,
            trust_remote_code=False,
            num_labels=len(label_names),
            id2label=dict(enumerate(label_names)),
            label2id={label: place for place, label in enumerate(label_names)},
            problem_type=task,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
            **missing_fields_of(name),
        )
    except SweetError:
        raise
    # For corrupt files, transformers raises errors of any type.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise SweetError(f"the {what} of {name} cannot be loaded: {reason[:300]}") from error
    _check_weights(model, info, name, is_fine_tuned)
    to_float32(model)
    return model


def _check_weights(model: PreTrainedModel, info: dict[str, Any], name: str, is_fine_tuned: bool) -> None:
    """Checks that transformers has given random values to no weights but those of a new head.

    Raises:
        SweetError: names a weight.
    """
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    random = [(key, "is missing from its weights") for key in sorted(info["missing_keys"])]
    random += [(key, "has another shape than the model needs") for key in sorted(mismatched)]
    # Models that were pretrained for other tasks have no pooler.
    encoder, pooler = f"{model.base_model_prefix}.", f"{model.base_model_prefix}.pooler."
    needed = "a fine-tuned classifier with the labels of the data" if is_fine_tuned else "an undamaged copy"
    for key, reason in random:
        if is_fine_tuned or (key.startswith(encoder) and not key.startswith(pooler)):
            raise SweetError(f"{name} cannot be used: {key} {reason}. Pass {needed}.")


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
        self.task = task_of(model.config)
        self.class_weights = class_weights_for(args.class_weights, train, self.task.name)
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
            compute_metrics=_accuracy if self.task.name == SINGLE_LABEL else self._metrics,
            callbacks=callbacks,
            compute_loss_func=self._weighted_loss() if plain else None,
        )

    def _metrics(self, prediction: Any) -> dict[str, float]:
        from itrex_sweet.metrics import METRICS

        logits = prediction.predictions
        decisions = self.task.decisions(logits[0] if isinstance(logits, tuple) else logits)
        return {name: METRICS[name](decisions, prediction.label_ids) for name in self.task.metrics}

    def _weighted_loss(self) -> Any:
        from itrex_sweet.training.label_loss import LabelLoss, trainer_loss

        if self.class_weights is None:
            return None
        return trainer_loss(LabelLoss(SweetConfig(class_weights=self.class_weights), task=self.task))

    def _prepared(self, model: PreTrainedModel) -> Any:
        from itrex_sweet.training.peft_models import add_lora, freeze_backbone

        if self.args.freeze_backbone:
            return freeze_backbone(model)
        return add_lora(model, self.args.lora) if self.args.lora else model


def class_weights_for(
    requested: str | tuple[float, ...] | None, train: Rows, task: str = SINGLE_LABEL
) -> tuple[float, ...] | None:
    """Returns the weights of `--class-weights`, one per label.

    Raises:
        ConfigError: wrong number of weights, `balanced` and a label without rows, or a regression.
    """
    if requested is None:
        return None
    if task == REGRESSION:
        raise ConfigError("--class-weights: a regression has no classes; leave it out.")
    if requested == BALANCED and task == MULTI_LABEL:
        return balanced_positive_weights(train.labels or [], train.num_labels)
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
