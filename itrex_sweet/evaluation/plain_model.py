"""A plain Hugging Face classifier, run by transformers on the CPU: to compare with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.errors import ArtifactError, ConfigError, InputError, SweetError
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.families import family_of

_BATCH_SIZE = 32
_UNLIMITED = 1_000_000  # tokens; what tokenizers without a limit say is far above
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def load_plain_model(folder: Path) -> tuple[Any, Any]:
    """The classifier in a folder, in float32 and evaluation mode, and its tokenizer; no code of the folder is run.

    Raises:
        ArtifactError: it cannot be loaded, or is no fine-tuned classifier.
        ConfigError: it does not classify.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if not any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        # transformers would make an empty tokenizer, which knows no word.
        raise ArtifactError(f"{folder} has no tokenizer: save the one it was fine-tuned with there.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    # Files that are damaged, or made for another library, let transformers raise whatever its readers do.
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ArtifactError(f"{folder} cannot be loaded as a classifier: {reason}") from error
    if missing := sorted(info["missing_keys"]):
        raise ArtifactError(
            f"{folder} is no fine-tuned classifier: {missing[0]} is missing from its weights, and would be random."
        )
    if model.config.num_labels < 2 or getattr(model.config, "problem_type", None) == "regression":
        raise ConfigError(f"{folder} does not classify: it has {model.config.num_labels} output.")
    return model.float().eval(), tokenizer


def logits_of(model: Any, tokenizer: Any, texts: Sequence[Any]) -> np.ndarray:
    """(rows, labels) float32 of a plain model for texts or pairs of texts, rows of like lengths together.

    Raises:
        ConfigError: a tokenizer that cannot pad.
        InputError: a tokenizer of another model.
    """
    batches = sorted_batches(model, tokenizer, texts)
    logits = np.empty((len(texts), model.config.num_labels), dtype=np.float32)
    said = run_batches(model, progress(batches, "compared with", unit="batch"))
    for (rows, _), of_batch in zip(batches, said, strict=True):
        logits[rows] = of_batch.float().numpy()
    return logits


def sorted_batches(model: Any, tokenizer: Any, texts: Sequence[Any]) -> list[tuple[list[int], Any]]:
    """Texts or pairs of texts as padded batches of rows of like lengths: places of the rows, and the model's inputs.

    Raises:
        ConfigError: a tokenizer that cannot pad.
        InputError: a tokenizer of another model.
    """
    limits = [tokenizer.model_max_length, _positions(model.config)]
    limit = min((value for value in limits if value is not None and value < _UNLIMITED), default=None)
    options = dict(truncation=limit is not None, max_length=limit, verbose=False)
    taken = input_names(model)
    encoded: list[dict[str, list[int]]] = []
    for text in texts:
        parts = (text,) if isinstance(text, str) else tuple(text)
        encoded.append({name: ids for name, ids in tokenizer(*parts, **options).items() if name in taken})
    greatest = max(max(row["input_ids"], default=0) for row in encoded)
    if greatest >= (known := model.get_input_embeddings().num_embeddings):
        raise InputError(
            f"token id {greatest} of the tokenizer beside {model.name_or_path}: its model knows {known}. Is the "
            "tokenizer this model's own?"
        )
    if tokenizer.pad_token is None:
        raise ConfigError(f"the tokenizer of {model.name_or_path} has no padding token.")
    order = sorted(range(len(texts)), key=lambda row: len(encoded[row]["input_ids"]))
    parts = [order[start : start + _BATCH_SIZE] for start in range(0, len(order), _BATCH_SIZE)]
    return [(rows, tokenizer.pad([encoded[row] for row in rows], return_tensors="pt")) for rows in parts]


def run_batches(model: Any, batches: Iterable[tuple[list[int], Any]]) -> list[Any]:
    """Logits of each batch that `sorted_batches` made."""
    import torch

    with torch.inference_mode():
        return [model(**inputs).logits for _, inputs in batches]


def input_names(model: Any) -> set[str]:
    """Of what tokenizers give, the part that a model takes; a tokenizer without a class of its own gives all."""
    names = {"input_ids", "attention_mask"}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.add("token_type_ids")
    return names & set(inspect.signature(model.forward).parameters)


def _positions(config: Any) -> int | None:
    """Tokens that a model's positions allow."""
    positions = getattr(config, "max_position_embeddings", None)
    try:
        skipped = (config.pad_token_id or 0) + 1 if family_of(config).positions_skip_padding else 0
    except SweetError:  # a family that carries no exits may be compared with all the same
        skipped = 0
    return None if not positions or positions < 0 else positions - skipped
