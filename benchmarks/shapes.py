"""Artifacts of common shapes with random weights, for measurements of speed."""

from __future__ import annotations

import numpy as np
import torch
from record import RUNS
from transformers import BertConfig, BertForSequenceClassification

from itrex_sweet import SweetConfig, attach, save_artifact
from itrex_sweet.artifact import Artifact, open_artifact, write_artifact
from itrex_sweet.families import EXIT_HEADS
from itrex_sweet.quantization.observation import observe
from itrex_sweet.quantization.packing import pack, word_embeddings
from itrex_sweet.runtime.ragged import TokenBatch

SHAPES = {
    "BERT-base": dict(num_hidden_layers=12, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "MiniLM-6": dict(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536),
}
DEFAULT_MODE = SweetConfig().mode
EXITS = {"BERT-base": (1, 4, 6, 12), "MiniLM-6": (1, 2, 4, 6)}


def random_artifact(name: str, mode: str = DEFAULT_MODE) -> Artifact:
    """Returns an INT8 artifact of a shape, calibrated by Neural Compressor on random rows and cached.

    The float32 model is in `float32` beside it.

    Args:
        name: key of `SHAPES`.
        mode: `SweetConfig.mode`; exits have private layers in the default mode, and share them in the others.
    """
    folder = RUNS / "shapes" / (name if mode == DEFAULT_MODE else f"{name}-{mode}")
    if (folder / "int8" / "sweet_config.json").is_file():
        return open_artifact(folder / "int8")
    torch.manual_seed(0)
    # CTranslate2 needs the kind of positions, which transformers 5 no longer writes.
    config = BertConfig(vocab_size=30522, num_labels=2, position_embedding_type="absolute", **SHAPES[name])
    model = BertForSequenceClassification(config)
    attach(model, SweetConfig(exits=EXITS[name], mode=mode))
    source = save_artifact(model, folder / "float32")
    rows = random_batch(source, 16, 64)
    observed = observe(source, rows, "static")
    provenance = {"recipe": "static", "calibration": "random rows"}
    tensors = pack(source.tensors(), observed.linears, tables=[word_embeddings(source)])
    return write_artifact(folder / "int8", config=model.config, tensors=tensors, quantization=provenance)


def random_batch(artifact: Artifact, rows: int, length: int) -> TokenBatch:
    """Returns random rows of equal length."""
    ids = np.random.default_rng(0).integers(1000, artifact.config["vocab_size"], (rows, length))
    return TokenBatch.from_rows(ids.tolist())


def without_exits(artifact: Artifact) -> Artifact:
    """Returns the same layers with the last exit only, cached in a folder beside the artifact."""
    folder = artifact.directory.parent / f"{artifact.directory.name}-last-exit-only"
    if (folder / "sweet_config.json").is_file():
        return open_artifact(folder)
    config = artifact.model_config()
    config.sweet = {**config.sweet, "exits": [artifact.exits[-1]]}
    tensors = {name: tensor for name, tensor in artifact.tensors().items() if not name.startswith(f"{EXIT_HEADS}.")}
    return write_artifact(folder, config=config, tensors=tensors, quantization=artifact.quantization)
