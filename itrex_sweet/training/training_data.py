"""Training data: tokenized examples for a Trainer, and the fingerprints and labels of a Trainer's data set."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.families import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENS, _MASK = "input_ids", "attention_mask"
_LABELS = ("labels", "label", "label_ids")  # the names that transformers' collators accept
_TEXTS_PER_CALL = 1000


def tokenize_examples(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Any],
    labels: Sequence[int] | None,
    max_length: int,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[dict[str, Any]]:
    """Tokenizes texts or pairs of texts into examples for a Trainer.

    Args:
        tokenizer: of the model.
        texts: texts, or pairs of texts.
        labels: one per text, or `None`.
        max_length: tokens per text; longer ones are truncated.
        progress: wraps an iterable and displays progress.
    """
    examples = []
    for start in progress(range(0, len(texts), _TEXTS_PER_CALL)):
        part = texts[start : start + _TEXTS_PER_CALL]
        for _, group in itertools.groupby(part, key=lambda text: isinstance(text, str)):
            rows = list(group)
            columns = (rows,) if isinstance(rows[0], str) else tuple(map(list, zip(*rows, strict=True)))
            encoded = tokenizer(*columns, truncation=True, max_length=max_length)
            examples += [{name: values[row] for name, values in encoded.items()} for row in range(len(rows))]
    if labels is not None:
        for example, label in zip(examples, labels, strict=True):
            example["label"] = label
    return examples


def grouped_by_length() -> dict[str, Any]:
    """Returns the TrainingArguments that put texts of similar length into a batch, which saves computing on padding.

    The name of the setting depends on the release of transformers.
    """
    from transformers import TrainingArguments

    if any(field.name == "train_sampling_strategy" for field in dataclasses.fields(TrainingArguments)):
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


def effective_max_length(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int | None) -> int:
    """Returns `max_length`, or the limit of the tokenizer or of the model's positions if that is lower.

    Raises:
        ConfigError: `max_length` has no room for a token of the text: tokenizers would not truncate.
    """
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_length is not None and max_length <= special:
        raise ConfigError(
            f"max_length={max_length}: texts have {special} special tokens, so at least {special + 1} are needed."
        )
    positions = getattr(model.config, "max_position_embeddings", None) or float("inf")
    skipped = (model.config.pad_token_id or 0) + 1 if family_of(model.config).positions_skip_padding else 0
    return int(min(max_length or float("inf"), tokenizer.model_max_length, positions - skipped))


def dataset_fingerprints(dataloader: Any) -> Fingerprints | None:
    """Computes fingerprints of the rows of a Trainer's data set, so that calibration can recognize training rows.

    Padding is left out where there is an attention mask.

    Returns:
        `None` unless the data is a `datasets.Dataset` or a list of mappings with token ids: iterating over any other
        data could change it, or take as long as training.
    """
    rows = _token_rows(getattr(dataloader, "dataset", None))
    return None if rows is None else Fingerprints.of(_without_padding(row) for row in rows)


def dataset_labels(dataloader: Any) -> list[Any]:
    """Returns the labels of the rows of a Trainer's data set: class indices, or vectors of multi-label classification.

    Raises:
        TrainingSetupError: the data is neither a `datasets.Dataset` nor a list of mappings, or has no label column:
            iterating over any other data could change it, or take as long as training.
    """
    dataset = getattr(dataloader, "dataset", None)
    if isinstance(dataset, list) and dataset and all(isinstance(row, Mapping) for row in dataset):
        name = next((name for name in _LABELS if all(name in row for row in dataset)), None)
        labels = None if name is None else [row[name] for row in dataset]
    else:
        columns = getattr(dataset, "column_names", None)
        name = next((name for name in _LABELS if isinstance(columns, list) and name in columns), None)
        labels = None if name is None else list(dataset.with_format(None)[name])
    if labels is None:
        raise TrainingSetupError(
            "class_weights='balanced' needs the training labels before training starts, which it reads only from a "
            f"datasets.Dataset or a list of mappings with one of the columns {', '.join(_LABELS)}: pass the weights as "
            "numbers, itrex_sweet.config.balanced_weights(labels, num_labels)."
        )
    return [list(label) if np.ndim(label) else int(label) for label in labels]


def _token_rows(dataset: Any) -> Iterable[Mapping[str, Any]] | None:
    if isinstance(dataset, list):
        return dataset if all(isinstance(row, Mapping) and _TOKENS in row for row in dataset) else None
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or _TOKENS not in columns or not hasattr(dataset, "__len__"):
        return None
    return dataset.select_columns([name for name in (_TOKENS, _MASK) if name in columns]).with_format(None)


def _without_padding(row: Mapping[str, Any]) -> np.ndarray:
    tokens = np.asarray(row[_TOKENS])
    return tokens[np.asarray(row[_MASK], dtype=bool)] if _MASK in row else tokens
