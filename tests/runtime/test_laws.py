"""Property tests of every backend. A new backend is added by a name that `backend_of` accepts."""

import threading

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from itrex_sweet.policy import CRITERIA, Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tasks import MULTI_LABEL
from tests.tiny_artifacts import random_rows
from tests.tiny_models import FAMILY_CONFIGS

NUM_EXITS = 3
NEEDS_IPEX = pytest.mark.skipif(unavailable_reason("ipex") is not None, reason="IPEX is not usable here")
ON_IPEX = [
    pytest.param(name, marks=NEEDS_IPEX)
    for name in ("bert on ipex", "bert static on ipex", "bert+private static on ipex")
]
NEEDS_OPENVINO = pytest.mark.skipif(
    unavailable_reason("openvino") is not None, reason="openvino is not installed: pip install 'itrex-sweet[openvino]'"
)
ON_OPENVINO = [pytest.param("bert+private static on openvino", marks=NEEDS_OPENVINO)]
NEEDS_NATIVE = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
NATIVE_FAMILIES = (
    *("bert", "roberta", "xlm-roberta", "electra", "distilbert"),
    *("deberta", "deberta-v3", "deberta-v2-conv", "modernbert"),
)
ON_NATIVE = [
    pytest.param(f"{name} on native", marks=NEEDS_NATIVE)
    for name in (
        *NATIVE_FAMILIES,
        "bert static",
        "roberta smooth",
        "distilbert dynamic",
        "electra mixed",
        "bert+private",
        "bert+private static",
        "distilbert+private dynamic",
        "deberta dynamic",
        "deberta-v3+private static",
        "deberta-v2-conv+private smooth",
        "modernbert+private static",
        "modernbert-biases dynamic",
        *(["eurobert+private static"] if "eurobert" in FAMILY_CONFIGS else []),
        "roformer",
    )
]
PRIVATE = ["bert+private", "deberta+private", "deberta-v2-conv+private", "bert+private static"]
INT8 = ["bert static", "bert smooth", "bert dynamic", "deberta-v3 static"]
TASKS_ON_NATIVE = [
    pytest.param(f"bert/{name} on native", marks=NEEDS_NATIVE)
    for name in ("multi", "regression", "multi+private static", "regression static")
]
TASKS_ON_IPEX = [pytest.param(f"bert/{name} on ipex", marks=NEEDS_IPEX) for name in ("multi static", "regression")]
TASKS = ["bert/multi", "bert/regression", "cascade/multi", *TASKS_ON_IPEX, *TASKS_ON_NATIVE]
EVERY_BACKEND = [*FAMILY_CONFIGS, "cascade", *INT8, *PRIVATE, *ON_IPEX, *ON_OPENVINO, *ON_NATIVE, *TASKS]
ONE_OF_EACH = [
    *("bert", "deberta", "cascade", "bert static", "bert dynamic", "bert+private"),
    *(*ON_IPEX, *ON_OPENVINO, *ON_NATIVE, *TASKS_ON_NATIVE),
]

# At least one row; token ids from 5 avoid special tokens.
rows_strategy = st.lists(st.lists(st.integers(5, 60), min_size=1, max_size=12), min_size=1, max_size=10)
thresholds_strategy = st.tuples(*[st.floats(0.3, 1.0)] * (NUM_EXITS - 1))
criterion_strategy = st.sampled_from(CRITERIA)


def fitting(family: str, criterion: str) -> str:
    """Returns the criterion if the model can run under it: a cascade predicts no correctness, and the exits of
    regression nothing else."""
    assume(not (family.startswith("cascade") and criterion == "learned"))
    return "learned" if "/regression" in family else criterion


def uniform(family: str, threshold: float = 0.9) -> Policy:
    """Returns a policy with one threshold, by the default criterion of the model's task."""
    return Policy((threshold,) * (NUM_EXITS - 1), (1.0,) * NUM_EXITS, "learned" if "/reg" in family else CRITERIA[0])


few = settings(max_examples=15, deadline=None)


def rounding(name: str) -> dict[str, float]:
    """Returns the tolerance for logits that depend on the blocking of libraries; quantized inputs may move by a step
    or two.

    Not at all on the native engine.
    """
    if name.endswith("on native"):
        return dict(rtol=0, atol=0)
    return dict(rtol=0, atol=0.04) if len(name.partition(" on ")[0].split()) > 1 else dict(rtol=1e-4, atol=1e-5)


def decisive(executor: Executor, batch: TokenBatch, policy: Policy, margin: float = 1e-5) -> np.ndarray:
    """Returns the rows whose confidences are too far from the thresholds for rounding to change a decision."""
    from itrex_sweet import criteria

    policy = policy.for_task(executor.backend.task.name, executor.backend.num_labels)
    logits, correctness_logits = criteria.split_outputs(
        executor.outputs_at_every_exit(batch), executor.backend.num_labels
    )
    confidences = criteria.confidence_at_every_exit(policy, logits, correctness_logits)[:, :-1]
    near = np.abs(confidences - np.asarray(policy.thresholds, dtype=np.float32)) < margin
    if criteria.is_stateful(policy):  # a label that rounding could turn counts too
        if policy.task == MULTI_LABEL:
            near |= np.abs(logits[:, :-1]).min(axis=-1) < margin
        else:
            two = np.partition(logits, -2, axis=-1)[..., -2:]
            near |= (two[:, :-1, 1] - two[:, :-1, 0]) < margin
    return ~near.any(axis=1)


@pytest.mark.parametrize("family", EVERY_BACKEND)
@few
@given(rows=rows_strategy, thresholds=thresholds_strategy, criterion=criterion_strategy, data=st.data())
def test_batch_does_not_affect_a_row(backend_of, family, rows, thresholds, criterion, data):
    criterion = fitting(family, criterion)
    policy = Policy(thresholds, (1.0,) * NUM_EXITS, criterion)
    executor = Executor(backend_of(family), policy)
    order = data.draw(st.permutations(range(len(rows))))
    size = data.draw(st.integers(1, len(rows) + 1))
    together = executor.run(TokenBatch.from_rows([rows[place] for place in order]), batch_size=size)
    close = rounding(family)
    sure = decisive(executor, TokenBatch.from_rows(rows), policy, close["atol"])
    for position, place in enumerate(order):
        alone = executor.run(TokenBatch.from_rows([rows[place]]))
        if sure[place]:
            assert together.exit_index[position] == alone.exit_index[0]
            np.testing.assert_allclose(together.logits[position], alone.logits[0], **close)
            np.testing.assert_allclose(together.confidence[position], alone.confidence[0], **close)


@pytest.mark.parametrize("family", ["roberta", "deberta-v3", *ONE_OF_EACH])
@few
@given(rows=rows_strategy, left=st.booleans(), spare=st.integers(0, 5))
def test_padding_does_not_affect_answers(backend_of, family, rows, left, spare):
    backend = backend_of(family)
    executor = Executor(backend, uniform(family, 0.45))
    pad = backend.padding_idx or 0
    width = max(map(len, rows)) + spare
    ids, mask = np.full((len(rows), width), pad), np.zeros((len(rows), width), int)
    for place, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, columns], mask[place, columns] = row, 1
    padded = executor.run(TokenBatch.from_padded(ids, mask, padding_idx=backend.padding_idx))
    packed = executor.run(TokenBatch.from_rows(rows))
    np.testing.assert_array_equal(padded.exit_index, packed.exit_index)
    np.testing.assert_array_equal(padded.logits, packed.logits)


@pytest.mark.parametrize("family", ONE_OF_EACH)
@few
@given(
    rows=rows_strategy,
    low=thresholds_strategy,
    raise_by=st.tuples(*[st.floats(0, 0.7)] * (NUM_EXITS - 1)),
    criterion=criterion_strategy,
)
def test_higher_threshold_never_gives_an_earlier_exit(backend_of, family, rows, low, raise_by, criterion):
    criterion = fitting(family, criterion)
    executor = Executor(backend_of(family), uniform(family))
    batch = TokenBatch.from_rows(rows)
    high = tuple(min(1.0, threshold + more) for threshold, more in zip(low, raise_by, strict=True))
    policies = [Policy(thresholds, (1.0,) * NUM_EXITS, criterion) for thresholds in (low, high)]
    at_low, at_high = (executor.run(batch, policy, batch_size=len(rows)) for policy in policies)
    sure = np.ones(len(batch), dtype=bool)
    for policy in policies:
        sure &= decisive(executor, batch, policy, rounding(family)["atol"])
    assert (at_high.exit_index >= at_low.exit_index)[sure].all()


@pytest.mark.parametrize("family", EVERY_BACKEND)
@few
@given(rows=rows_strategy, criterion=criterion_strategy)
def test_unreachable_threshold_gives_the_full_model(backend_of, family, rows, criterion):
    criterion = fitting(family, criterion)
    executor = Executor(backend_of(family), Policy((1.0,) * (NUM_EXITS - 1), (1.0,) * NUM_EXITS, criterion))
    batch = TokenBatch.from_rows(rows)
    answers = executor.run(batch)
    assert (answers.exit_index == NUM_EXITS - 1).all()
    np.testing.assert_allclose(answers.logits, executor.logits_at_every_exit(batch)[:, -1], **rounding(family))


@pytest.mark.parametrize("family", ["bert", "bert static", *ON_IPEX, *ON_OPENVINO, *ON_NATIVE])
@few
@given(
    parts=st.lists(st.integers(0, 7), max_size=6),
    refill=st.integers(1, 9),
    threshold=st.floats(0.3, 1.0),
    stop_after=st.none() | st.integers(0, 4),
)
def test_every_row_is_answered_once_also_after_cancellation(backend_of, family, parts, refill, threshold, stop_after):
    executor = Executor(backend_of(family), uniform(family, threshold))
    rng = np.random.default_rng(sum(parts))
    rows = [[rng.integers(5, 60, rng.integers(1, 8)).tolist() for _ in range(count)] for count in parts]
    batches = [TokenBatch.from_rows(part) for part in rows]
    stream, seen = executor.stream(batches, refill=refill), []
    for count, answers in enumerate(stream):
        seen.extend(answers.rows.tolist())
        if count == stop_after:
            stream.close()  # cancellation
    assert len(seen) == len(set(seen))
    if stop_after is None:
        assert sorted(seen) == list(range(sum(parts)))
    everything = TokenBatch.from_rows([row for part in rows for row in part])
    answers = executor.run(everything)  # nothing of the cancelled run stays behind
    assert answers.rows.tolist() == list(range(sum(parts)))


@pytest.mark.parametrize(
    "family", ["bert", "bert static", "bert dynamic", *ON_IPEX, *ON_OPENVINO, *ON_NATIVE, *TASKS_ON_NATIVE]
)
@few
@given(rows=rows_strategy, refill=st.integers(1, 12), size=st.integers(1, 5), criterion=criterion_strategy)
def test_refill_does_not_affect_answers(backend_of, family, rows, refill, size, criterion):
    criterion = fitting(family, criterion)
    executor = Executor(backend_of(family), Policy((0.45,) * (NUM_EXITS - 1), (1.0,) * NUM_EXITS, criterion))
    batch = TokenBatch.from_rows(rows)
    batches = [batch.select(np.arange(start, min(start + size, len(rows)))) for start in range(0, len(rows), size)]
    got = {}
    for answers in executor.stream(batches, refill=refill):
        got.update(
            {
                int(row): (int(place), logits)
                for row, place, logits in zip(answers.rows, answers.exit_index, answers.logits, strict=True)
            }
        )
    expected = executor.run(batch)
    sure = decisive(executor, batch, executor.policy, rounding(family)["atol"])
    for row in np.flatnonzero(sure):
        assert got[row][0] == expected.exit_index[row]
        np.testing.assert_allclose(got[row][1], expected.logits[row], **rounding(family))


@pytest.mark.parametrize("family", ["bert", "bert static", *ON_IPEX, *ON_OPENVINO, *ON_NATIVE])
def test_concurrent_calls_are_independent(backend_of, family):
    executor = Executor(backend_of(family), None)
    rng = np.random.default_rng(0)
    batches = [TokenBatch.from_rows(random_rows(rng, rng.integers(1, 30, 20).tolist(), first=5)) for _ in range(6)]
    expected = [executor.logits_at_every_exit(batch, 8) for batch in batches]
    got = [None] * len(batches)

    def answer(place: int) -> None:
        for _ in range(3):
            got[place] = executor.logits_at_every_exit(batches[place], 8)

    threads = [threading.Thread(target=answer, args=(place,)) for place in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
