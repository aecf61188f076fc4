"""Reviews in five grades of difficulty, written from tables: no download, the same on every machine."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from itrex_sweet.demo import phrases

LEVELS: tuple[str, ...] = ("plain", "negated", "contrasted", "mixed", "ironic")
LABELS: tuple[str, str] = ("negative", "positive")
SPLITS: tuple[str, ...] = ("train", "calibration", "test")
SHARES: dict[str, int] = {"plain": 40, "negated": 15, "contrasted": 15, "mixed": 15, "ironic": 15}
MAX_ROWS = 20_000
CONTEXT_SHARE = 0.4

_BY_LABEL = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")
_SLOT = re.compile(r"\{([a-z_]+?)(?:_(same|opp|good|bad))?(\d?)\}")
_SENTENCE_START = re.compile(r"(^|[.!?] )([a-z])")


@dataclass(frozen=True)
class Review:
    text: str
    label: int
    level: str
    template: str


class _Writer:
    def __init__(self, rng, split, label, domain):
        self.rng = rng
        self.split = split
        self.label = label
        self.domain = domain
        nouns = [(noun, kind) for kind, nouns in domain.aspects.items() for noun in nouns]
        self.aspects = rng.sample(nouns, 4)
        self.used = set()

    def write(self, template):
        template = _BY_LABEL.sub(lambda m: m[1] if self.label else m[2], template)
        return _SLOT.sub(self._fill, template)

    def _fill(self, match):
        name, side, digit = match.groups()
        index = int(digit) - 1 if digit else 0
        positive = {"same": self.label == 1, "opp": self.label == 0, "good": True, "bad": False}.get(side)
        return getattr(self, name)(index, positive)

    def choose(self, options):
        fresh = [o for o in options if o not in self.used] or options
        choice = self.rng.choice(fresh)
        self.used.add(choice)
        return choice

    def pick(self, pair, positive):
        return self.choose(pair[0 if positive else 1])

    def x(self, index, _=None):
        return self.aspects[index][0].rstrip("+")

    def plural(self, index):
        return self.aspects[index][0].endswith("+")

    def be(self, index, _=None):
        return "was" if self.domain.past else "is"

    def noun(self, *_):
        return self.domain.noun
