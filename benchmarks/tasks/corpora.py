"""Builds two multi-label data sets and one of a regression from the labelled texts of AG News and SST-2.

Both are made of short pieces of real texts, each with the label that people gave it. A row joins several pieces, so
that a model has to recognize every piece among the others, and to aggregate them:

- `news`: one to three pieces, each the first words of a news article of AG News. The labels of a row are the topics of
  its articles: four labels, one to three of which apply.
- `topics`: two or three pieces, each the first words of a news article of AG News or a phrase of a film review of
  SST-2. The labels of a row are the topics of its articles and the sentiments of its reviews: six labels, any set.
- `rating`: two to five phrases of SST-2. The value is the share of words in positive phrases, scaled to 0 to 5, the
  range of STS-B.

Labels of single pieces are noisy, as they are in SST-2, and first words of an article often do not show its topic.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from record import read_task

NEWS, TOPICS, RATING = "news", "topics", "rating"
TOPIC_LABELS = ("World", "Sports", "Business", "Sci/Tech", "bad film", "good film")

_TRAINING_PIECES = {"ag_news": 4000, "sst2": 8000}  # the first of `train_20k`; the others are held out
_NEWS_WORDS, _MORE_NEWS_WORDS = 12, 16  # of an article in `topics` and in `news`
_NEWS_SHARE = 0.65
_PHRASE_WORDS = (3, 14)
_MAX_VALUE = 5.0


@dataclass(frozen=True)
class Corpus:
    """Rows of one data set.

    Args:
        texts: one per row.
        labels: (rows, 4) ones and zeros of `news`, (rows, 6) of `topics`, or (rows,) values of `rating`; float32.
    """

    texts: list[str]
    labels: np.ndarray


def corpus(name: str, rows: int, held_out: bool) -> Corpus:
    """Returns rows of `news`, `topics` or `rating`; no piece of a training row is in a held-out row."""
    random = np.random.default_rng(1 if held_out else 0)
    news, phrases = _pieces("ag_news", held_out, random), _pieces("sst2", held_out, random)
    texts, labels = [], []
    for _ in range(rows):
        if name == RATING:
            text, label = _rating(phrases, random)
        else:
            text, label = _news(news, random) if name == NEWS else _topics(news, phrases, random)
        texts.append(text)
        labels.append(label)
    return Corpus(texts, np.array(labels, dtype=np.float32))


def _news(news: Iterator, random: np.random.Generator) -> tuple[str, np.ndarray]:
    parts, label = [], np.zeros(4)
    for _ in range(random.integers(1, 3, endpoint=True)):
        text, topic = next(news)
        parts.append(" ".join(text.split()[:_MORE_NEWS_WORDS]))
        label[topic] = 1
    return " ; ".join(parts), label


def _topics(news: Iterator, phrases: Iterator, random: np.random.Generator) -> tuple[str, np.ndarray]:
    parts, label = [], np.zeros(len(TOPIC_LABELS))
    for _ in range(random.integers(2, 3, endpoint=True)):
        is_news = random.random() < _NEWS_SHARE
        text, given = next(news if is_news else phrases)
        parts.append(" ".join(text.split()[:_NEWS_WORDS]) if is_news else text)
        label[given if is_news else 4 + given] = 1
    return " ; ".join(parts), label


def _rating(phrases: Iterator, random: np.random.Generator) -> tuple[str, float]:
    parts = [next(phrases) for _ in range(random.integers(2, 5, endpoint=True))]
    words = np.array([len(text.split()) for text, _ in parts])
    is_positive = np.array([label for _, label in parts])
    return " ; ".join(text for text, _ in parts), float(_MAX_VALUE * (words * is_positive).sum() / words.sum())


def _pieces(task: str, held_out: bool, random: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Yields pieces and their labels in random order, each once before any again."""
    texts, labels = read_task(task, "train_20k")
    first = _TRAINING_PIECES[task]
    pieces = list(zip(texts, labels, strict=True))
    pieces = pieces[first:] if held_out else pieces[:first]
    if held_out:
        more = zip(*read_task(task, "validation"), strict=True)
        pieces += more
    if task == "sst2":
        low, high = _PHRASE_WORDS
        pieces = [(text, label) for text, label in pieces if low <= len(text.split()) <= high]
        if held_out:  # phrases of a sentence may repeat those of another
            known = {text for text, _ in _training_phrases()}
            pieces = [(text, label) for text, label in pieces if text not in known]
    while True:
        for place in random.permutation(len(pieces)):
            yield pieces[place]


def _training_phrases() -> list[tuple[str, int]]:
    texts, labels = read_task("sst2", "train_20k")
    return list(zip(texts, labels, strict=True))[: _TRAINING_PIECES["sst2"]]
