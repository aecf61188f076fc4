"""The phrases and templates of the demo's reviews, read from `phrases.json`.

A template is a text with two kinds of marks:

`[a|b]`
    `a` in a positive review, `b` in a negative one.
`{slot}`, `{slot_side}`, `{slot_side1}`
    A phrase for that slot. The side `same` has the sentiment of the review's label, `opp` the opposite one; `good` and
    `bad` are fixed. Slots with the same digit refer to the same aspect.

Slots without a side: `x` an aspect, `be` its is/are/was/were (without a digit, that of the reviewed item), `are`
are/were, `s` the ending of its verb, `they` its pronoun, `noun` the reviewed item, `am` am/was, `month`, `person`,
`number`.

Slots with a side: `adj` an adjective for the aspect, `general` one for any aspect, `verb` and `verbed` the effect on
the reviewer, `like` the reviewer's attitude, `content` the reviewer's mood, `fact` an effect of the item, `wish` a
benefit or a drawback of it, `fond` the attitude to that, `verdict` the reviewer's decision, `cheer` an exclamation,
`hail` an exclamation with an object, `advice` to buyers; and, composed of these, `clause` about an aspect, `opinion` of
the item, `hearsay` and first impressions of it.

A pair holds the positive entries, then the negative ones.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, NamedTuple

Entries = tuple[str, ...]
Pair = tuple[Entries, Entries]


class Domain(NamedTuple):
    """A kind of item that is reviewed.

    Attributes:
        noun: its name.
        group: key of `CONTEXTS` and `VERDICTS`.
        past: its reviews are written in the past tense.
        aspects: nouns by the kind of adjective that fits them, a key of `ADJECTIVES`; a final plus sign marks a plural.
        facts: effects of the item, in the third person.
        wishes: its benefits and drawbacks, in the singular or as a gerund.
    """

    noun: str
    group: str
    past: bool
    aspects: dict[str, Entries]
    facts: Pair
    wishes: Pair


def _tuples(value: Any) -> Any:
    """Returns a JSON value with tuples in place of its lists."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_DATA = _tuples(json.loads(resources.files("itrex_sweet.demo").joinpath("phrases.json").read_text(encoding="utf-8")))

ADJECTIVES: dict[str, Pair] = _DATA["adjectives"]
GENERAL: Pair = _DATA["general"]
VERBS: Pair = _DATA["verbs"]
LIKES: Pair = _DATA["likes"]
CONTENT: Pair = _DATA["content"]
CHEERS: Pair = _DATA["cheers"]
HAILS: Pair = _DATA["hails"]
ADVICE: Pair = _DATA["advice"]
FONDNESS: Pair = _DATA["fondness"]
CLAUSES: Entries = _DATA["clauses"]
OPINIONS: Entries = _DATA["opinions"]
HEARSAY: Entries = _DATA["hearsay"]
MONTHS: Entries = _DATA["months"]
PERSONS: Entries = _DATA["persons"]
NUMBERS: Entries = _DATA["numbers"]
CONTEXTS: dict[str, Entries] = _DATA["contexts"]
VERDICTS: dict[str, Pair] = _DATA["verdicts"]
DOMAINS: tuple[Domain, ...] = tuple(Domain(**domain) for domain in _DATA["domains"])
TEMPLATES: dict[str, Entries] = _DATA["templates"]
