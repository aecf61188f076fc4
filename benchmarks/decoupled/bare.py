"""Trains three tasks beyond the paper's with a bare `SweetCallback`, and without it, and compares the two models.

    python benchmarks/decoupled/bare.py --seeds 0 1

The tasks are built from available text: the domain of a sentence (six labels, one for each research data set),
the module that a docstring belongs to (40 labels: modules of the standard library), and reviews of a dozen sentences
(long text). Each is trained twice with equal arguments and seed: by a plain `Trainer`, and with
`callbacks=[SweetCallback]`. The figures are the score of the plain model, whether the trunk is equal to it to the bit,
the score of every exit, and score and share of the layers under the policy that `save_artifact` stores, which is not
calibrated.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import random
import re
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from datasets import Dataset
from paper import store
from record import pretrained, provenance, read_task
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from itrex_sweet import SweetCallback, SweetModelForSequenceClassification, save_artifact
from itrex_sweet.training.attaching import attachment_of

TRAINED, TESTED = 4000, 1500  # rows
EPOCHS = 3
LEARNING_RATE = 1e-4
MAX_LENGTH = 384
SENTENCES = 12  # of a review

Rows = list[tuple[str, int]]


def domains() -> Rows:
    """Returns sentences, labelled with their data set."""
    rows = []
    for label, (task, field) in enumerate(
        [("ag_news", 0), ("cola", 0), ("sst2", 0), ("mnli", 0), ("qnli", 1), ("rte", 0)]
    ):
        texts, _ = read_task(task, "train", 1500)
        rows += [(text if isinstance(text, str) else text[field], label) for text in texts]
    return rows


def modules() -> Rows:
    """Returns docstrings of the standard library, without the module's name, labelled with their module."""
    docstrings: dict[str, list[str]] = defaultdict(list)
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        module = path.relative_to(library).parts[0].removesuffix(".py")
        if module in ("test", "site-packages", "idlelib", "lib2to3", "turtledemo", "__phello__"):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                paragraph = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")[0]
                text = re.sub(rf"\b{re.escape(module)}\b", "", " ".join(paragraph.split()), flags=re.IGNORECASE)
                if len(text.split()) >= 4:
                    docstrings[module].append(text)
    largest = sorted(docstrings, key=lambda name: (-len(set(docstrings[name])), name))[:40]
    return [(text, label) for label, module in enumerate(largest) for text in sorted(set(docstrings[module]))[:250]]


def reviews() -> Rows:
    """Returns texts of a dozen film-review sentences, labelled with the sentiment of two thirds or more of them."""
    texts, labels = read_task("sst2", "train_20k")
    of_label = {label: [text for text, each in zip(texts, labels, strict=True) if each == label] for label in (0, 1)}
    rng = random.Random(0)
    rows = []
    for place in range(TRAINED + TESTED):
        label = place % 2
        mostly = rng.randint(SENTENCES * 2 // 3, SENTENCES)
        sentences = rng.sample(of_label[label], mostly) + rng.sample(of_label[1 - label], SENTENCES - mostly)
        rng.shuffle(sentences)
        rows.append((" . ".join(sentences), label))
    return rows


BUILT: dict[str, Callable[[], Rows]] = {"domain": domains, "module": modules, "review": reviews}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=BUILT, default=list(BUILT))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--gpu", action="store_true", help="train on the GPU; scores are always computed on the CPU")
    parser.add_argument("--again", action="store_true", help="replace results")
    parser.add_argument(
        "--without-plain",
        action="store_true",
        help="train the model with exits only; its last exit is taken for the plain model, which tests prove",
    )
    options = parser.parse_args()
    for seed in options.seeds:
        for task in options.tasks:
            name = f"bare-{task}-{seed}"
            if options.again or name not in store.read(store.DECOUPLED):
                store.add(name, one(task, seed, options.gpu, not options.without_plain), store.DECOUPLED)


def one(task: str, seed: int, gpu: bool, with_plain: bool = True) -> dict[str, Any]:
    """Trains both models of a task and returns their figures.

    Args:
        task, seed, gpu: as on the command line.
        with_plain: also train the plain model.
    """
    rows = BUILT[task]()
    random.Random(seed).shuffle(rows)
    test, train = rows[:TESTED], rows[TESTED : TESTED + TRAINED]
    tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=MAX_LENGTH)
    settings = {
        "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "rows": len(train),
        "tested": len(test),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
    }
    labels_of_task = len({label for _, label in rows})
    plain, plain_seconds = trained(tokenizer, train, labels_of_task, seed, [], gpu) if with_plain else (None, 0.0)
    model, seconds = trained(tokenizer, train, labels_of_task, seed, [SweetCallback], gpu)
    with tempfile.TemporaryDirectory() as folder:
        save_artifact(model, folder, tokenizer)
        sweet = SweetModelForSequenceClassification.from_pretrained(folder)
        exits = model.config.sweet["exits"]
        texts, labels = [text for text, _ in test], np.array([label for _, label in test])
        answers = sweet.predict(texts)
        layers = float(np.mean([answer["exit_layer"] for answer in answers])) / exits[-1]
    score = accuracies(model, tokenizer, texts, labels)
    if plain is None:
        of_plain = {"plain": score["last"], "equal to the bit": None}
    else:
        theirs, ours = plain.state_dict(), model.state_dict()
        of_plain = {
            "plain": accuracies(plain, tokenizer, texts, labels)["last"],
            "equal to the bit": all(torch.equal(theirs[name], ours[name]) for name in theirs),
        }
    stored = float(np.mean([sweet.config.label2id[answer["label"]] for answer in answers] == labels))
    result = {
        **provenance(),
        "run": f"bare-{task}-{seed}",
        "settings": settings,
        "first attention": "even",
        "labels": labels_of_task,
        "tokens": round(float(np.mean([len(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]])), 1),
        **of_plain,
        "score": {**score, "stored policy": round(stored, 5)},
        "share of the layers": round(layers, 4),
        "seconds": {**({"plain": round(plain_seconds, 1)} if with_plain else {}), "bare": round(seconds, 1)},
    }
    print(json.dumps({name: result[name] for name in list(result)[4:]}), flush=True)
    return result


def trained(
    tokenizer: Any, rows: Rows, labels: int, seed: int, callbacks: list, gpu: bool
) -> tuple[torch.nn.Module, float]:
    """Fine-tunes a model, and returns it with the duration in seconds."""
    texts, classes = zip(*rows, strict=True)
    dataset = Dataset.from_dict({**tokenizer(list(texts), truncation=True), "labels": list(classes)})
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(pretrained(), num_labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=16,
            train_sampling_strategy="group_by_length",
            seed=seed,
            save_strategy="no",
            report_to="none",
            use_cpu=not gpu,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=callbacks,
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        return trainer.model.cpu(), seconds


@torch.inference_mode()
def accuracies(model: torch.nn.Module, tokenizer: Any, texts: list[str], labels: np.ndarray) -> dict[str, float]:
    """Returns the accuracy of every exit, and that of the model's own head as "last"."""
    model.eval()
    correct: dict[str, int] = defaultdict(int)
    for start in range(0, len(texts), 32):
        batch = tokenizer(texts[start : start + 32], truncation=True, padding=True, return_tensors="pt")
        logits = {"last": model(**batch).logits}
        if hasattr(model.config, "sweet"):
            logits |= {str(exit_): each for exit_, each in attachment_of(model).exit_logits.items()}
        for name, each in logits.items():
            correct[name] += int((each.argmax(-1).numpy() == labels[start : start + 32]).sum())
    return {name: round(count / len(texts), 5) for name, count in correct.items()}


if __name__ == "__main__":
    main()
