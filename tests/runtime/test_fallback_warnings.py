"""Tests of the warning at load that no fast engine runs the model: once, with reason and remedy."""

import logging

import pytest

from itrex_sweet.artifact import write_artifact
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.quantization.packing import pack
from itrex_sweet.runtime import backends
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.native import library, packing
from itrex_sweet.runtime.ragged import TokenBatch
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import tiny_artifact


@pytest.fixture(autouse=True)
def _warnings_anew(monkeypatch):
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)
    backends._warn_once.cache_clear()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def without(monkeypatch, *instruction_sets):
    """Hides the libraries of these instruction sets."""
    files = library._path
    monkeypatch.setattr(library, "_path", lambda name: files(f"absent-{name}" if name in instruction_sets else name))


def test_no_compiler(tmp_path, monkeypatch, caplog):
    artifact = tiny_artifact(tmp_path)
    without(monkeypatch, *library.ISAS)
    assert load_backend(artifact).name == "torch"
    assert load_backend(artifact).name == "torch"
    (message,) = warnings(caplog)
    for part in (
        str(tmp_path),
        "torch reference",
        "native: ",
        "not built",
        "install a C++ compiler",
        "backend='torch'",
    ):
        assert part in message
    caplog.clear()
    load_backend(artifact, "torch")
    assert not warnings(caplog)


def test_warning_for_each_artifact(tmp_path, monkeypatch, caplog):
    without(monkeypatch, *library.ISAS)
    for name in ("a", "b", "a"):
        load_backend(tiny_artifact(tmp_path / name))
    assert [str(tmp_path / name) in message for name, message in zip("ab", warnings(caplog), strict=True)] == [True] * 2


def test_model_without_native_support(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(packing, "_ACTIVATIONS", {"relu": "relu"})
    assert load_backend(tiny_artifact(tmp_path, "deberta-v3")).name == "torch"
    (message,) = warnings(caplog)
    assert "does not support the activation" in message and "slower than the float32" not in message


def test_int8_on_the_torch_backend(tmp_path, caplog, monkeypatch):
    without(monkeypatch, *library.ISAS)
    source = tiny_artifact(tmp_path / "float32", "bert")
    linears = observe_with_hooks(source, TokenBatch.from_rows([[7, 8, 9, 10], [11, 12]]), "dynamic").linears
    artifact = write_artifact(
        tmp_path / "int8",
        config=source.model_config(),
        tensors=pack(source.tensors(), linears),
        quantization={"recipe": "dynamic"},
    )
    monkeypatch.setattr(
        backends, "unavailable_reason", lambda name: None if name == "native" else "it is not installed"
    )
    assert load_backend(artifact).name == "torch"
    (message,) = warnings(caplog)
    assert "slower than with the float32 artifact" in message and "run the float32 artifact" in message


def test_portable_kernels(tmp_path, monkeypatch, caplog):
    if library.available()["portable"] is not None:
        pytest.skip("the engine is not built")
    artifact = tiny_artifact(tmp_path)
    without(monkeypatch, *(isa for isa in library.ISAS if isa != "portable"))
    for _ in range(2):
        assert load_backend(artifact).isa == "portable"
    (message,) = warnings(caplog)
    for part in ("portable kernels", "avx2: not built", "Remedy: reinstall", "g++"):
        assert part in message
    caplog.clear()
    load_backend(artifact, "native")
    backends._warn_once.cache_clear()
    monkeypatch.setenv(library.ISA_VARIABLE, "portable")
    load_backend(artifact)
    assert not warnings(caplog)


def test_processor_without_the_instructions(tmp_path, monkeypatch, caplog):
    if library.available()["portable"] is not None:
        pytest.skip("the engine is not built")
    reason = library._unavailable_reason
    monkeypatch.setattr(
        library, "_unavailable_reason", lambda isa: reason(isa) if isa == "portable" else library.NOT_SUPPORTED
    )
    load_backend(tiny_artifact(tmp_path))
    (message,) = warnings(caplog)
    assert "not supported by this processor" in message and "a processor with AVX2" in message


def test_no_warning_with_the_fast_engine(tmp_path, caplog):
    if all(reason for isa, reason in library.available().items() if isa != "portable"):
        pytest.skip("no fast kernels here")
    assert load_backend(tiny_artifact(tmp_path)).name == "native"
    assert not warnings(caplog)


def test_forced_instruction_set_raises(tmp_path, monkeypatch):
    without(monkeypatch, *library.ISAS)
    monkeypatch.setenv(library.ISA_VARIABLE, "avx2")
    with pytest.raises(BackendUnavailable, match="avx2"):
        load_backend(tiny_artifact(tmp_path))
