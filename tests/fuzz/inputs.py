"""A case of the fuzzer: an unusual or invalid call. The backends must agree, or all raise a `SweetError`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import SweetError
from tests.artifact_kinds import EXITS, KINDS, WITHOUT_NATIVE

INPUT_KINDS = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "learned",
    "static",
    "smooth",
    "dynamic",
    "cascade",
    "deberta-v3",
)

_LAST = EXITS[-1]
_PIECES = (
    *("the", "soup", "was", "good", "awful", "[CLS]", "[PAD]", "[MASK]", "zzz", " ", "\n", "\t", "\r", "\0", "\u200b"),
    *(
        "\ufeff",
        "\u202e",
        "é",
        "漢字",
        "😀",
        "\ud83d",
        "\udc00",
        "a" * 500,
        "good " * 300,
        "0" * 40,
        "<script>",
        "'\"\\",
    ),
)
_ODD_TEXTS: tuple[Any, ...] = (
    *(
        None,
        3,
        2.5,
        True,
        b"bytes",
        [],
        (),
        {},
        float("nan"),
        [[]],
        [""],
        ["a", "b", "c"],
        ("a", None),
        ("a", 3),
        ["a"],
    ),
    *({"text": "good"}, {"text": None}, {"text": "a", "text_pair": "b"}, {"label": 1}, object(), np.str_("good")),
)
_ODD_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "threshold": (
        0.0,
        1.0,
        0.5,
        2,
        -1,
        "0.9",
        None,
        float("nan"),
        np.float32(0.5),
        [0.5],
        [0.5, 0.5],
        [],
        True,
        {},
        10**400,
    ),
    "quality": (0.0, 1.0, 0.5, -1, "x", float("nan"), [1], None),
    "max_exit": (1, 2, 3, 0, -1, 1.5, "1", None, [1], True, 10**30),
    "deadline_ms": (1, 0.001, 1e9, 0, -1, float("nan"), float("inf"), "5", None, [5]),
    "batch_size": (1, 2, 10**9, 10**30, 0, -1, 1.5, "2", None, [2], True),
    "max_length": (1, 2, 3, 4, 8, 10**9, 0, -1, 2.5, "8", None, [8], True),
    "overlong": ("truncate", "refuse", "x", None, 3, []),
    "errors": ("raise", "mark", "x", None, 3, []),
    "policy": (None, 3, "x", {}, []),
}
_ODD_IDS = (-1, -(2**63), 95, 96, 97, 2**31, 2**32 + 5, 2**63 - 1, 10**6, 0, 1, 2, 5)


@dataclass(frozen=True)
class InputCase:
    """A call, generated from a seed."""

    kind: str
    seed: int

    @classmethod
    def from_seed(cls, seed: int) -> InputCase:
        return cls(INPUT_KINDS[seed % len(INPUT_KINDS)], seed)

    @classmethod
    def parse(cls, text: str) -> InputCase:
        kind, seed = text.split(":")
        return cls(kind, int(seed))

    def __str__(self) -> str:
        return f"{self.kind}:{self.seed}"


class Models:
    """The models of a process, loaded on first use."""

    def __init__(self, pristine: Path, backends: tuple[str, ...]):
        self.pristine, self.backends = pristine, backends
        self._loaded: dict[tuple[str, str], tuple[Any, list[dict[str, Any]]]] = {}

    def load(self, kind: str, backend: str) -> tuple[Any, list[dict[str, Any]]]:
        """Returns the model and its first predictions for a valid text."""
        if (kind, backend) not in self._loaded:
            model = SweetModelForSequenceClassification.from_pretrained(self.pristine / kind, backend=backend)
            self._loaded[kind, backend] = model, model.predict(["the soup was good"])
        return self._loaded[kind, backend]

    def names(self, kind: str) -> tuple[str, ...]:
        return tuple(name for name in self.backends if name != "native" or kind not in WITHOUT_NATIVE)


def run_input(case: InputCase, models: Models) -> str | None:
    """Runs a case; returns a description of the failure, or `None`."""
    assert case.kind in KINDS
    outcomes = {}
    for backend in models.names(case.kind):
        model, expected = models.load(case.kind, backend)
        rng = Random(case.seed)
        method, arguments, options = rng.choice((_texts, _texts, _ids, _ids, _ids))(rng)
        given = [_format(arguments[0]), *(f"{name}={_format(value)}" for name, value in options.items())]
        description = f"{method}({', '.join(given)})"
        try:
            outcomes[backend] = _checked(method, getattr(model, method)(*arguments, **options), arguments)
        except SweetError as error:
            outcomes[backend] = error
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return f"{description} on {backend}: {type(error).__module__}.{type(error).__name__}: {str(error)[:500]}"
        if model.predict(["the soup was good"]) != expected:
            return f"{description} on {backend}: later predictions have changed"
        if options.get("deadline_ms") is not None:
            return None
    kinds = {name: isinstance(outcome, SweetError) for name, outcome in outcomes.items()}
    if len(set(kinds.values())) > 1:
        return f"{description}: {' , '.join(f'{name}: {_format(outcome)}' for name, outcome in outcomes.items())}"
    answers = [outcome for outcome in outcomes.values() if isinstance(outcome, np.ndarray)]
    if len(answers) == 2 and (
        answers[0].shape != answers[1].shape or np.abs(answers[0] - answers[1]).max(initial=0) > 0.02
    ):
        return f"{description}: backends differ by {np.abs(answers[0] - answers[1]).max(initial=0)}"
    return None


def _checked(method: str, result: Any, arguments: tuple[Any, ...]) -> np.ndarray:
    """Checks a result and returns the numbers to compare between backends: scores of labels, or logits.

    Only the last exit is compared, because rounding can decide whether a row exits earlier.
    """
    if method == "predict":
        if isinstance(arguments[0], (list, tuple)):
            assert len(result) == len(arguments[0]), "wrong number of predictions"
        assert all("error" in row or 0.0 <= row["score"] <= 1.0 for row in result), "invalid score"
        return np.array([row["score"] or 0.0 for row in result if row["exit_layer"] == _LAST])
    logits = result.logits.numpy()
    assert logits.ndim == 2 and len(result.exit_layer) == len(logits), "invalid shape of logits"
    assert np.isfinite(logits).all(), "logits are not finite"
    return logits if set(result.exit_layer.tolist()) <= {_LAST} else np.zeros(0)


# ---------------------------------------------------------------------------------------------------- calls


def _text(rng: Random) -> Any:
    if rng.random() < 0.15:
        return rng.choice(_ODD_TEXTS)
    text = " ".join(rng.choice(_PIECES) for _ in range(rng.randrange(12)))
    return rng.choice((text, text, text, (text, "good"), ["soup", text]))


def _texts(rng: Random) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    texts: Any = [_text(rng) for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 40)))]
    odd = rng.random()
    if odd < 0.1:
        texts = rng.choice(
            (*_ODD_TEXTS, "good", np.array(["good", "bad"]), iter(["good"]), {"text": ["good"]}, {"good"})
        )
    options = {}
    if rng.random() < 0.3:
        options["errors"] = "mark"
    while rng.random() < 0.3:
        name = rng.choice(list(_ODD_ARGUMENTS))
        options[name] = rng.choice(_ODD_ARGUMENTS[name])
    return "predict", (texts,), options


def _ids(rng: Random) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    rows, columns = rng.choice((0, 1, 1, 2, 3, 33)), rng.choice((0, 1, 2, 3, 10, 63, 64, 65, 200))
    random = np.random.default_rng(rng.randrange(1 << 32))
    ids = random.integers(3, 90, (rows, columns))
    if ids.size and rng.random() < 0.3:
        ids.flat[rng.randrange(ids.size)] = rng.choice(_ODD_IDS)
    options: dict[str, Any] = {}
    if rng.random() < 0.6:
        mask = (random.random(ids.shape) < rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))).astype(np.int64)
        options["attention_mask"] = _convert(rng, mask)
    if rng.random() < 0.3:
        types = random.integers(0, 2, ids.shape)
        if types.size and rng.random() < 0.5:
            types.flat[rng.randrange(types.size)] = rng.choice((-1, 2, 2**31, -(2**63), 1))
        options["token_type_ids"] = _convert(rng, types)
    if rng.random() < 0.2:
        labels = random.integers(-1, 4, rng.choice((rows, rows, rows + 1)))
        options["labels"] = _convert(rng, labels)
    while rng.random() < 0.15:
        name = rng.choice(("threshold", "quality", "max_exit", "deadline_ms", "policy"))
        options[name] = rng.choice(_ODD_ARGUMENTS[name])
    return "forward", (_convert(rng, ids),), options


def _convert(rng: Random, array: np.ndarray) -> Any:
    """Returns the array in a form that callers use, or sometimes in an invalid one."""
    tensor = torch.from_numpy(array)
    if rng.random() < 0.75:
        return rng.choice((array, tensor, tensor.int(), array.astype(np.int32), array.tolist()))
    with np.errstate(all="ignore"):
        return rng.choice(
            (
                *(array.astype(float), array.astype(np.float32) + 0.5, tensor.float(), array.astype(complex)),
                *(array.astype(str), array.astype(object), array.astype(bool), array.astype(np.uint8), array[None]),
                *(array.reshape(-1), array.T, array[:, :-1] if array.ndim > 1 else array[:-1], array[::-1]),
                *(
                    None,
                    3,
                    "ids",
                    [],
                    [[]],
                    [[1, 2], [3]],
                    {"input_ids": array},
                    [None],
                    torch.zeros(2, 2).requires_grad_(),
                ),
                *(
                    tensor.to(torch.float16),
                    tensor.to_sparse() if array.size else tensor,
                    tensor.t() if array.ndim > 1 else tensor,
                ),
            )
        )


def _format(value: Any) -> str:
    return ascii(value)[:200]
