"""Exits for a classifier that is fine-tuned already: its own weights stay, and no label is needed."""

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
from itrex_sweet.acceleration.checkpoint import Checkpoint, open_checkpoint
from itrex_sweet.acceleration.traffic import (
    LEAST_TO_LEARN,
    Traffic,
    read_traffic,
    refuse_too_few,
    warn_of_another_language,
)
from itrex_sweet.arguments import real_number, whole_number
from itrex_sweet.artifact import Artifact, keep_exits, write_card
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.config import resolve_exits
from itrex_sweet.errors import ConfigError, NoGainError
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.plain_model import input_names
from itrex_sweet.evaluation.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

logger = logging.getLogger(__name__)

EPOCHS, LEARNING_RATE, BATCH_SIZE = 3.0, 5e-5, 32
_JUDGED_SHARE, _LEAST_JUDGED, _MOST_JUDGED = 0.1, 100, 1000


@dataclass(frozen=True)
class AddedExits:
    """A classifier with exits added.

    Args:
        artifact: in float32; the model's own tensors are those of the checkpoint.
        agreements: of every exit that was trained, on texts that it did not learn from.
        rows: texts that the exits learned from.
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
    epochs: float = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH_SIZE,
    max_length: int | None = None,
    seed: int = 42,
    limit: int | None = None,
    **columns: Any,
) -> AddedExits:
    """Trains exits on a plain fine-tuned classifier with unlabelled texts, and writes the artifact.

    The model is frozen, and its weights, its own head included, are written as they are. Each exit learns the
    probabilities that the model gives at full depth (distillation, Hinton et al. 2015, arXiv 1503.02531). Exits that
    agree with the full model no better than its most frequent answer does are dropped, and named in a warning.

    Args:
        model: folder of a Hugging Face classifier, or its name on the hub.
        data: texts as they come: a file or `datasets` name, a `datasets.Dataset`, or a list of texts or of pairs.
            Labels are ignored, and of equal texts one is taken. A tenth judges the exits. Calibrate on other texts.
        output: folder of the artifact.
        exits: counts of layers; those of `config.default_exits` if absent.
        epochs: passes over the texts.
        learning_rate: peak of a linear schedule; see `SweetConfig.exit_lr_multiplier`.
        batch_size: texts in a training step.
        max_length: tokens per text in training at most; what the tokenizer and the model allow if absent.
        seed: of the order of the texts, and of dropout.
        limit: texts read at most.
        columns: `text_column`, `pair_column`, `split`, `dataset_config`, as in `itrex_sweet.data.read_rows`.

    Raises:
        ArtifactError: the model cannot be loaded, is no fine-tuned classifier, or the folder cannot be written.
        ConfigError: the model has exits already, its tokenizer does not fit it, or a setting is wrong.
        UnsupportedModelError: a model that cannot carry exits.
        InputError: texts that cannot be read, or too few.
        NoGainError: the model gives one answer to all texts, or no exit learned anything.
    """
    epochs = real_number("epochs", epochs, "a positive number")
    learning_rate = real_number("learning_rate", learning_rate, "a positive number")
    for name, value in (("epochs", epochs), ("learning_rate", learning_rate)):
        if not 0.0 < value < float("inf"):
            raise ConfigError(f"{name}={value}: a positive number.")
    batch_size, seed = whole_number("batch_size", batch_size, 1), whole_number("seed", seed, 0)
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    asked = resolve_exits(exits, checkpoint.depth)
    if len(asked) < 2:
        raise ConfigError(f"exits={asked}: name at least one exit before the last.")
    require_writable(Path(output))
    traffic = read_traffic(data, limit, **columns)
    refuse_too_few(traffic, LEAST_TO_LEARN, "adding exits")
    classifier, tokenizer = checkpoint.load()
    warn_of_another_language(tokenizer, traffic.texts, traffic.source)
    learned_from, judged = _examples(classifier, tokenizer, traffic, max_length, seed)
    with tempfile.TemporaryDirectory(prefix="itrex-sweet-") as scratch:
        trainer = _trainer(
            classifier, tokenizer, learned_from, asked, Path(scratch), epochs, learning_rate, batch_size, seed
        )
        trainer.train()
    agreements = agreements_with_full_depth(trainer.model, tokenizer, judged, batch_size)
    kept = agreements.learned()
    _refuse_no_gain(agreements, kept, traffic)
    artifact = _written(
        trainer.model,
        tokenizer,
        output,
        judged,
        {
            "base_model": checkpoint.name,
            "data": Path(traffic.source).name,
            "method": "exits added to a frozen checkpoint, without labels",
            "exits": list(asked),
            "rows": len(learned_from),
            "epochs": epochs,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "seed": seed,
            "agreement_with_full_depth": agreements.to_dict(),
        },
    )
    if kept != asked:
        artifact = keep_exits(artifact, kept, output)
    write_card(artifact, render_card(artifact))
    return AddedExits(artifact, agreements, len(learned_from))


def _examples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, traffic: Traffic, max_length: int | None, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Examples to learn from, and others to judge by."""
    from itrex_sweet.training.examples import examples_of, longest_allowed

    length = longest_allowed(tokenizer, model, max_length)

    def shown(places: Sequence[int]) -> Iterable[int]:
        return progress(places, "tokenizing", unit="batch")

    taken = input_names(model)
    examples = [
        {name: values for name, values in example.items() if name in taken}
        for example in examples_of(tokenizer, traffic.texts, None, length, shown)
    ]
    order = np.random.default_rng(seed).permutation(len(examples))
    count = int(np.clip(round(_JUDGED_SHARE * len(examples)), min(_LEAST_JUDGED, len(examples) // 4), _MOST_JUDGED))
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
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from itrex_sweet.training import SweetCallback

    callback = SweetCallback(exits, train="exits")
    callback.summarizes = False  # exits are judged below
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
    )
    return Trainer(
        model,
        arguments,
        train_dataset=examples,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[callback],
    )


def _refuse_no_gain(agreements: Agreements, kept: tuple[int, ...], traffic: Traffic) -> None:
    if agreements.answers == 1:
        raise NoGainError(
            f"the model gives all {agreements.rows} texts of {traffic.source} that were looked at the same label, so "
            "nothing shows what exits learn: are these texts of the kind that it was trained for?"
        )
    dropped = [exit_ for exit_ in agreements.exits if exit_ not in kept]
    if len(kept) == 1:
        raise NoGainError(
            f"no exit learned anything: {agreements.figures(dropped)}. Train longer (epochs), with a higher "
            "learning_rate, or on more texts."
        )
    if dropped:
        logger.warning(
            "Dropped exits %s, which learned nothing: %s.",
            ", ".join(map(str, dropped)),
            agreements.figures(dropped),
        )


def _written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: str | os.PathLike,
    judged: list[dict[str, Any]],
    facts: dict[str, Any],
) -> Artifact:
    from itrex_sweet.training import attachment_of, save_artifact

    attachment_of(model).selected_by = Fingerprints.of(example["input_ids"] for example in judged)
    return save_artifact(model, output, tokenizer, provenance=facts)
