"""Tests of the ipex backend: closeness to the reference, bounded compilation, and errors."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch

from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import dense, ipex_version
from itrex_sweet.runtime.backends import ipex as backend_module
from itrex_sweet.runtime.backends.base import DTYPES
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.machine import INSTRUCTION_SETS, Machine
from itrex_sweet.runtime.ragged import TokenBatch
from tests.quantized_encoders import quantized
from tests.runtime.conftest import loaded_or_skipped
from tests.runtime.test_laws import NUM_EXITS
from tests.tiny_artifacts import random_rows
from tests.tiny_models import FAMILY_CONFIGS


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


needs_ipex = pytest.mark.skipif(
    not installed(ipex_version.DISTRIBUTION), reason="intel-extension-for-pytorch is not installed"
)
needs_vnni = pytest.mark.skipif(
    platform.machine() == "x86_64" and not set(dense._VNNI) & set(Machine.here().instruction_sets),
    reason="this processor has no VNNI",
)
FLOAT_ROUNDING = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def ipex_of(backend_of):
    """Loads the ipex backend and its reference: a family, and a recipe, or `"float32"` or `"bfloat16"`."""
    loaded = {}

    def load(family: str, kind: str = "float32"):
        if (family, kind) not in loaded:
            reference = backend_of(family)
            if kind in DTYPES:
                options = {"dtype": kind}
            else:
                options = {"encoder": quantized(reference.encoder, kind)}
                reference = TorchBackend(reference.artifact, options["encoder"])
            backend = loaded_or_skipped(lambda: backend_module.IpexBackend(reference.artifact, **options))
            loaded[family, kind] = backend, reference
        return loaded[family, kind]

    return load


def some_rows(seed: int = 0) -> TokenBatch:
    """Returns rows of many lengths, one of a single token and one with masked tokens inside."""
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, [1, 2, 30, *rng.integers(1, 30, 17).tolist()], first=5)
    packed = TokenBatch.from_rows(rows)
    with_hole = TokenBatch.from_padded(np.array([[7, 8, 9, 10, 11]]), np.array([[1, 0, 0, 1, 1]]))
    return TokenBatch.concatenate([packed, with_hole])


def all_logits(backend, batch: TokenBatch, batch_size: int = 8) -> np.ndarray:
    return Executor(backend, None).logits_at_every_exit(batch, batch_size)


# ---------------------------------------------------------------------------------------------------- answers


@needs_ipex
@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_float32_equals_the_reference(ipex_of, family):
    backend, reference = ipex_of(family)
    np.testing.assert_allclose(all_logits(backend, some_rows()), all_logits(reference, some_rows()), **FLOAT_ROUNDING)


@needs_ipex
@pytest.mark.parametrize("family", ["bert", "deberta-v3"])
def test_bfloat16_is_near_the_reference(ipex_of, family):
    backend, reference = ipex_of(family, "bfloat16")
    off = np.abs(all_logits(backend, some_rows()) - all_logits(reference, some_rows()))
    assert 1e-5 < off.max() < 0.1  # further than float32 would be: it did run in bfloat16


@needs_ipex
@pytest.mark.parametrize(
    "family, recipe",
    [
        ("bert", "static"),
        ("bert", "smooth"),
        ("roberta", "mixed"),
        ("electra", "static"),
        ("distilbert", "static"),
        ("deberta-v3", "static"),
        ("modernbert", "static"),
    ],
)
def test_int8_equals_the_reference(ipex_of, family, recipe):
    backend, reference = ipex_of(family, recipe)
    got, expected = all_logits(backend, some_rows()), all_logits(reference, some_rows())
    off = np.abs(got - expected)
    assert np.median(off) < 1e-3
    assert off.max() < 0.05  # rounding may change a quantized input by one step
    two_best = np.sort(expected, axis=-1)[..., -2:]
    sure = np.diff(two_best, axis=-1)[..., 0] > 0.1
    assert sure.mean() > 0.5
    assert (got.argmax(-1) == expected.argmax(-1))[sure].all()


@needs_ipex
@pytest.mark.parametrize("rows", [1, 2, 4, 16])
@pytest.mark.parametrize("kind", ["float32", "static"])
def test_probe_does_not_change_hidden_states(ipex_of, kind, rows):
    """Fused sums are computed in place, which must not overwrite the caller's states."""
    backend, _ = ipex_of("bert", kind)
    hidden = backend.embed(TokenBatch.from_rows([[7, 8, 9]] * rows))
    before = [block.states.clone() for block in hidden.blocks]
    first = backend.probe(0, hidden)
    backend.advance(0, hidden)
    np.testing.assert_array_equal(backend.probe(0, hidden), first)
    assert all(torch.equal(block.states, states) for block, states in zip(hidden.blocks, before, strict=True))


@needs_ipex
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "static"])
def test_empty_batch(ipex_of, kind):
    backend, _ = ipex_of("bert", kind)
    answers = Executor(backend, Policy.uniform(NUM_EXITS)).run(TokenBatch.from_rows([]))
    assert answers.logits.shape == (0, backend.num_labels)
    assert backend.probe(0, backend.embed(TokenBatch.from_rows([]))).shape == (0, backend.num_outputs)


# ---------------------------------------------------------------------------------------------------- compilation


def compiled_partitions(run) -> int:
    with torch.profiler.profile() as profile:
        run()
    return sum(event.count for event in profile.key_averages() if event.key == "LLGA_bridge::compileKernel")


@needs_ipex
@needs_vnni
def test_compilations_are_counted_and_bounded(backend_of, caplog):
    reference = backend_of("bert")
    backend = backend_module.IpexBackend(reference.artifact, encoder=quantized(reference.encoder, "static"))
    at_load = backend.compilations
    batch = TokenBatch.from_rows([[9] * 30] * 5)
    with caplog.at_level(logging.DEBUG, logger=backend_module.__name__):
        assert compiled_partitions(lambda: all_logits(backend, batch)) > 0
    # Blocks of 4 rows and of 1: two shapes for each of three probes and two advances; embed has no layers in it.
    assert backend.compilations - at_load == 2 * (3 + 2)
    assert len(caplog.records) == 10 and "4 rows of 32 tokens" in caplog.text
    again = lambda: all_logits(backend, TokenBatch.from_rows([[9] * 29, *[[8] * 31] * 3, [7] * 32]))  # noqa: E731
    assert compiled_partitions(again) == 0
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = random_rows(rng, rng.integers(1, 60, rng.integers(1, 40)).tolist())
        all_logits(backend, TokenBatch.from_rows(rows), batch_size=40)
    assert backend.compilations <= backend.max_compilations < 120


@needs_ipex
@needs_vnni
def test_warmed_up_shapes_are_not_compiled_again(backend_of):
    reference = backend_of("bert")
    backend = backend_module.IpexBackend(
        reference.artifact, warm_up=((8, 16), (1, 30)), encoder=quantized(reference.encoder, "static")
    )
    before = backend.compilations
    run = lambda: [all_logits(backend, TokenBatch.from_rows([[9] * n] * rows)) for rows, n in ((8, 15), (1, 29))]  # noqa: E731
    assert compiled_partitions(run) == 0
    assert backend.compilations == before


@needs_ipex
@needs_vnni
def test_int8_layers_that_are_not_fused_raise(backend_of):
    reference = backend_of("bert")
    ipex = backend_module.import_ipex()
    ipex.enable_onednn_fusion(False)
    try:
        with pytest.raises(BackendUnavailable, match=r"fused 0 of the \d+ INT8 layers"):
            backend_module.IpexBackend(reference.artifact, encoder=quantized(reference.encoder, "static"))
    finally:
        ipex.enable_onednn_fusion(True)


@needs_ipex
@pytest.mark.parametrize("call", ["embed", "probe", "advance"])
def test_changed_number_of_threads_raises(ipex_of, call):
    backend, _ = ipex_of("bert", "static")
    batch = TokenBatch.from_rows([[5, 6, 7]])
    hidden = backend.embed(batch)
    calls = {
        "embed": lambda: backend.embed(batch),
        "probe": lambda: backend.probe(0, hidden),
        "advance": lambda: backend.advance(0, hidden),
    }
    torch.set_num_threads(backend.threads + 1)
    try:
        with pytest.raises(BackendUnavailable, match=rf"for {backend.threads} threads, but torch"):
            calls[call]()
    finally:
        torch.set_num_threads(backend.threads)
    calls[call]()


# ---------------------------------------------------------------------------------------------------- refusals


class OldMachine:
    """A processor with AVX2 and without VNNI and AVX-512."""

    instruction_sets = tuple(name for name in INSTRUCTION_SETS if name == "avx2")
    here = classmethod(lambda cls: cls)


@needs_ipex
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 only")
def test_old_processors_are_refused(backend_of, monkeypatch):
    reference = backend_of("bert")
    for module in (dense, backend_module):
        monkeypatch.setattr(module, "Machine", OldMachine)
    with pytest.raises(BackendUnavailable, match="of IPEX saturate on x86-64 processors without VNNI"):
        backend_module.IpexBackend(reference.artifact, encoder=quantized(reference.encoder, "static"))
    with pytest.raises(BackendUnavailable, match="AVX-512 for bfloat16"):
        backend_module.IpexBackend(reference.artifact, dtype="bfloat16")


@needs_ipex
def test_per_row_scales_are_rejected(backend_of):
    reference = backend_of("bert")
    with pytest.raises(BackendUnavailable, match=r"'dynamic'.*backend='native' or 'torch'.*'static' or 'smooth'"):
        backend_module.IpexBackend(reference.artifact, encoder=quantized(reference.encoder, "dynamic"))


@needs_ipex
@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(dtype="float16"), "dtype='float16'"),
        (dict(warm_up=((0, 8),)), r"\(0, 8\)"),
        (dict(warm_up=((1, 65),)), "at most 64 tokens"),
    ],
)
def test_invalid_settings(backend_of, settings, words):
    with pytest.raises(ConfigError, match=words):
        backend_module.IpexBackend(backend_of("bert").artifact, **settings)


@needs_ipex
def test_bfloat16_with_an_int8_artifact(backend_of):
    reference = backend_of("bert")
    with pytest.raises(ConfigError, match="dtype='bfloat16'"):
        backend_module.IpexBackend(reference.artifact, dtype="bfloat16", encoder=quantized(reference.encoder, "static"))


def versions(monkeypatch, **known: str | None) -> None:
    asked = metadata.version

    def version(name: str) -> str:
        found = known[key] if (key := name.replace("-", "_")) in known else asked(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(ipex_version.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", None)  # importing it fails


def test_missing_package_names_the_extra(monkeypatch, backend_of):
    versions(monkeypatch, intel_extension_for_pytorch=None, torch="2.8.0")
    with pytest.raises(BackendUnavailable, match=r"not installed.*itrex-sweet\[ipex\]"):
        backend_module.import_ipex()
    with pytest.raises(BackendUnavailable, match=r"itrex-sweet\[ipex\]"):
        backend_module.IpexBackend(backend_of("bert").artifact)


@pytest.mark.parametrize("torch_version", ["2.13.0+cpu", "2.7.1", "3.8.0"])
def test_incompatible_version_is_found_before_import(monkeypatch, torch_version):
    versions(monkeypatch, intel_extension_for_pytorch="2.8.0", torch=torch_version)
    with pytest.raises(BackendUnavailable, match=rf"2\.8\.0 does not work with torch {torch_version[:3]}.*\[ipex\]"):
        backend_module.import_ipex()


def test_torch_graph_fusion_is_rejected(monkeypatch):
    versions(monkeypatch, intel_extension_for_pytorch="2.8.0", torch="2.8.0")
    monkeypatch.setattr(torch.jit, "onednn_fusion_enabled", lambda: True)
    with pytest.raises(BackendUnavailable, match=r"torch\.jit\.enable_onednn_fusion"):
        backend_module.import_ipex()


def test_compatible_versions(monkeypatch):
    versions(monkeypatch, intel_extension_for_pytorch="2.8.10", torch="2.8.0+cpu")
    module = type(sys)("intel_extension_for_pytorch")
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", module)
    assert backend_module.import_ipex() is module


def test_module_is_importable_without_ipex():
    script = "import sys, itrex_sweet.runtime.backends.ipex\nassert 'intel_extension_for_pytorch' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
