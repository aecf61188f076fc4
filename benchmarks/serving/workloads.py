"""Texts with labels, as requests in the dialect of each server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from record import read_task

from serving.generator import http_request

LIMIT = 2000  # texts of a workload
MOST_TOKENS = 510  # of a text, without the two special ones
WORDS_PER_TOKEN = 0.72  # of the news texts, to join texts to a length
WORKLOADS = {"sst2": "SST-2", "ag_news": "AG News", "mixed": "8 to 512 tokens"}
TASKS = {"sst2": "sst2", "ag_news": "ag_news", "mixed": "ag_news"}  # the model that answers


@dataclass(frozen=True)
class Dialect:
    """Form of requests and answers of a server.

    Args:
        path: of the route.
        body: texts → JSON value.
        labels: JSON answer → the label of each text.
    """

    path: str
    body: Callable[[Sequence[str]], Any]
    labels: Callable[[Any], list[str]]


def _top(scores: list[dict[str, Any]]) -> str:
    return max(scores, key=lambda each: each["score"])["label"]


def _tei_labels(answer: Any) -> list[str]:
    return [_top(answer)] if answer and isinstance(answer[0], dict) else [_top(each) for each in answer]


DIALECTS = {
    "tei": Dialect(
        "/predict",
        lambda texts: {"inputs": texts[0] if len(texts) == 1 else [[text] for text in texts]},
        _tei_labels,
    ),
    "infinity": Dialect(
        "/classify",
        lambda texts: {"input": list(texts), "model": "model"},
        lambda answer: [_top(each) for each in answer["data"]],
    ),
    "plain": Dialect("/classify", lambda texts: {"texts": list(texts)}, lambda answer: answer["labels"]),
}


@cache
def texts_of(workload: str, tokenizer: Any = None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns the texts and labels of a workload.

    `mixed` joins news texts of one class to between 8 and 512 tokens, with lengths uniform in their logarithm;
    it needs the model's tokenizer, of the `tokenizers` library.
    """
    texts, labels = read_task(TASKS[workload], "validation", LIMIT)
    if workload != "mixed":
        return tuple(texts), tuple(labels)
    random = np.random.default_rng(0)
    by_class = {
        label: [text.split() for text, own in zip(texts, labels, strict=True) if own == label] for label in {*labels}
    }
    joined = []
    for label in labels:
        words: list[str] = []
        target = int(WORDS_PER_TOKEN * np.exp(random.uniform(np.log(8), np.log(512))))
        while len(words) < target:
            words += by_class[label][random.integers(len(by_class[label]))]
        joined.append(_cut(" ".join(words[: max(target, 3)]), tokenizer))
    return tuple(joined), tuple(labels)


def _cut(text: str, tokenizer: Any) -> str:
    """Returns a text without its tokens after the `MOST_TOKENS`th."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return text if len(encoding.ids) <= MOST_TOKENS else text[: encoding.offsets[MOST_TOKENS - 1][1]]


def requests_of(workload: str, dialect: str, size: int, tokenizer: Any = None) -> tuple[list[bytes], list[list[int]]]:
    """Returns HTTP requests of `size` texts each, and the true labels of each."""
    texts, labels = texts_of(workload, tokenizer)
    form = DIALECTS[dialect]
    requests, truths = [], []
    for start in range(0, len(texts) - size + 1, size):
        body = json.dumps(form.body(texts[start : start + size])).encode()
        requests.append(http_request(form.path, body))
        truths.append(list(labels[start : start + size]))
    return requests, truths


def score(load: Any, dialect: str, truths: list[list[int]], names: Sequence[str]) -> float:
    """Returns the accuracy of the answers of a load, in percent."""
    form, right, count = DIALECTS[dialect], 0, 0
    for request, status, body in zip(load.requests.tolist(), load.status.tolist(), load.bodies, strict=True):
        if status == 200:
            given = form.labels(json.loads(body))
            right += sum(names.index(label) == truth for label, truth in zip(given, truths[request], strict=True))
            count += len(given)
    return round(100 * right / count, 2) if count else float("nan")
