"""Runs a plain Hugging Face classifier with transformers on the CPU, as a reference."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact.config_spelling import missing_fields_of
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, SweetError, UnsupportedModelError
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.families import family_of
from itrex_sweet.tasks import task_of

_BATCH_SIZE = 32
_UNLIMITED = 1_000_000  # tokens; tokenizers without a limit report a much larger number
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def load_plain_model(folder: Path) -> tuple[Any, Any]:
    """Loads the classifier in a folder, in float32 and evaluation mode, and its tokenizer, without remote code.

    Raises:
        ArtifactError: it cannot be loaded, or is not a fine-tuned classifier.
        ConfigError: it is not a classification model.
        UnsupportedModelError: the installed transformers cannot compute its positions.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if not any(path.is_file() for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)):
        # transformers would create a tokenizer with an empty vocabulary.
        raise ArtifactError(f"{folder} has no tokenizer: save the tokenizer of the fine-tuning there.")
    if not any(folder.glob("*.safetensors")) and (pickled := sorted(folder.glob("pytorch_model*.bin"))):
        raise ArtifactError(
            f"{folder} has its weights in {pickled[0].name}, a pickle file, which can run code when it is read, and no "
            "safetensors. If you trust the file, convert it once: "
            "AutoModelForSequenceClassification.from_pretrained(DIR).save_pretrained(DIR)."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **missing_fields_of(folder),
        )
    except UnsupportedModelError:
        raise
    # For corrupt files, transformers raises errors of any type.
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ArtifactError(f"{folder} cannot be loaded as a classifier: {reason}") from error
    if missing := sorted(info["missing_keys"]):
        raise ArtifactError(f"{folder} is not a fine-tuned classifier: {missing[0]} is missing from its weights.")
    task_of(model.config)  # refuses unknown tasks
    return model.float().eval(), tokenizer


def logits_of(model: Any, tokenizer: Any, texts: Sequence[Any]) -> np.ndarray:
    """Returns logits (rows, labels) float32 of a plain model for texts or pairs of texts.

    Raises:
        ConfigError: the tokenizer has no padding token.
        InputError: the tokenizer belongs to another model.
    """
    batches = sorted_batches(model, tokenizer, texts)
    logits = np.empty((len(texts), model.config.num_labels), dtype=np.float32)
    outputs = run_batches(model, progress(batches, "reference model", unit="batch"))
    for (rows, _), batch_logits in zip(batches, outputs, strict=True):
        logits[rows] = batch_logits.float().numpy()
    return logits


def sorted_batches(model: Any, tokenizer: Any, texts: Sequence[Any]) -> list[tuple[list[int], Any]]:
    """Tokenizes texts or pairs of texts into padded batches sorted by length: row indices, and the model's inputs.

    Raises:
        ConfigError: the tokenizer has no padding token.
        InputError: the tokenizer belongs to another model.
    """
    limits = [tokenizer.model_max_length, _positions(model.config)]
    limit = min((value for value in limits if value is not None and value < _UNLIMITED), default=None)
    options = dict(truncation=limit is not None, max_length=limit, verbose=False)
    accepted = input_names(model)
    encoded: list[dict[str, list[int]]] = []
    for text in texts:
        parts = (text,) if isinstance(text, str) else tuple(text)
        encoded.append({name: ids for name, ids in tokenizer(*parts, **options).items() if name in accepted})
    largest_id = max(max(row["input_ids"], default=0) for row in encoded)
    if largest_id >= (vocabulary := model.get_input_embeddings().num_embeddings):
        raise InputError(
            f"the tokenizer of {model.name_or_path} gives token id {largest_id}, but the model's vocabulary has "
            f"{vocabulary} tokens. Does the tokenizer belong to this model?"
        )
    if tokenizer.pad_token is None:
        raise ConfigError(f"the tokenizer of {model.name_or_path} has no padding token.")
    order = sorted(range(len(texts)), key=lambda row: len(encoded[row]["input_ids"]))
    parts = [order[start : start + _BATCH_SIZE] for start in range(0, len(order), _BATCH_SIZE)]
    return [(rows, tokenizer.pad([encoded[row] for row in rows], return_tensors="pt")) for rows in parts]


def run_batches(model: Any, batches: Iterable[tuple[list[int], Any]]) -> list[Any]:
    """Returns the logits of each batch of `sorted_batches`."""
    import torch

    with torch.inference_mode():
        return [model(**inputs).logits for _, inputs in batches]


def input_names(model: Any) -> set[str]:
    """Returns the names of tokenizer outputs that a model accepts."""
    names = {"input_ids", "attention_mask"}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.add("token_type_ids")
    return names & set(inspect.signature(model.forward).parameters)


def _positions(config: Any) -> int | None:
    """Returns the maximum number of tokens by the model's position embeddings; `None` without a limit."""
    positions = getattr(config, "max_position_embeddings", None)
    try:
        skipped = (config.pad_token_id or 0) + 1 if family_of(config).positions_skip_padding else 0
    except SweetError:  # an unsupported family can be a reference, too
        skipped = 0
    return None if not positions or positions < 0 else positions - skipped
