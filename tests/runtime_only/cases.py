"""Artifacts, texts and call options whose answers do not depend on what is installed. Imports no torch.

`record.py` writes the answers of a full installation; `test_runtime_only.py` compares with them.
"""

from __future__ import annotations

from typing import Any

from itrex_sweet.policy import CRITERIA, Policy

# Keys of `tests.artifact_kinds.KINDS` that the native engine runs.
KINDS = (
    *("bert", "roberta", "distilbert", "electra", "learned", "static", "smooth", "dynamic"),
    *("decoupled", "decoupled-static", "cascade"),
)
ANSWERS_FILE = "answers.json"

TEXTS: list[Any] = [
    "the room was good",
    "a phone is not bad but slow",
    "never again",
    "the soup was cold and the room was awful and the phone was slow",
    ("good soup", "bad phone"),
    "great great great fine quick warm room",
]
# Name of a call -> arguments of `predict`.
CALLS: dict[str, dict[str, Any]] = {
    "stored policy": {},
    "full depth": {"threshold": 1.0},
    "first exit": {"threshold": 0.0},
    "threshold": {"threshold": 0.4},
    "max_exit": {"max_exit": 1, "threshold": 1.0},
    "batches of one": {"threshold": 0.4, "batch_size": 1},
    "all labels": {"threshold": 0.4, "top_k": "all"},
    "short": {"threshold": 0.4, "max_length": 5},
    "marked errors": {"errors": "mark", "threshold": 0.4},
}


def answers(classifier: Any, kind: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the predictions of a classifier for every call of `CALLS` and every criterion that the artifact has.

    Args:
        classifier: a `Classifier` or a `SweetModelForSequenceClassification`.
        kind: its kind, one of `KINDS`.
    """
    found = {}
    for name, options in CALLS.items():
        texts = [*TEXTS, ""] if "errors" in options else TEXTS
        found[name] = classifier.predict(texts, **options)
    exits = len(classifier.policy.temperatures)
    for criterion in CRITERIA:
        if criterion == "learned" and kind != "learned":
            continue
        policy = Policy((0.45,) * (exits - 1), (1.3,) * (exits - 1) + (0.8,), criterion)
        found[criterion] = classifier.predict(TEXTS, policy=policy)
    streamed = dict(classifier.answers(iter(TEXTS), threshold=0.4))
    found["stream"] = [streamed[place] for place in range(len(TEXTS))]
    return found
