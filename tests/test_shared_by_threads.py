"""Tests threads that share one model, with different lengths and settings: answers equal those of a single thread.

`SOAK_SECONDS=60 pytest tests/test_shared_by_threads.py` goes on for longer.
"""

import itertools
import os
import threading
import time

import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import InputError
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import WORDS, tiny_artifact
from tests.tiny_tokenizers import SlowTokenizer, fast_tokenizer

SECONDS = float(os.environ.get("SOAK_SECONDS", "2"))
ROWS = [" ".join(WORDS[first : first + count]) for first, count in ((0, 2), (3, 11), (1, 20), (7, 5), (0, 21))]
ROWS += [("the soup was good", "never again"), {"text": ROWS[2], "text_pair": ROWS[1]}, "the soup was good " * 20]
SETTINGS = [
    {**length, **overlong, **stopping, **others}
    for length in ({}, {"max_length": 4}, {"max_length": 9}, {"max_length": 17})
    for overlong in ({}, {"overlong": "refuse", "errors": "mark"})
    for stopping in (
        {},
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"max_exit": 2},
        {"policy": Policy((0.4,) * 2, (2.0,) * 3)},
    )
    for others in ({}, {"batch_size": 2, "top_k": "all"})
]


@pytest.mark.parametrize("tokenizer", [fast_tokenizer, SlowTokenizer])
def test_answers_equal_those_of_a_single_thread(tmp_path, tokenizer):
    tiny_artifact(tmp_path, policy=Policy((0.5, 0.6), (1.5, 2.0, 0.7)))
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path)
    model.tokenizer = tokenizer(model_max_length=32)
    classify = model.pipeline()
    expected = [model.predict(ROWS, **settings) for settings in SETTINGS]
    piped = classify(ROWS, batch_size=3)
    padded = model.tokenizer(["the soup", "never again and again"], padding=True, return_tensors="pt")
    logits = model(**padded).logits
    wrong, calls = [], itertools.count()
    until = time.monotonic() + SECONDS

    def ask(thread: int) -> None:
        try:
            for place in itertools.cycle(range(len(SETTINGS))):
                if time.monotonic() > until:
                    return
                place = (place * 7 + thread * 11) % len(SETTINGS)
                if model.predict(ROWS, **SETTINGS[place]) != expected[place]:
                    wrong.append(SETTINGS[place])
                if place % 5 == 0 and classify(ROWS, batch_size=3) != piped:
                    wrong.append("pipeline")
                if place % 5 == 1 and not (model(**padded).logits == logits).all():
                    wrong.append("forward")
                if place % 5 == 2:
                    with pytest.raises(InputError, match="and the limit is 32"):
                        model.predict(ROWS[-1:], overlong="refuse")
                next(calls)
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]
    assert next(calls) >= 8 * SECONDS
