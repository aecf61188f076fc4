"""Writes one small artifact of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from itrex_sweet.artifact import write_artifact
from itrex_sweet.quantization.packing import quantizable_layers, word_embeddings
from tests.mutation import RawTensor, quantized_tensors
from tests.tiny_artifacts import tiny_artifact, tiny_cascade, tiny_tokenizer

EXITS = (1, 2)


def _float(family: str, **options: Any) -> Callable[[Path], None]:
    return lambda directory: tiny_artifact(directory, family, EXITS, tokenizer=tiny_tokenizer(family), **options)


def _int8(family: str, recipe: str, **options: Any) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        with TemporaryDirectory() as folder:
            artifact = tiny_artifact(Path(folder), family, EXITS, **options)
            layers, tables = quantizable_layers(artifact), [] if recipe == "dynamic" else [word_embeddings(artifact)]
            tensors = quantized_tensors(artifact.directory, recipe, layers, tables=tables)
        config = artifact.model_config()
        config.architectures = list(artifact.config["architectures"])
        write_artifact(
            directory,
            config=config,
            tensors={name: _torch(tensor) for name, tensor in tensors.items()},
            tokenizer=tiny_tokenizer(family),
            quantization={"recipe": recipe},
        )

    return make


def _torch(tensor: RawTensor) -> torch.Tensor:
    return torch.from_numpy(tensor.values)


# kind → writes it into a folder
KINDS: dict[str, Callable[[Path], None]] = {
    "bert": _float("bert"),
    "roberta": _float("roberta"),
    "distilbert": _float("distilbert"),
    "electra": _float("electra"),
    "deberta": _float("deberta"),
    "deberta-v3": _float("deberta-v3"),
    "deberta-v2-conv": _float("deberta-v2-conv"),
    "learned": _float("bert", learn_to_exit=True),
    "static": _int8("bert", "static"),
    "smooth": _int8("roberta", "smooth"),
    "dynamic": _int8("distilbert", "dynamic"),
    "deberta-static": _int8("deberta-v3", "static"),
    "decoupled": _float("bert", mode="decoupled"),
    "decoupled-deberta": _float("deberta-v2-conv", mode="decoupled"),
    "decoupled-static": _int8("distilbert", "static", mode="decoupled"),
    "cascade": lambda directory: tiny_cascade(directory, "bert", EXITS, tokenizer=tiny_tokenizer()),
}
WITHOUT_NATIVE: tuple[str, ...] = ()
