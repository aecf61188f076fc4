"""Adds exits to a fine-tuned classifier: trains them on unlabelled texts while the model is frozen."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.acceleration.agreement import Agreements, agreements_with_full_depth
from itrex_sweet.acceleration.checkpoint import Checkpoint, open_checkpoint, require_other_folder
from itrex_sweet.acceleration.traffic import (
    MIN_TRAINING_TEXTS,
    Traffic,
    check_enough_texts,
    read_traffic,
    warn_of_unknown_tokens,
)
from itrex_sweet.arguments import positive_number, whole_number
from itrex_sweet.artifact import Artifact, keep_exits, write_card
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.config import resolve_exits
from itrex_sweet.defaults import (
    DEFAULT_EPOCHS,
    DEFAULT_LEARNING_RATE,
    DEFAULT_TRAINING_BATCH_SIZE,
    DEFAULT_TRAINING_SEED,
)
from itrex_sweet.errors import ConfigError, NoGainError
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.plain_model import input_names
from itrex_sweet.evaluation.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

logger = logging.getLogger(__name__)

_EVALUATION_SHARE, _MIN_EVALUATION, _MAX_EVALUATION = 0.1, 100, 1000


@dataclass(frozen=True)
class AddedExits:
    """The result of `add_exits`.

    Args:
        artifact: in float32; the model's own tensors are those of the checkpoint.
        agreements: agreement of every trained exit with full depth, on held-out texts.
        rows: number of training texts.
    """

    artifact: Artifact
    agreements: Agreements
    rows: int

    @property
    def dropped(self) -> tuple[int, ...]:
        """Exits that learned nothing, and are not in the artifact."""
        return tuple(exit_ for exit_ in self.agreements.exits if exit_ not in self.artifact.exits)


def add_exits(
    model: str | os.PathLike | Checkpoint,
    data: Any,
    output: str | os.PathLike,
    *,
    exits: Iterable[int] | None = None,
    epochs: float = DEFAULT_EPOCHS,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    batch_size: int = DEFAULT_TRAINING_BATCH_SIZE,
    max_length: int | None = None,
    seed: int = DEFAULT_TRAINING_SEED,
    limit: int | None = None,
    **columns: Any,
) -> AddedExits:
    """Trains exits on a fine-tuned classifier with unlabelled texts, and saves the artifact.

    The model is frozen, and its weights, its own head included, do not change. Each exit learns the probabilities that
    the model predicts at full depth (distillation, Hinton et al. 2015, arXiv 1503.02531). Exits whose outputs do not
    depend on the text are dropped, with a warning; see `association.has_learned`.

    Args:
        model: folder of a Hugging Face classifier, or its name on the hub.
        data: a file or `datasets` name, a `datasets.Dataset`, or a list of texts or of pairs of texts. Labels are
            ignored and duplicates removed. A tenth of the texts evaluates the exits. Calibrate on other texts.
        output: folder of the artifact.
        exits: counts of layers; by default `config.default_exits`.
        epochs: passes over the texts.
        learning_rate: peak of a linear schedule; see `SweetConfig.exit_lr_multiplier`.
        batch_size: texts per training step.
        max_length: maximum number of tokens per text in training; by default the limit of the tokenizer and the model.
        seed: seed of the order of the texts, and of dropout.
        limit: maximum number of texts to read.
        columns: `text_column`, `pair_column`, `split`, `dataset_config`, as in `itrex_sweet.data.read_rows`.

    Raises:
        ArtifactError: the model cannot be loaded or is not a fine-tuned classifier, or the folder cannot be written.
        ConfigError: the model has exits already, its tokenizer does not fit, or a setting is invalid.
        UnsupportedModelError: a model that exits do not support.
        InputError: texts that cannot be read, or too few of them.
        NoGainError: the model predicts one label for all texts, or no exit learned anything.
    """
    epochs = positive_number("epochs", epochs)
    learning_rate = positive_number("learning_rate", learning_rate)
    batch_size, seed = whole_number("batch_size", batch_size, 1), whole_number("seed", seed, 0)
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    requested = resolve_exits(exits, checkpoint.depth)
    if len(requested) < 2:
        raise ConfigError(f"exits={requested}: name at least one exit before the last.")
    require_other_folder(checkpoint, Path(output))
    require_writable(Path(output))
    traffic = read_traffic(data, limit, **columns)
    check_enough_texts(traffic, MIN_TRAINING_TEXTS, "adding exits")
    classifier, tokenizer = checkpoint.load()
    warn_of_unknown_tokens(tokenizer, traffic.texts, traffic.source)
    train_examples, eval_examples = _examples(classifier, tokenizer, traffic, max_length, seed)
    with tempfile.TemporaryDirectory(prefix="itrex-sweet-") as scratch:
        trainer = _trainer(
            classifier, tokenizer, train_examples, requested, Path(scratch), epochs, learning_rate, batch_size, seed
        )
        trainer.train()
    agreements = agreements_with_full_depth(trainer.model, tokenizer, eval_examples, batch_size)
    if agreements.num_labels == 1:  # the other labels are rare
        logger.warning(
            "All %d evaluated texts get the same label. The exits are evaluated on the training texts as well; more "
            "texts give a better comparison.",
            agreements.rows,
        )
        all_examples = [*train_examples, *eval_examples]
        agreements = agreements_with_full_depth(trainer.model, tokenizer, all_examples, batch_size)
    kept = agreements.useful_exits()
    _check_gain(agreements, kept, traffic)
    artifact = _save(
        trainer.model,
        tokenizer,
        output,
        eval_examples,
        {
            "base_model": checkpoint.name,
            "data": Path(traffic.source).name,
            "method": "exits added to a frozen checkpoint, without labels",
            "exits": list(requested),
            "rows": len(train_examples),
            "epochs": epochs,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "seed": seed,
            "agreement_with_full_depth": agreements.to_dict(),
        },
    )
    if kept != requested:
        artifact = keep_exits(artifact, kept, output)
    write_card(artifact, render_card(artifact))
    return AddedExits(artifact, agreements, len(train_examples))


def _examples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, traffic: Traffic, max_length: int | None, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tokenizes the texts and splits them into training and evaluation examples."""
    from itrex_sweet.training.training_data import effective_max_length, tokenize_examples

    length = effective_max_length(tokenizer, model, max_length)

    def show_progress(places: Sequence[int]) -> Iterable[int]:
        return progress(places, "tokenizing", unit="batch")

    accepted = input_names(model)
    examples = [
        {name: values for name, values in example.items() if name in accepted}
        for example in tokenize_examples(tokenizer, traffic.texts, None, length, show_progress)
    ]
    order = np.random.default_rng(seed).permutation(len(examples))
    count = int(
        np.clip(round(_EVALUATION_SHARE * len(examples)), min(_MIN_EVALUATION, len(examples) // 4), _MAX_EVALUATION)
    )
    return [examples[place] for place in order[count:]], [examples[place] for place in order[:count]]


def _trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[dict[str, Any]],
    exits: tuple[int, ...],
    folder: Path,
    epochs: float,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Trainer:
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from itrex_sweet.training import SweetCallback

    callback = SweetCallback(exits, train="exits")
    callback.logs_diagnostics = False  # exits are evaluated below
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=0,
        lr_scheduler_type="linear",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        seed=seed,
        dataloader_pin_memory=torch.accelerator.is_available(),  # torch warns without one
    )
    return Trainer(
        model,
        arguments,
        train_dataset=examples,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[callback],
    )


def _check_gain(agreements: Agreements, kept: tuple[int, ...], traffic: Traffic) -> None:
    if agreements.num_labels == 1:
        raise NoGainError(
            f"the model predicts the same label for all {agreements.rows} texts of {traffic.source}, so there is "
            "nothing that exits could learn. Pass texts of the kind that the model was trained for."
        )
    dropped = [exit_ for exit_ in agreements.exits if exit_ not in kept]
    if len(kept) == 1:
        raise NoGainError(
            f"no exit learned anything: {agreements.describe(dropped)}. Train longer (epochs), with a higher "
            "learning_rate, or on more texts."
        )
    if unjudged := agreements.unjudged_exits():
        logger.warning(
            "%d of the %d evaluated texts get another answer than the most frequent one, too few to tell whether %s "
            "learned anything: kept. itrex-sweet calibrate does not use an exit that saves nothing; more texts with "
            "other answers tell.",
            agreements.others,
            agreements.rows,
            _listed(unjudged),
        )
    if dropped:
        logger.warning(
            "Dropped %s, which learned nothing: %s.",
            _listed(dropped),
            agreements.describe(dropped),
        )


def _listed(exits: Sequence[int]) -> str:
    return f"exit{'s' if len(exits) > 1 else ''} {', '.join(map(str, exits))}"


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: str | os.PathLike,
    eval_examples: list[dict[str, Any]],
    facts: dict[str, Any],
) -> Artifact:
    from itrex_sweet.training import attachment_of, save_artifact

    attachment_of(model).selected_by = Fingerprints.of(example["input_ids"] for example in eval_examples)
    return save_artifact(model, output, tokenizer, provenance=facts)
