"""Tests of the choice of the backend: the requested one or an error; for `auto` the fastest usable one."""

import functools
import logging

import pytest

from itrex_sweet.artifact import open_artifact, write_artifact
from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.quantization.packing import pack
from itrex_sweet.runtime import backends
from itrex_sweet.runtime.backends import ipex, ipex_version, load_backend, native, openvino, unavailable_reason
from itrex_sweet.runtime.native.library import ISA_VARIABLE
from itrex_sweet.runtime.ragged import TokenBatch
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import tiny_artifact, tiny_cascade


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Returns a float artifact and INT8 artifacts made from it, by recipe."""
    folder = tmp_path_factory.mktemp("artifacts")
    source = tiny_artifact(folder / "float32")
    rows = TokenBatch.from_rows([[7, 8, 9, 10], [11, 12]])
    found = {"float32": source}
    for recipe in ("static", "dynamic"):
        linears = observe_with_hooks(source, rows, recipe).linears
        tensors = pack(source.tensors(), linears)
        facts = {"recipe": recipe}
        found[recipe] = write_artifact(
            folder / recipe, config=source.model_config(), tensors=tensors, quantization=facts
        )
    return found


class Made:
    def __init__(self, name, artifact, *options, **named):
        self.name, self.options = name, options or named


@pytest.mark.parametrize(
    ("kind", "dtype", "usable", "taken"),
    [
        ("static", None, {"native", "ipex"}, "native"),
        ("dynamic", None, {"native", "ipex"}, "native"),
        ("float32", None, {"native", "ipex"}, "native"),
        ("static", None, {"ipex"}, "ipex"),
        ("static", None, {"openvino"}, "openvino"),
        ("static", None, set(), "torch"),
        ("dynamic", None, {"ipex", "openvino"}, "torch"),
        ("float32", None, {"ipex", "openvino"}, "torch"),
        ("float32", "bfloat16", {"native", "ipex"}, "native"),
        ("float32", "bfloat16", {"ipex"}, "ipex"),
    ],
)
def test_auto_chooses_the_fastest_and_logs_it(monkeypatch, caplog, artifacts, kind, dtype, usable, taken):
    monkeypatch.setattr(ipex, "IpexBackend", functools.partial(Made, "ipex"))
    monkeypatch.setattr(native, "NativeBackend", functools.partial(Made, "native"))
    monkeypatch.setattr(openvino, "OpenVinoBackend", functools.partial(Made, "openvino"))
    monkeypatch.setattr(backends, "check_openvino", lambda: None)
    monkeypatch.setattr(backends, "unavailable_reason", lambda name: None if name in usable else "not installed")
    with caplog.at_level(logging.INFO, "itrex_sweet"):
        backend = load_backend(artifacts[kind], "auto", dtype=dtype, warm_up=[(1, 8)])
    assert backend.name == taken
    assert (f"selected {taken}" in caplog.text) == (taken != "torch")
    if taken in ("ipex", "openvino"):
        assert backend.options == (dtype or "float32", [(1, 8)])
    if taken == "native":
        assert backend.options == {"dtype": dtype}


def test_auto_skips_backends_that_cannot_run_the_artifact(monkeypatch, caplog, artifacts):
    def refuse(artifact, dtype):
        raise BackendUnavailable("an unknown layer")

    monkeypatch.setattr(native, "NativeBackend", refuse)
    monkeypatch.setattr(backends, "unavailable_reason", lambda name: None if name == "native" else "not installed")
    with caplog.at_level(logging.INFO, "itrex_sweet"):
        assert load_backend(artifacts["float32"], "auto").name == "torch"
    assert "skipped native: an unknown layer" in caplog.text


def test_auto_raises_for_a_forced_instruction_set(monkeypatch, artifacts):
    monkeypatch.setenv(ISA_VARIABLE, "abacus")
    with pytest.raises(BackendUnavailable, match="abacus"):
        load_backend(artifacts["float32"], "auto")


def test_requested_backend_is_never_replaced(artifacts, monkeypatch):
    with pytest.raises(BackendUnavailable, match="backend='onnx' is unknown"):
        load_backend(artifacts["float32"], "onnx")
    monkeypatch.setattr(ipex_version, "DISTRIBUTION", "a-package-that-is-not-there")
    assert "is not installed" in unavailable_reason("ipex")
    with pytest.raises(BackendUnavailable, match=r"itrex-sweet\[ipex\]"):
        load_backend(artifacts["static"], "ipex")


def test_torch_backend_supports_float32_only(artifacts):
    assert load_backend(artifacts["float32"], "torch", dtype="float32").name == "torch"
    with pytest.raises(ConfigError, match="bfloat16"):
        load_backend(artifacts["float32"], "torch", dtype="bfloat16")


@pytest.mark.skipif(unavailable_reason("ipex") is not None, reason="IPEX is not usable here")
def test_cascade_on_ipex(tmp_path):
    backend = load_backend(open_artifact(tiny_cascade(tmp_path).directory), "ipex")
    assert {stage.name for stage in backend.stages} == {"ipex"}
