"""Variants of exits with private layers, with the hypothesis for each, written before the measurements."""

from __future__ import annotations

from dataclasses import dataclass

EXITS = (1, 2, 4)  # without the last, the model's own head
ALL = (1, 2, 3, 4, 5)
DEFAULT = "x3"  # the others differ from it in one setting
COPIED = "softened"
CHOSEN = "even"  # the default of `SweetCallback`
REPORTED = (CHOSEN, COPIED, DEFAULT)  # with their curves on validation rows


@dataclass(frozen=True)
class Variant:
    """A set of exits with its training settings.

    Args:
        name: key of its results.
        description: of the variant, in tables.
        expected: hypothesis, written before the measurement.
        exits: counts of layers, without the last.
        rate: multiple of the trunk's learning rate.
        depth: number of private layers of an exit.
        query_rows: 1 for the first token; 2 for the first token and the mean of all.
        distillation: share of the loss against the last exit's probabilities.
        temperature: temperature of the distillation.
        earlier: the pooler of an exit also reads the pooled state of the exit before.
        scratch: private layers are initialized at random.
        constant: the learning rate is constant, where the trunk's falls to 0.
        even: exits whose private layer begins with a query of zero, that is, with even attention.
    """

    name: str
    description: str
    expected: str
    exits: tuple[int, ...] = EXITS
    rate: float = 3.0
    depth: int = 1
    query_rows: int = 1
    distillation: float = 0.0
    temperature: float = 1.0
    earlier: bool = False
    scratch: bool = False
    constant: bool = False
    even: tuple[int, ...] = ()


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("x1", "the model's rate", "exits 1 and 2 learn too little: 1 to 3 points below three times", rate=1.0),
        Variant(
            DEFAULT,
            "three times the rate",
            "as the prototype: exits 1 and 2 equal SWEET's, exit 4 nearly equals plain fine-tuning",
            ALL,
        ),
        Variant("x5", "five times the rate", "exits 1 and 2 +0.3 on hard tasks, exit 4 no worse", ALL, rate=5.0),
        Variant("x10", "ten times the rate", "unstable at 2e-4: exits at chance on some tasks", rate=10.0),
        Variant(
            "deep",
            "two private layers",
            "exit 4 +0.3, exits 1 and 2 within noise: their tokens are hardly mixed",
            depth=2,
        ),
        Variant(
            "two-rows",
            "a second query row, the mean",
            "exits 1 and 2 +0.5: their tokens are hardly mixed",
            query_rows=2,
        ),
        Variant(
            "teacher",
            "half of the loss from the last exit",
            "within 0.3; higher agreement than accuracy",
            ALL,
            distillation=0.5,
        ),
        Variant(
            COPIED,
            "half of the loss from the last exit, at temperature 2",
            "as at temperature 1; probabilities less extreme, so that one threshold suits all exits less",
            distillation=0.5,
            temperature=2.0,
        ),
        Variant(
            "taught",
            "all of the loss from the last exit",
            "agreement +0.3 over half, equal scores: the last exit is nearly always correct on its training rows",
            distillation=1.0,
        ),
        Variant(
            "earlier",
            "exits read the pooled state of the previous exit",
            "within noise, as with logits before",
            earlier=True,
        ),
        Variant(
            "scratch", "private layers begin at random", "2 to 5 points lower: two epochs are little", scratch=True
        ),
        Variant(
            CHOSEN,
            "softened, exits 1 and 2 begin with even attention",
            "exits 1 and 2 +1 on pairs and where they stay at the frequencies of the labels, within noise elsewhere",
            distillation=0.5,
            temperature=2.0,
            even=(1, 2),
        ),
        Variant("constant", "three times, a rate that does not fall", "0.5 lower: no annealing", constant=True),
    )
}

# Conclusions after the measurements.
CONCLUSIONS = {
    "x1": "no difference at a rate of 2e-4; a prototype at 1e-4 had exits 1 and 2 at chance on MNLI: 3 is safer",
    "x3": "kept",
    "x3, every layer": "exits do not affect one another; a weak one lets rows leave too early: choose exits during "
    "calibration",
    "x10": "rejected: no difference on MNLI, worse on SST-2",
    "deep": "rejected",
    "two-rows": "exits 1 and 2 gain, for a second row at run time; distillation gains as much at no cost: rejected",
    "teacher": "no difference from temperature 2",
    COPIED: "kept; the default begins with even attention besides",
    "taught": "no difference from half; used for exits without labels",
    "earlier": "rejected",
}
