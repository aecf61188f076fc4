"""The native backend: agreement with the reference on every instruction set, and what goes wrong without harm."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch

from itrex_sweet import criteria
from itrex_sweet.config import Policy
from itrex_sweet.errors import ArtifactError, BackendUnavailable, ConfigError, InputError, SweetError
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.native import library
from itrex_sweet.runtime.native.packing import new_model
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.torch_encoder import load_torch_encoder
from tests.quantized_encoders import quantized
from tests.tiny_artifacts import random_rows, tiny_artifact

USABLE = [isa for isa, reason in library.available().items() if reason is None]
pytestmark = pytest.mark.skipif(not USABLE, reason="the native engine was not built")
FAMILIES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "bert+private")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Loads a tiny artifact and the encoder to run: a family, with private layers as `bert+private`, and `"float32"`
    or a recipe.
    """
    artifacts = {}

    def load(family: str, kind: str = "float32"):
        if family not in artifacts:
            plain, _, private = family.partition("+")
            mode = "decoupled" if private else "sweet"
            artifacts[family] = tiny_artifact(tmp_path_factory.mktemp(plain), plain, (1, 2, 4), mode=mode)
        encoder = load_torch_encoder(artifacts[family])
        return artifacts[family], encoder if kind == "float32" else quantized(encoder, kind)

    return load


def some_rows(seed: int = 0) -> TokenBatch:
    rng = np.random.default_rng(seed)
    return TokenBatch.from_rows(random_rows(rng, [1, 2, 33, *rng.integers(1, 30, 17).tolist()], first=5))


def all_logits(backend, batch: TokenBatch, batch_size: int = 8) -> np.ndarray:
    return Executor(backend, None).logits_at_every_exit(batch, batch_size)


@pytest.mark.parametrize("isa", USABLE)
@pytest.mark.parametrize("kind", ["float32", "static", "smooth", "dynamic", "mixed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_as_the_reference(loaded, family, kind, isa):
    artifact, encoder = loaded(family, kind)
    got = all_logits(NativeBackend(artifact, encoder, isa=isa), some_rows())
    expected = all_logits(TorchBackend(artifact, encoder), some_rows())
    off = np.abs(got - expected)
    assert np.median(off) < 1e-5
    # In 8 bits another rounding of a float (exponentials, erf, the order of a sum) moves an input by one step.
    assert off.max() < (1e-4 if kind == "float32" else 0.1)
    sure = np.diff(np.sort(expected, axis=-1)[..., -2:], axis=-1)[..., 0] > 0.1
    assert sure.mean() > 0.5 and (got.argmax(-1) == expected.argmax(-1))[sure].all()


@pytest.mark.parametrize("isa", USABLE)
@pytest.mark.parametrize("kind", ["static", "dynamic", "float32"])
def test_long_texts_whose_attention_is_in_16_bits(loaded, kind, isa):
    artifact, encoder = loaded("bert", kind)
    rows = TokenBatch.from_rows(random_rows(np.random.default_rng(1), [64, 63, 64, 5, 64], first=5))
    backend = NativeBackend(artifact, encoder, isa=isa, threads=2, least_work=0)
    got = all_logits(backend, rows)
    off = np.abs(got - all_logits(TorchBackend(artifact, encoder), rows))
    assert np.median(off) < 1e-3 and off.max() < (1e-4 if kind == "float32" else 0.1)
    np.testing.assert_array_equal(all_logits(backend, rows, 1), got)


@pytest.mark.parametrize("isa", USABLE)
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_close(loaded, family, isa):
    artifact, encoder = loaded(family)
    backend = NativeBackend(artifact, encoder, isa=isa, dtype="bfloat16")
    off = np.abs(all_logits(backend, some_rows()) - all_logits(TorchBackend(artifact, encoder), some_rows()))
    assert 1e-5 < off.max() < 0.1  # further than float32 would be: it did run in bfloat16
    np.testing.assert_array_equal(all_logits(backend, some_rows(), 1), all_logits(backend, some_rows()))
    assert backend.weight_bytes < NativeBackend(artifact, encoder, isa=isa).weight_bytes


def test_bfloat16_is_for_float_artifacts(loaded):
    with pytest.raises(ConfigError, match="dtype='bfloat16'"):
        NativeBackend(*loaded("bert", "static"), dtype="bfloat16")
    with pytest.raises(ConfigError, match="dtype='float16' is unknown"):
        NativeBackend(*loaded("bert"), dtype="float16")


@pytest.mark.parametrize("family", ["bert", "bert+private"])
@pytest.mark.parametrize("kind", ["float32", "static", "dynamic"])
def test_threads_and_batches_change_no_bit(loaded, family, kind):
    artifact, encoder = loaded(family, kind)
    expected = all_logits(NativeBackend(artifact, encoder, threads=1), some_rows(), 1)
    for threads in (1, 2, 3, 7):  # more than this machine may have
        for batch_size in (1, 5, 20):
            got = all_logits(NativeBackend(artifact, encoder, threads=threads, least_work=0), some_rows(), batch_size)
            np.testing.assert_array_equal(got, expected)


def test_a_child_after_a_fork_goes_on(loaded):
    backend = NativeBackend(*loaded("bert", "static"), threads=2, least_work=0)
    expected = all_logits(backend, some_rows())
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        same = b"n"
        try:
            same = b"y" if np.array_equal(all_logits(backend, some_rows()), expected) else b"n"
        finally:
            os.write(writes, same)
            os._exit(0)
    os.close(writes)
    assert os.read(reads, 1) == b"y"
    os.waitpid(child, 0)
    os.close(reads)
    np.testing.assert_array_equal(all_logits(backend, some_rows()), expected)


@pytest.mark.parametrize("kind", ["float32", "static"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.55, 0.7, 1.0])
def test_the_engine_s_loop_is_the_executor_s(loaded, monkeypatch, kind, threshold):
    backend = NativeBackend(*loaded("bert", kind), threads=2, least_work=0)
    executor = Executor(backend, Policy((threshold, 0.45), (1.0, 1.5, 0.7)))
    in_one_call = executor.run(some_rows())
    monkeypatch.setattr(backend, "answer", lambda batch, policy: None)
    step_by_step = executor.run(some_rows())
    for name in ("rows", "logits", "exit_index", "confidence"):
        got, expected = getattr(in_one_call, name), getattr(step_by_step, name)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_confidences_are_those_of_the_criteria(loaded):
    backend = NativeBackend(*loaded("bert"))
    logits = np.random.default_rng(0).normal(0, 8, (300, backend.num_labels)).astype(np.float32)
    logits[:3, 0] = np.nan, np.inf, -np.inf
    logits[3] = -np.inf
    policy = Policy((0.5, 0.5), (1.0, 1.7, 0.2))
    for place in range(3):
        got, _ = backend.confidence(policy, place, logits)
        np.testing.assert_allclose(got, criteria.confidence(policy, place, logits)[0], rtol=1e-6)
        assert np.isnan(got[[0, 1, 3]]).all()


def test_an_interrupt_loses_nothing_but_its_call(loaded):
    backend = NativeBackend(*loaded("bert", "static"), threads=2, least_work=0)
    expected = all_logits(backend, some_rows())

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for microseconds in (200, 900, 2500):
            signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6)
            with pytest.raises(KeyboardInterrupt):
                while True:
                    all_logits(backend, some_rows())
            np.testing.assert_array_equal(all_logits(backend, some_rows()), expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_rows_dropped_and_merged_stay_as_they_are(loaded):
    backend = NativeBackend(*loaded("bert"), threads=2, least_work=0)
    hidden = backend.embed(some_rows())
    logits = backend.probe(0, hidden)
    odd, even = (hidden.select(np.arange(start, len(hidden), 2)) for start in (1, 0))
    del hidden  # its memory lives on in the parts
    merged = backend.merge([odd, even])
    order = np.concatenate([np.arange(1, len(logits), 2), np.arange(0, len(logits), 2)])
    np.testing.assert_array_equal(backend.probe(0, merged), logits[order])


def test_no_rows(loaded):
    backend = NativeBackend(*loaded("bert", "static"))
    answers = Executor(backend, Policy.uniform(3)).run(TokenBatch.from_rows([]))
    assert answers.logits.shape == (0, backend.num_labels)


@pytest.mark.parametrize("field, value", [("input_ids", -1), ("input_ids", 10**6), ("position_ids", 10**6)])
def test_ids_beyond_the_tables_are_refused_and_nothing_is_lost(loaded, field, value):
    backend = NativeBackend(*loaded("bert"))
    batch = some_rows()
    before = all_logits(backend, batch)
    bad = getattr(batch, field).copy()
    bad[3] = value
    with pytest.raises(SweetError, match=str(value)):
        backend.embed(TokenBatch(**{**vars(batch), field: bad}))
    np.testing.assert_array_equal(all_logits(backend, batch), before)


def test_arrays_of_another_kind_are_read_right(loaded):
    backend = NativeBackend(*loaded("bert"))
    batch = some_rows()
    doubled = np.repeat(batch.input_ids, 2).astype(np.int32)[::2]  # neither contiguous nor int64
    other = TokenBatch(doubled, batch.token_type_ids, batch.position_ids, batch.cu_seqlens)
    np.testing.assert_array_equal(all_logits(backend, other), all_logits(backend, batch))


def test_weights_that_are_no_numbers_give_logits_that_are_none(loaded):
    artifact, encoder = loaded("bert", "static")
    encoder.embeddings.words[7] = torch.nan
    logits = all_logits(NativeBackend(artifact, encoder), TokenBatch.from_rows([[5, 6], [7, 5], [8, 9]]))
    assert np.isfinite(logits[[0, 2]]).all() and np.isnan(logits[1, -1]).all()


@pytest.mark.parametrize("family", ["deberta", "deberta-v3", "deberta-v2-conv"])
def test_families_it_does_not_know_are_refused_with_a_way_out(loaded, family):
    with pytest.raises(BackendUnavailable, match="backend='torch'"):
        NativeBackend(*loaded(family))


def test_memory_is_reported_and_stops_growing(loaded):
    artifact, encoder = loaded("bert", "static")
    backend = NativeBackend(artifact, encoder, threads=2, least_work=0)
    all_logits(backend, some_rows())
    size = backend.workspace_bytes
    for _ in range(5):
        all_logits(backend, some_rows())
    assert backend.workspace_bytes == size > 0
    assert backend.weight_bytes > 0


def changed(encoder, path: str, **fields):
    """The encoder with one part, such as `segments.1.0.query`, changed."""
    if not path:
        return dataclasses.replace(encoder, **fields)
    first, _, rest = path.partition(".")
    if isinstance(encoder, tuple):
        place = int(first)
        return (*encoder[:place], changed(encoder[place], rest, **fields), *encoder[place + 1 :])
    return dataclasses.replace(encoder, **{first: changed(getattr(encoder, first), rest, **fields)})


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        *(("", dict(num_attention_heads=heads)) for heads in (0, -4, 5, 2**31, 2**32 + 4, 2**40, 4.0)),
        *(
            ("segments.1.0.query", dict(input_zero_point=point))
            for point in (-1, 256, 300, 2**31 - 1, 2**32, float("nan"))
        ),
        *(("segments.2.0.down", dict(input_scale=scale)) for scale in (0.0, -1.0, float("nan"), float("inf"))),
        *(("segments.2.0.key", dict(weight_scale=torch.full((32,), scale))) for scale in (0.0, -1.0, float("nan"))),
        ("segments.2.1.key", dict(weight_scale=torch.ones(31))),
        (
            "segments.2.1.value",
            dict(weight=torch.zeros(16, 32, dtype=torch.int8), weight_scale=torch.ones(16), bias=None),
        ),
        (
            "segments.2.1.key",
            dict(weight=torch.zeros(64, 32, dtype=torch.int8), weight_scale=torch.ones(64), bias=None),
        ),
        ("segments.1.0.attention_norm", dict(bias=torch.zeros(8))),
        ("segments.1.0.up", dict(bias=torch.zeros(8))),
        ("embeddings", dict(words=torch.zeros(99, 16))),
        ("embeddings", dict(words=torch.zeros(99, 64))),
        ("embeddings", dict(positions=torch.zeros(40, 16))),
        ("embeddings.norm", dict(weight=torch.ones(16), bias=torch.zeros(16))),
        ("probes.0.head.classifier", dict(weight=torch.zeros(2, 32), bias=torch.zeros(2))),
        ("probes.0.layer.key", dict(weight=torch.zeros(64, 32, dtype=torch.int8), weight_scale=torch.ones(64))),
        ("probes.2.layer.down", dict(bias=torch.zeros(8))),
        ("probes.1.head.dense", dict(bias=torch.zeros(3))),
        ("", dict(score_scale=float("nan"))),
        ("", dict(uncounted_token=10**6)),
        ("", dict(uncounted_token=2**31)),
    ],
)
def test_tensors_that_do_not_fit_one_another_are_refused(loaded, path, fields):
    artifact, encoder = loaded("bert", "static")
    with pytest.raises(ArtifactError, match="the native engine refuses it"):
        NativeBackend(artifact, changed(encoder, path, **fields))


def test_plans_that_do_not_fit_are_refused(loaded):
    _, encoder = loaded("bert+private")
    first, second, third, _ = encoder.trunk
    with pytest.raises(SweetError, match="full layers before an exit"):  # two exits before the same layer
        segments = ((first,), (), (second, third))
        new_model(library.load(), dataclasses.replace(encoder, segments=segments), 1)
    with pytest.raises(SweetError, match="full layer of a probe"):  # a layer further on
        new_model(library.load(), changed(encoder, "probes.0", layer=third), 1)


@pytest.mark.parametrize("kind", ["float32", "static"])
def test_no_form_of_a_layer_is_packed_that_is_not_run(loaded, kind):
    """Shared layers are packed for both, a full one without its probe's keys, a private one without its full keys."""
    artifact, encoder = loaded("bert+private", kind)
    trunk, probes = encoder.trunk, encoder.probes
    shared = (*(dataclasses.replace(probes[place], layer=trunk[place]) for place in (0, 1)), probes[2])

    def packed(**plan) -> int:
        return NativeBackend(artifact, dataclasses.replace(encoder, **plan)).weight_bytes

    in_full = packed(segments=(trunk[:3],), probes=probes[2:])
    of_full_layer = (in_full - packed(segments=((),), probes=probes[2:])) // 3
    one_for_both = (probes[0], dataclasses.replace(probes[1], layer=probes[0].layer), probes[2])
    of_private_layer = packed() - packed(probes=one_for_both)
    of_head = (packed() - in_full) // 2 - of_private_layer
    of_keys = (packed(probes=shared) - in_full) // 2 - of_head
    assert 0 < of_keys < of_private_layer < of_full_layer + of_keys


@pytest.mark.parametrize("field", ["input_ids", "token_type_ids", "position_ids"])
def test_arrays_that_are_too_short_are_refused(loaded, field):
    backend, batch = NativeBackend(*loaded("bert")), some_rows()
    short = dataclasses.replace(batch, **{field: getattr(batch, field)[:-1]})
    with pytest.raises(InputError, match="tokens"):
        backend.embed(short)
    with pytest.raises(InputError, match="tokens"):
        backend.answer(short, Policy.uniform(3))


def test_short_calls_run_on_one_thread_and_long_ones_on_all(loaded):
    artifact, encoder = loaded("bert")

    def grown(rows: int) -> int:
        before = len(os.listdir("/proc/self/task"))
        backend = NativeBackend(artifact, encoder, threads=3)
        backend.answer(TokenBatch.from_rows([[5, 6, 7]] * rows), Policy.uniform(3, 1.0))
        return len(os.listdir("/proc/self/task")) - before

    assert grown(1) == 0
    assert grown(2000) == 2


def test_what_exits_did_not_learn_is_read_off_nothing_else(loaded):
    artifact, encoder = loaded("bert")
    learned = Policy((0.5, 0.5), (1.0,) * 3, "learned")
    with pytest.raises(ConfigError, match="learned"):
        Executor(NativeBackend(artifact, encoder), learned).run(TokenBatch.from_rows([[5, 6, 7]]))
