"""Distills a plain fine-tuned model into its own first layers: the static model that a user would train instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fine_tuning import MAX_LENGTH, columns_of
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup, set_seed

from itrex_sweet import SweetConfig, SweetModelForSequenceClassification, attach, save_artifact
from itrex_sweet.artifact import Artifact

EPOCHS, BATCH, RATE, WARM_UP = 2, 32, 3e-4, 20
SOFTENING, TEACHER_SHARE = 2.0, 0.5  # as the exits are trained
GROUPED = 50  # batches that are sorted by length together


def distill(plain: Path, teacher: Path, depth: int, texts: list[Any], labels: list[int], folder: Path) -> Path:
    """Trains a student of some layers on the labels and the teacher's softened probabilities, and saves it.

    It starts from the plain model's embeddings, which stay as they are, and from its first layers, pooler and head.

    Args:
        plain: folder of the plain model.
        teacher: float32 artifact of the same model, which runs it at full depth.
        depth: number of layers.
        texts: of the training.
        labels: of the texts.
        folder: to write to: `plain` and the artifact `float32`, as the folders of the teacher.

    Returns:
        the folder.
    """
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(plain, num_hidden_layers=depth)
    tokenizer = AutoTokenizer.from_pretrained(plain, model_max_length=MAX_LENGTH)
    rows = tokenizer(*columns_of(texts), truncation=True)
    targets = torch.from_numpy(teacher_logits(teacher, texts))
    truth = torch.tensor(labels)
    batches = batches_by_length([len(ids) for ids in rows["input_ids"]])
    model.base_model.embeddings.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, WARM_UP, len(batches))
    model.train()
    for step, places in enumerate(batches):
        inputs = tokenizer.pad({name: [rows[name][row] for row in places] for name in rows}, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits.float()
        expected = softmax(targets[places] / SOFTENING, dim=-1)
        teaching = kl_div(log_softmax(logits / SOFTENING, dim=-1), expected, reduction="batchmean") * SOFTENING**2
        loss = TEACHER_SHARE * teaching + (1 - TEACHER_SHARE) * cross_entropy(logits, truth[places])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            print(
                f"{folder.parent.name}, {depth} layers: step {step} of {len(batches)}, loss {loss.item():.3f}",
                flush=True,
            )
    model.eval().save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    attach(model, SweetConfig(exits=(depth,)))
    save_artifact(model, folder / "float32", tokenizer)
    return folder


def teacher_logits(teacher: Path, texts: list[Any]) -> np.ndarray:
    """Returns the logits of an artifact at full depth: (rows, labels) float32."""
    model = SweetModelForSequenceClassification.from_pretrained(teacher)
    return model.executor.run(model.read(texts, MAX_LENGTH), model.policy.with_threshold(1.0)).logits


def batches_by_length(lengths: list[int]) -> list[list[int]]:
    """Returns the batches of all epochs: shuffled rows, grouped by similar length as the Trainer does."""
    random = np.random.default_rng(0)
    batches: list[list[int]] = []
    for _ in range(EPOCHS):
        order = random.permutation(len(lengths))
        epoch = []
        for start in range(0, len(order), GROUPED * BATCH):
            group = sorted(order[start : start + GROUPED * BATCH].tolist(), key=lambda row: lengths[row])
            epoch += [group[place : place + BATCH] for place in range(0, len(group), BATCH)]
        batches += [epoch[place] for place in random.permutation(len(epoch))]
    return batches


def quantized(folder: Path, texts: list[Any], labels: list[int]) -> Artifact:
    """Returns the INT8 artifact of a student; quantizes it if it is missing."""
    from itrex_sweet import SweetQuantizer
    from itrex_sweet.artifact import open_artifact
    from itrex_sweet.data import Rows

    if not (folder / "int8" / "sweet_config.json").is_file():
        SweetQuantizer.from_pretrained(folder / "float32").quantize(Rows(texts, labels), folder / "int8")
    return open_artifact(folder / "int8")
