"""The OpenVINO backend: agreement with the reference, integer kernels, refusals."""

from __future__ import annotations

import os
import platform

import numpy as np
import pytest

from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.runtime.backends import dense, load_backend, openvino_version, unavailable_reason
from itrex_sweet.runtime.backends import openvino as backend_module
from itrex_sweet.runtime.backends.openvino import OpenVinoBackend
from itrex_sweet.runtime.backends.torch import TorchBackend
from tests.quantized_encoders import quantized
from tests.runtime.test_ipex import OldMachine, all_logits, needs_vnni, some_rows
from tests.runtime.test_laws import NEEDS_OPENVINO


@NEEDS_OPENVINO
@pytest.mark.parametrize("family", ["roberta", "deberta-v2-conv"])
def test_float32_logits_match_the_reference(backend_of, family):
    backend, reference = backend_of(f"{family} on openvino"), backend_of(family)
    np.testing.assert_allclose(
        all_logits(backend, some_rows()), all_logits(reference, some_rows()), rtol=1e-4, atol=1e-5
    )


@NEEDS_OPENVINO
def test_bfloat16_logits_are_close_to_the_reference(backend_of):
    reference = backend_of("bert")
    backend = OpenVinoBackend(reference.artifact, dtype="bfloat16")
    off = np.abs(all_logits(backend, some_rows()) - all_logits(reference, some_rows()))
    assert 1e-5 < off.max() < 0.1  # greater than the difference of float32


@NEEDS_OPENVINO
@needs_vnni
@pytest.mark.parametrize(("family", "recipe"), [("distilbert", "smooth"), ("roberta", "mixed")])
def test_int8_logits_match_the_reference(backend_of, family, recipe):
    reference = backend_of(family)
    encoder = quantized(reference.encoder, recipe)
    expected = all_logits(TorchBackend(reference.artifact, encoder), some_rows())
    off = np.abs(all_logits(OpenVinoBackend(reference.artifact, encoder=encoder), some_rows()) - expected)
    assert np.median(off) < 1e-3
    assert off.max() < 0.05  # inputs near a rounding boundary


@NEEDS_OPENVINO
@needs_vnni
def test_int8_layer_in_float_is_refused(backend_of, monkeypatch):
    reference = backend_of("bert")
    monkeypatch.setattr(backend_module, "count_integer_products", lambda compiled: 3)
    with pytest.raises(BackendUnavailable, match="computes 3 of the 4 INT8 layers of 'probe 0' in integers"):
        OpenVinoBackend(reference.artifact, encoder=quantized(reference.encoder, "static"))


@NEEDS_OPENVINO
def test_dynamic_quantization_is_refused(backend_of):
    reference = backend_of("bert")
    with pytest.raises(BackendUnavailable, match=r"recipe 'dynamic', and OpenVINO .* recipe 'static' or 'smooth'"):
        OpenVinoBackend(reference.artifact, encoder=quantized(reference.encoder, "dynamic"))


@NEEDS_OPENVINO
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 only")
def test_int8_without_vnni_is_refused(backend_of, monkeypatch):
    reference = backend_of("bert")
    monkeypatch.setattr(dense, "Machine", OldMachine)
    with pytest.raises(BackendUnavailable, match="saturate on x86-64 processors without VNNI"):
        OpenVinoBackend(reference.artifact, encoder=quantized(reference.encoder, "static"))


@NEEDS_OPENVINO
def test_invalid_settings_are_refused(backend_of):
    reference = backend_of("bert")
    with pytest.raises(ConfigError, match="dtype='float16' is unknown"):
        OpenVinoBackend(reference.artifact, dtype="float16")
    with pytest.raises(ConfigError, match=r"warm_up contains \(1, 0\)"):
        OpenVinoBackend(reference.artifact, warm_up=[(1, 0)])
    with pytest.raises(ConfigError, match="threads=0"):
        load_backend(reference.artifact, "openvino", threads=0)


@NEEDS_OPENVINO
def test_forked_child_cannot_use_the_backend_of_its_parent(backend_of):
    backend = backend_of("bert+private static on openvino")
    child = os.fork()
    if child == 0:
        try:
            all_logits(backend, some_rows())
        except BackendUnavailable as error:
            os._exit(0 if "OpenVINO does not support forks" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("package", ["openvino", "torch"])
def test_missing_package_names_the_extra(backend_of, monkeypatch, package):
    monkeypatch.setattr(openvino_version, "is_installed", lambda name: name != package)
    assert f"needs {package}" in unavailable_reason("openvino")
    with pytest.raises(BackendUnavailable, match=rf"needs {package}, .* pip install 'itrex-sweet\[openvino\]'"):
        load_backend(backend_of("bert").artifact, "openvino")
