"""Texts as examples for a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from itrex_sweet.errors import ConfigError
from itrex_sweet.families import family_of
from itrex_sweet.training.refusals import refuse_large_tokenizer

_AT_ONCE = 1000


def examples_of(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Any],
    labels: Sequence[int] | None,
    length: int,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[dict[str, Any]]:
    """Tokenizes texts or pairs of texts.

    Args:
        labels: of the texts, if there are any.
        length: tokens per text at most; longer ones are cut.
        progress: shows how far an iteration has come.
    """
    examples = []
    for start in progress(range(0, len(texts), _AT_ONCE)):
        part = texts[start : start + _AT_ONCE]
        parts = (list(part),) if isinstance(part[0], str) else tuple(map(list, zip(*part, strict=True)))
        encoded = tokenizer(*parts, truncation=True, max_length=length)
        examples += [{name: values[row] for name, values in encoded.items()} for row in range(len(part))]
    if labels is not None:
        for example, label in zip(examples, labels, strict=True):
            example["label"] = label
    return examples


def longest_allowed(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, length: int | None) -> int:
    """A number of tokens per text, or fewer where the tokenizer's limit or the model's positions allow no more."""
    positions = getattr(model.config, "max_position_embeddings", None) or float("inf")
    skipped = (model.config.pad_token_id or 0) + 1 if family_of(model.config).positions_skip_padding else 0
    return int(min(length or float("inf"), tokenizer.model_max_length, positions - skipped))


def refuse_unfit_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Refuses a tokenizer that would fail on a batch.

    Raises:
        ConfigError: more tokens than the model has embeddings for, or no token to pad with.
    """
    refuse_large_tokenizer(tokenizer, model)
    if tokenizer.pad_token is None:
        raise ConfigError("the tokenizer has no padding token, so texts of different lengths make no batch: set one.")
