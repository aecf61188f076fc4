"""Accuracy of private layers of a rotary model: with the rotation and window of the layer that they copy, or without.

A private layer without rotation needs no keys (`(W_kᵀ q) · x_j`), and without a window the first token attends to the
whole text. A small ModernBERT is trained from scratch on a task, then the exits of each variant on the frozen model,
from the same initial weights, for several seeds.

    python -m benchmarks.rotary_private_layers --data ../shared/data --task ag_news
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from itrex_sweet.config import SweetConfig
from itrex_sweet.families.rotary import LayerPositions, inverse_frequencies, layer_positions
from itrex_sweet.runtime.rotary_attention import rotate
from itrex_sweet.training import attach, detach
from itrex_sweet.training.private_layer import PrivateLayer


class Variant(PrivateLayer):
    """A private layer of ModernBERT with or without the rotation and the window of the layer that it copies.

    Args:
        private: the layer to take the weights of.
        positions: of the copied layer.
        rotates, has_window: the variant.
    """

    def __init__(self, private: PrivateLayer, positions: LayerPositions, rotates: bool, has_window: bool):
        nn.Module.__init__(self)
        self.__dict__.update(private.__dict__)
        self.window = positions.window if has_window else None
        self.theta = positions.theta if rotates else None

    def forward(self, states: torch.Tensor, mask: torch.Tensor, generator=None, **_) -> torch.Tensor:
        first = states[:, 0]
        if self.window is not None:
            states, mask = states[:, : self.window + 1], mask[:, : self.window + 1]
        if "attention_norm" in self._paths:
            states = self._part("attention_norm")(states)
        projected = self._part("query_key_value")(states).unflatten(-1, (3, self._heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        if self.theta is not None:
            size = key.shape[-1]
            frequencies = torch.tensor(inverse_frequencies(self.theta, size))
            key = rotate(key, torch.arange(key.shape[2])[None], frequencies)
        context = nn.functional.scaled_dot_product_attention(query[:, :, :1], key, value, mask[:, None, None] != 0)
        attended = self._part("attention_output")(context.flatten(1)) + first
        return self._feed_forward(self._part("output_norm")(attended), generator) + attended


VARIANTS = {  # (rotation, window)
    "rotation and window": (True, True),
    "rotation, no window": (True, False),
    "window, no rotation": (False, True),
    "neither": (False, False),
}
PADDING, FIRST, UNKNOWN, WORDS = 0, 1, 2, 8000


def read(file: Path) -> tuple[list[list[str]], list[int]]:
    """Returns words and labels of a file of JSON lines."""
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row.get("sentence") or f"{row['sentence1']} | {row['sentence2']}" for row in rows]
    return [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts], [row["label"] for row in rows]


def batches(rows: list[list[int]], labels: list[int], size: int, generator: torch.Generator | None):
    """Yields padded batches of rows of similar length, in random order with a generator."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    places = range(len(parts)) if generator is None else torch.randperm(len(parts), generator=generator).tolist()
    for place in places:
        part = parts[place]
        ids = torch.full((len(part), max(len(rows[row]) for row in part)), PADDING)
        for at, row in enumerate(part):
            ids[at, : len(rows[row])] = torch.tensor(rows[row])
        yield {
            "input_ids": ids,
            "attention_mask": (ids != PADDING).long(),
            "labels": torch.tensor([labels[row] for row in part]),
        }


def train(model, rows, labels, epochs: int, rate: float, seed: int) -> None:
    """Trains what is not frozen, with a linear decay of the learning rate."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(rows) // 32)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 50) * (1 - step / steps))
    model.train()
    for _ in range(epochs):
        for batch in batches(rows, labels, 32, generator):
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


@torch.no_grad()
def accuracy(model, attachment, rows, labels) -> dict[int, float]:
    """Returns the accuracy of each exit."""
    model.eval()
    correct = Counter()
    for batch in batches(rows, labels, 64, None):
        model(**batch)
        for exit_, logits in attachment.exit_logits.items():
            correct[exit_] += int((logits.argmax(-1) == batch["labels"]).sum())
    return {exit_: correct[exit_] / len(rows) for exit_ in attachment.exits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", default="ag_news")
    parser.add_argument("--train-file", default="train")
    parser.add_argument("--train-rows", type=int, default=6000)
    parser.add_argument("--validation-rows", type=int, default=2000)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--window", type=int, default=16, help="local_attention; texts have about 40 tokens")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--exit-epochs", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()

    texts, labels = read(options.data / options.task / f"{options.train_file}.jsonl.gz")
    held_out, held_out_labels = read(options.data / options.task / "validation.jsonl.gz")
    counts = Counter(word for text in texts for word in text)
    ids = {word: place + 3 for place, (word, _) in enumerate(counts.most_common(WORDS - 3))}

    def encode(rows: list[list[str]]) -> list[list[int]]:
        return [[FIRST, *(ids.get(word, UNKNOWN) for word in row)][: options.max_length] for row in rows]

    rows, labels = encode(texts)[: options.train_rows], labels[: options.train_rows]
    held_out, held_out_labels = encode(held_out)[: options.validation_rows], held_out_labels[: options.validation_rows]
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        config = ModernBertConfig(
            vocab_size=WORDS,
            hidden_size=options.hidden,
            intermediate_size=options.hidden * 3 // 2,
            num_hidden_layers=options.layers,
            num_attention_heads=options.hidden // 32,
            local_attention=options.window,
            classifier_pooling=options.pooling,
            pad_token_id=PADDING,
            bos_token_id=FIRST,
            cls_token_id=FIRST,
            eos_token_id=UNKNOWN,
            sep_token_id=UNKNOWN,
            num_labels=max(labels) + 1,
            mlp_dropout=0.1,
            embedding_dropout=0.1,
        )
        model = ModernBertForSequenceClassification(config)
        start = time.perf_counter()
        train(model, rows, labels, options.epochs, 1e-3, seed)
        print(f"seed {seed}: trained in {time.perf_counter() - start:.0f} s", flush=True)
        exits = tuple(range(1, options.layers + 1))
        for name, (rotates, has_window) in VARIANTS.items():
            torch.manual_seed(seed)
            attachment = attach(model, SweetConfig(exits=exits, mode="decoupled", train="exits"))
            for exit_, head in model.sweet_exits.items():
                head.layer = Variant(head.layer, layer_positions(config, True)[int(exit_) - 1], rotates, has_window)
            train(model, rows, labels, options.exit_epochs, 1e-3, seed)
            found = accuracy(model, attachment, held_out, held_out_labels)
            print(json.dumps({"seed": seed, "variant": name, "accuracy": {k: round(v, 4) for k, v in found.items()}}))
            detach(model)


if __name__ == "__main__":
    main()
