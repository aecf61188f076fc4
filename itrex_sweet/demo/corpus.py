"""Short English reviews in five grades of difficulty, written from tables: nothing to download, the same
reviews on every machine.

What decides the label, level by level:

``plain``
    The sentiment words.
``negated``
    The sentiment words together with a negation, which turns them over ("far from noisy") or, less often,
    confirms them ("there is no denying that it is noisy").
``contrasted``
    The main clause, wherever it stands; what is conceded (although, despite, "..., but") does not count.
``mixed``
    Several aspects disagree. The label follows what the reviewer did in the end, the aspect said to weigh
    more, or the majority of the aspects.
``ironic``
    Praise of something bad is negative, complaint about something good is positive.

All splits are drawn from the same templates and the same vocabulary in the same shares, as rows of one source are that
are dealt at random. No text comes in two of them: a hash of the text says which split it may be in.
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

# Percent of each split. Real reviews are mostly plain ones.
SHARES: dict[str, int] = {"plain": 84, "negated": 6, "contrasted": 4, "mixed": 3, "ironic": 3}

# Rows that the templates can fill for each split without repeating a text.
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
        template: id of the sentence frame, stable across seeds and sizes; it names the level.
    """

    text: str
    label: int
    level: str
    template: str


def make_corpus(
    train: int = 4000, calibration: int = 3000, test: int = 800, traffic: int = 0, seed: int = 0
) -> dict[str, list[Review]]:
    """Writes reviews of all levels for splits that share no text.

    Each split has every level in its share (`SHARES`), rounded to whole rows. The labels of a level and of a split
    differ by one row at most. The order is random. No split depends on the sizes of the others.

    Args:
        train: rows to learn from, at most `MAX_ROWS`, as for the others.
        calibration: rows to choose thresholds on.
        test: rows to report on.
        traffic: rows whose labels nobody looks at.
        seed: another corpus for every whole number from 0.

    Returns:
        split → reviews, each split of exactly the length asked for.

    Raises:
        ConfigError: a size is negative or above `MAX_ROWS`, or the seed is negative.
    """
    sizes = {"train": train, "calibration": calibration, "test": test, "traffic": traffic}
    for split, size in sizes.items():
        if not 0 <= size <= MAX_ROWS:
            raise ConfigError(f"{split}={size}: the templates can write 0 to {MAX_ROWS} different reviews.")
    if seed < 0:
        raise ConfigError(f"seed={seed}: seeds are whole numbers from 0.")
    return {
        split: _make_split(index, size, random.Random(seed * len(SPLITS) + index))
        for index, (split, size) in enumerate(sizes.items())
    }


def _make_split(index: int, size: int, rng: random.Random) -> list[Review]:
    reviews: list[Review] = []
    seen: set[str] = set()
    for level, rows in _shares(size).items():
        frames = TEMPLATES[level]
        end = len(reviews) + rows
        while len(reviews) < end:
            label = len(reviews) % 2
            number = rng.randrange(len(frames))
            text = _Writer(rng, label).write(frames[number])
            if text.lower() not in seen and _split_of(text) == index:
                seen.add(text.lower())
                reviews.append(Review(text, label, level, f"{level}-{number + 1:02d}"))
    rng.shuffle(reviews)
    return reviews


def _split_of(text: str) -> int:
    """Place of the one split that a text may be in."""
    return hashlib.blake2b(text.lower().encode(), digest_size=8).digest()[0] % len(SPLITS)


def _shares(size: int) -> dict[str, int]:
    """Rows of each level; what rounding down leaves over goes to the levels that lost most by it."""
    rows = {level: size * share // 100 for level, share in SHARES.items()}
    by_loss = sorted(LEVELS, key=lambda level: -(size * SHARES[level] % 100))
    for level in by_loss[: size - sum(rows.values())]:
        rows[level] += 1
    return rows


class _Writer:
    """Fills one template: one domain, four of its aspects, and no phrase twice where there is a choice."""

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
    """Names the thing once and calls it "it" from then on."""
    this = f"this {noun}"
    before, named, after = text.replace(f"This {noun}", this).partition(this)
    return before + named + after.replace(this, "it")
