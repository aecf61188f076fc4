"""Generates short English reviews in five levels of difficulty, the same on every machine, without a download.

The label depends, at level:

``plain``
    On the sentiment words.
``negated``
    On the sentiment words together with a negation, which inverts them ("far from noisy") or, less often, confirms
    them ("there is no denying that it is noisy").
``contrasted``
    On the main clause, at any position; a concession (although, despite, "..., but") does not count.
``mixed``
    On several aspects that disagree: on the reviewer's final decision, the aspect that is called more important, or the
    majority.
``ironic``
    On irony: praise of something bad is negative, a complaint about something good is positive.

All splits use the same templates and vocabulary in the same shares, like a random split of one data set. No text occurs
in two of them: a hash of the text determines its split.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass

from itrex_sweet.demo.phrases import (
    ADJECTIVES,
    ADVICE,
    CHEERS,
    CLAUSES,
    CONTENT,
    CONTEXTS,
    DOMAINS,
    FONDNESS,
    GENERAL,
    HAILS,
    HEARSAY,
    LIKES,
    MONTHS,
    NUMBERS,
    OPINIONS,
    PERSONS,
    TEMPLATES,
    VERBS,
    VERDICTS,
)
from itrex_sweet.errors import ConfigError

LEVELS: tuple[str, ...] = ("plain", "negated", "contrasted", "mixed", "ironic")
LABELS: tuple[str, ...] = ("negative", "positive")
SPLITS: tuple[str, ...] = ("train", "calibration", "test", "traffic")

# Percent of each split. Most real reviews are plain.
SHARES: dict[str, int] = {"plain": 84, "negated": 6, "contrasted": 4, "mixed": 3, "ironic": 3}

# Number of different texts that the templates can produce for each split.
MAX_ROWS = 20_000

_CONTEXT_RATE = 0.4
_GENERAL_RATE = 0.3
_CLAUSES = {"clause": CLAUSES, "opinion": OPINIONS, "hearsay": HEARSAY}
_BY_LABEL = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")
_SLOT = re.compile(r"\{([a-z_]+?)(?:_(same|opp|good|bad))?([1-4])?\}")
_ARTICLE = re.compile(r"\b([Aa])(?= [aeioAEIO])")
_SENTENCE_START = re.compile(r"(?:^|[.!?] )[a-z]")


@dataclass(frozen=True)
class Review:
    """One labelled text.

    Attributes:
        text: one or more sentences.
        label: index into `LABELS`.
        level: one of `LEVELS`.
        template: id of the template, stable across seeds and sizes; starts with the level.
    """

    text: str
    label: int
    level: str
    template: str


def make_corpus(
    train: int = 4000, calibration: int = 3000, test: int = 800, traffic: int = 0, seed: int = 0
) -> dict[str, list[Review]]:
    """Generates reviews of all levels for splits that share no text.

    Each split has every level in its share (`SHARES`), rounded to whole rows. The numbers of positive and negative
    reviews in a level, and in a split, differ by at most one. The order is random. The content of a split does not
    depend on the sizes of the others.

    Args:
        train: number of rows for training, at most `MAX_ROWS`, like the others.
        calibration: number of rows for choosing thresholds.
        test: number of rows for reporting.
        traffic: number of rows that are used without their labels.
        seed: a non-negative integer; each gives another corpus.

    Returns:
        The reviews of each split.

    Raises:
        ConfigError: a size is negative or above `MAX_ROWS`, or the seed is negative.
    """
    sizes = {"train": train, "calibration": calibration, "test": test, "traffic": traffic}
    for split, size in sizes.items():
        if not 0 <= size <= MAX_ROWS:
            raise ConfigError(f"{split}={size}: the templates produce 0 to {MAX_ROWS} different reviews.")
    if seed < 0:
        raise ConfigError(f"seed={seed}: a seed is a non-negative integer.")
    return {
        split: _make_split(index, size, random.Random(seed * len(SPLITS) + index))
        for index, (split, size) in enumerate(sizes.items())
    }


def _make_split(index: int, size: int, rng: random.Random) -> list[Review]:
    reviews: list[Review] = []
    seen: set[str] = set()
    for level, rows in _shares(size).items():
        templates = TEMPLATES[level]
        end = len(reviews) + rows
        while len(reviews) < end:
            label = len(reviews) % 2
            number = rng.randrange(len(templates))
            text = _Writer(rng, label).write(templates[number])
            if text.lower() not in seen and _split_of(text) == index:
                seen.add(text.lower())
                reviews.append(Review(text, label, level, f"{level}-{number + 1:02d}"))
    rng.shuffle(reviews)
    return reviews


def _split_of(text: str) -> int:
    """Returns the index of the split that a text belongs to."""
    return hashlib.blake2b(text.lower().encode(), digest_size=8).digest()[0] % len(SPLITS)


def _shares(size: int) -> dict[str, int]:
    """Returns the number of rows of each level: rounded down, and the rest given to the largest remainders."""
    rows = {level: size * share // 100 for level, share in SHARES.items()}
    by_remainder = sorted(LEVELS, key=lambda level: -(size * SHARES[level] % 100))
    for level in by_remainder[: size - sum(rows.values())]:
        rows[level] += 1
    return rows


class _Writer:
    """Fills one template, with one domain and four of its aspects; repeats a phrase only if no other is left."""

    def __init__(self, rng: random.Random, label: int):
        self.rng = rng
        self.label = label
        self.domain = rng.choice(DOMAINS)
        self.aspects = rng.sample([(x, kind) for kind, xs in self.domain.aspects.items() for x in xs], 4)
        self.used: set[str] = set()

    def write(self, template: str) -> str:
        text = _BY_LABEL.sub(lambda match: match[2 - self.label], template)
        if self.rng.random() < _CONTEXT_RATE:
            context = self.rng.choice(CONTEXTS[self.domain.group])
            text = f"{context} {text}" if self.rng.random() < 0.6 else f"{text} {context}"
        text = _with_pronouns(self._fill(text), self.domain.noun)
        text = _ARTICLE.sub(r"\1n", text)
        return _SENTENCE_START.sub(lambda match: match[0].upper(), text)

    def _fill(self, text: str) -> str:
        return _SLOT.sub(lambda match: self._phrase(*match.groups()), text)

    def _phrase(self, slot: str, side: str | None, digit: str | None) -> str:
        if side is None:
            return self._neutral_phrase(slot, digit)
        if slot in _CLAUSES:
            clause = self.rng.choice(_CLAUSES[slot]).replace("_same", f"_{side}")
            return self._fill(clause.replace("1}", f"{digit}}}"))
        if slot == "adj" and self.rng.random() < _GENERAL_RATE:
            slot = "general"
        pairs = {
            "adj": ADJECTIVES[self._aspect(digit)[1]],
            "general": GENERAL,
            "verb": VERBS,
            "verbed": VERBS,
            "like": LIKES,
            "content": CONTENT,
            "cheer": CHEERS,
            "hail": HAILS,
            "advice": ADVICE,
            "fond": FONDNESS,
            "fact": self.domain.facts,
            "wish": self.domain.wishes,
            "verdict": VERDICTS[self.domain.group],
        }
        good = side == "good" or side == ("same" if self.label else "opp")
        phrase = self._choose(pairs[slot][0 if good else 1])
        if slot == "verbed" or (slot == "like" and self.domain.past):
            return phrase + ("d" if phrase.endswith("e") else "ed")
        return phrase

    def _neutral_phrase(self, slot: str, digit: str | None) -> str:
        aspect = self._aspect(digit)[0]
        plural = digit is not None and aspect.endswith("+")
        past = self.domain.past
        match slot:
            case "x":
                return aspect.rstrip("+")
            case "s":
                return "" if plural else "s"
            case "be":
                return (("is", "are"), ("was", "were"))[past][plural]
            case "are":
                return "were" if past else "are"
            case "am":
                return "was" if past else "am"
            case "they":
                return "they" if plural else "it"
            case "noun":
                return self.domain.noun
            case _:
                return self._choose({"month": MONTHS, "person": PERSONS, "number": NUMBERS}[slot])

    def _aspect(self, digit: str | None) -> tuple[str, str]:
        return self.aspects[int(digit or 1) - 1]

    def _choose(self, entries: tuple[str, ...]) -> str:
        choice = self.rng.choice([entry for entry in entries if entry not in self.used] or entries)
        self.used.add(choice)
        return self._fill(choice)


def _with_pronouns(text: str, noun: str) -> str:
    """Replaces every mention of the item but the first with "it"."""
    this = f"this {noun}"
    before, named, after = text.replace(f"This {noun}", this).partition(this)
    return before + named + after.replace(this, "it")
