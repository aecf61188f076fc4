"""Writes artifacts of tiny random models with different random exit heads, without training."""

from __future__ import annotations

import copy
import json
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from itrex_sweet.artifact import Artifact, write_artifact, write_cascade
from itrex_sweet.artifact.layout import SETTINGS_FILE
from itrex_sweet.artifact.settings import write_settings
from itrex_sweet.config import SweetConfig
from itrex_sweet.families import EXIT_HEADS, family_of
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import REGRESSION, SINGLE_LABEL
from tests.tiny_models import tiny_model

WORDS = [
    "the",
    "a",
    "room",
    "phone",
    "soup",
    "was",
    "is",
    "not",
    "never",
    "good",
    "bad",
    "awful",
    "great",
    "fine",
    "slow",
    "quick",
    "cold",
    "warm",
    "but",
    "and",
    "again",
]  # of `tiny_tokenizer`


def model_and_tensors(
    family: str,
    exits: tuple[int, ...],
    num_labels: int = 3,
    seed: int = 0,
    learn_to_exit: bool = False,
    mode: str = "sweet",
    task: str = SINGLE_LABEL,
):
    """Returns a plain model, and its state dict with random heads and private layers for every exit but the last."""
    num_labels = 1 if task == REGRESSION else num_labels
    model = tiny_model(family, num_layers=exits[-1], num_labels=num_labels, seed=seed).eval()
    model.config.problem_type = None if task == SINGLE_LABEL else task
    row = family_of(model.config)
    generator = torch.Generator().manual_seed(seed + 1)
    tensors = {
        name: value.clone().contiguous() for name, value in model.state_dict().items() if value.is_floating_point()
    }
    for exit_ in exits[:-1]:
        for source, name in ((row.head_dense, "dense"), (row.head_out, "classifier")):
            module = attrgetter(source)(model)
            for part, own in module.named_parameters():
                tensors[f"{EXIT_HEADS}.{exit_}.{name}.{part}"] = 0.4 * torch.randn(own.shape, generator=generator)
        norms = zip(row.norm_paths(exits[-1], exits[-1]), row.norm_paths(exit_, exits[-1]), strict=True)
        for source, path in norms:
            for part, own in attrgetter(source)(model).named_parameters() if source else ():
                tensors[f"{path}.{part}"] = own.detach() + 0.4 * torch.randn(own.shape, generator=generator)
        if learn_to_exit:
            path = row.correctness_path(exit_)
            tensors[f"{path}.weight"] = torch.randn((1, module.weight.shape[1]), generator=generator)
            tensors[f"{path}.bias"] = torch.randn(1, generator=generator)
    settings = SweetConfig(exits=exits, mode=mode, learn_to_exit=learn_to_exit)
    if settings.has_private_layers:
        # Layers of another random model.
        others = tiny_model(family, num_layers=exits[-1], num_labels=num_labels, seed=seed + 100).state_dict()
        for exit_ in exits[:-1]:
            shared = f"{row.layers_path}.{exit_ - 1}."
            private = {name: value for name, value in others.items() if name.startswith(shared)}
            tensors |= {
                f"{row.private_layer_path(exit_)}.{name.removeprefix(shared)}": value.clone().contiguous()
                for name, value in private.items()
            }
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.sweet = settings.to_dict()
    return model, config, tensors


def tiny_artifact(
    directory: Path,
    family: str = "bert",
    exits: tuple[int, ...] = (1, 2, 4),
    tokenizer=None,
    policy: Policy | None = None,
    learn_to_exit: bool = False,
    mode: str = "sweet",
    task: str = SINGLE_LABEL,
) -> Artifact:
    """Writes an early-exit artifact of a tiny random model."""
    learn_to_exit = learn_to_exit or task == REGRESSION
    _, config, tensors = model_and_tensors(family, exits, learn_to_exit=learn_to_exit, mode=mode, task=task)
    return write_artifact(directory, config=config, tensors=tensors, tokenizer=tokenizer, policy=policy)


def tiny_cascade(
    directory: Path,
    family: str = "bert",
    exits: tuple[int, ...] = (1, 2, 4),
    tokenizer=None,
    task: str = SINGLE_LABEL,
) -> Artifact:
    """Writes a cascade of independent tiny random models."""
    stages = [model_and_tensors(family, (exit_,), seed=exit_, task=task)[1:] for exit_ in exits]
    return write_cascade(directory, stages=stages, tokenizer=tokenizer)


def sign(directory: Path, **changes: object) -> None:
    """Changes settings of an artifact, and updates its manifest and digest."""
    settings = json.loads((directory / SETTINGS_FILE).read_text())
    (directory / SETTINGS_FILE).unlink()
    write_settings(directory, {**settings, **changes})


def random_rows(rng: np.random.Generator, lengths: list[int], vocabulary: int = 90, first: int = 5) -> list[list[int]]:
    """Returns token ids of rows with the given lengths."""
    return [rng.integers(first, vocabulary, length).tolist() for length in lengths]


def tiny_tokenizer(family: str = "bert"):
    """Returns a word-level tokenizer of a few dozen words, with BERT's special tokens, as a fast tokenizer.

    For RoBERTa, whose models know one token type only, it makes no token types, as RoBERTa's own tokenizer.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: place for place, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {"model_input_names": ["input_ids", "attention_mask"]} if family == "roberta" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **names,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
