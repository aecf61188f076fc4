"""Agreement of the native engine with the reference in INT8, for families that have no pretrained weights here.

    python benchmarks/family_agreement.py --families modernbert deberta-v2 bert --tasks sst2 ag_news

Trains a small model of each family (4 layers, hidden size 64) from random weights on real sentences, so that margins
are those of a trained model, quantizes it, and compares the labels of all exits on validation rows.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import provenance, read_task, write_result
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from itrex_sweet import SweetConfig, SweetModelForSequenceClassification, SweetQuantizer, attach, save_artifact
from itrex_sweet.demo.weights import pretrained_directory
from itrex_sweet.evaluation.outcomes import outputs_at_every_exit

MAX_TOKENS, BATCH, EXITS = 40, 16, (1, 2, 4)
SHAPE = dict(num_hidden_layers=4, hidden_size=64, num_attention_heads=4, intermediate_size=128)
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "modernbert": dict(cls_token_id=101, bos_token_id=101, sep_token_id=102, eos_token_id=102, local_attention=16),
    "deberta-v2": dict(
        type_vocab_size=0,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        position_buckets=32,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    ),
    "mpnet": dict(pad_token_id=1),  # of no word in these texts; texts are not padded at run time
    "nomic_bert": dict(type_vocab_size=2, rope_theta=10000.0),
    "gte": dict(type_vocab_size=2, rope_theta=10000.0),
    "eurobert": dict(bos_token_id=101, eos_token_id=102, num_key_value_heads=2, classifier_pooling="mean"),
    "roformer": {},
}
RECIPES = ("static", "dynamic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "ag_news"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rows", type=int, default=800, help="validation rows, the first ones")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    options = parser.parse_args()
    logging.getLogger("itrex_sweet").setLevel(logging.ERROR)
    results: dict[str, Any] = {}
    for family in options.families:
        for task in options.tasks:
            with tempfile.TemporaryDirectory() as folder:
                train(family, task, options.steps, Path(folder) / "float")
                texts, labels = read_task(task, "validation", options.rows)
                spare, _ = read_task(task, "train", 6000)
                found = {}
                for recipe in options.recipes:
                    quantizer = SweetQuantizer.from_pretrained(Path(folder) / "float")
                    quantizer.quantize(spare[-400:], Path(folder) / recipe, recipe, rows=200)
                    found[recipe] = compare(Path(folder) / recipe, texts, np.asarray(labels))
                    print(family, task, recipe, found[recipe], flush=True)
                results[f"{family} {task}"] = found
    settings = {"rows": options.rows, "steps": options.steps, "batch": BATCH, "shape": SHAPE}
    print(write_result("family_agreement", {**provenance(), "settings": settings, "results": results}))


def train(family: str, task: str, steps: int, folder: Path) -> None:
    """Trains a model with exits from random weights, and saves it."""
    tokenizer = AutoTokenizer.from_pretrained(pretrained_directory())
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    texts, labels = read_task(task, "train", 6000)
    torch.manual_seed(0)
    fields = dict(SHAPE, vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=0)
    config = AutoConfig.for_model(family, **{**fields, "num_labels": len(set(labels)), **FAMILIES[family]})
    model = AutoModelForSequenceClassification.from_config(config)
    attach(model, SweetConfig(exits=EXITS))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    order = np.random.default_rng(0).permutation(len(texts))
    for step in range(steps):
        rows = order[np.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
        inputs = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        loss = model(**inputs, labels=torch.tensor([labels[row] for row in rows])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    save_artifact(model, folder, tokenizer)


def compare(folder: Path, texts: list[str], labels: np.ndarray) -> dict[str, Any]:
    """Compares the labels (in percent) and logits of the native engine with those of the reference."""
    logits = {}
    for backend in ("torch", "native"):
        model = SweetModelForSequenceClassification.from_pretrained(folder, backend=backend)
        logits[backend] = outputs_at_every_exit(model.executor, model.read(texts))[0]
    reference, other = logits["torch"], logits["native"]
    same = reference.argmax(-1) == other.argmax(-1)
    ordered = np.sort(reference, axis=-1)
    margins = ordered[..., -1] - ordered[..., -2]
    return {
        "accuracy_per_exit": np.round(100 * (other.argmax(-1) == labels[:, None]).mean(0), 1).tolist(),
        "same_label_per_exit": np.round(100 * same.mean(0), 2).tolist(),
        "labels_that_differ": int((~same).sum()),
        "labels": int(same.size),
        "largest_margin_where_they_differ": None if same.all() else round(float(margins[~same].max()), 4),
        "median_margin": round(float(np.median(margins)), 4),
        "mean_difference_of_logits": round(float(np.abs(reference - other).mean()), 6),
    }


if __name__ == "__main__":
    main()
