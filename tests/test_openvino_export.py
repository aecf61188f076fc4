"""OpenVINO files: equal answers, 8-bit weights, integer kernels, and the model at full depth."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from itrex_sweet.errors import ExportError, MissingExtraError
from itrex_sweet.export import full_depth
from itrex_sweet.export.subgraphs import export_subgraphs
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.dense.openvino import compile_on_cpu, count_integer_products
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from tests import test_export
from tests.test_export import assert_equal_answers, int8_artifact, rows, with_early_exits
from tests.tiny_artifacts import tiny_artifact, tiny_cascade

openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install 'itrex-sweet[openvino]'")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def read(path):
    return openvino.Core().read_model(path)


def open_file(path, part):
    compiled = compile_on_cpu(read(path), threads=1)
    return lambda arrays: compiled(arrays)[0]


def full_depth_logits(folder, padding: int) -> np.ndarray:
    """Runs `openvino_model.xml` as optimum-intel does."""
    compiled, ids = compile_on_cpu(read(folder / "openvino_model.xml"), threads=1), rows()
    length = max(map(len, ids))
    arrays = {
        "input_ids": np.array([row + [padding] * (length - len(row)) for row in ids]),
        "attention_mask": np.array([[1] * len(row) + [0] * (length - len(row)) for row in ids]),
        "token_type_ids": np.zeros((len(ids), length), dtype=np.int64),
    }
    return compiled({port.any_name: arrays[port.any_name] for port in compiled.inputs})["logits"]


@pytest.mark.parametrize("kind", ["roberta", "cascade", "static"])
def test_export_matches_the_executor(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(test_export.Chain, "_torchscript", staticmethod(open_file))
    if kind == "cascade":
        artifact = tiny_cascade(tmp_path / "artifact")
    elif kind == "static":
        artifact = int8_artifact(tmp_path, "bert", kind, mode="decoupled")
    else:
        artifact = tiny_artifact(tmp_path / "artifact", kind)
    artifact = with_early_exits(artifact)
    facts = export_subgraphs(artifact, tmp_path / "out", format="openvino")
    accuracy = dict(median=1e-3, most=0.05) if kind == "static" else dict(median=1e-5, most=1e-4)
    assert_equal_answers(artifact, tmp_path / "out", **accuracy)
    parts = [*facts["subgraphs"].values(), facts["full_depth"]]
    files = {name for part in parts for name in (part["file"], part["weights_file"])}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*files, "config.json", "subgraphs.json"}
    backend = load_backend(artifact)
    expected = Executor(backend, None).logits_at_every_exit(TokenBatch.from_rows(rows()))[:, -1]
    off = np.abs(full_depth_logits(tmp_path / "out", backend.padding_idx or 0) - expected)
    assert np.median(off) < accuracy["median"] and off.max() < accuracy["most"]
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {str(place): label for place, label in enumerate(facts["labels"])}
    if kind == "static":
        advance = read(tmp_path / "out" / "advance_2_4.xml")
        constants = [node for node in advance.get_ops() if node.get_type_name() == "Constant"]
        matrices = [node for node in constants if len(node.shape) == 2 and min(node.shape) > 1]
        assert [node.get_output_element_type(0) for node in matrices] == [openvino.Type.i8] * 8
        assert count_integer_products(compile_on_cpu(advance, threads=1)) == 8


def test_inaccurate_full_depth_model_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(full_depth, "check_file", fail)
    with pytest.raises(ExportError, match="inaccurate"):
        export_subgraphs(tiny_artifact(tmp_path / "artifact", exits=(1,)), tmp_path / "out", format="openvino")
    assert not (tmp_path / "out").exists()


def fail(*arguments):
    raise ExportError("inaccurate")


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"needs openvino, .*itrex-sweet\[openvino\]"):
        export_subgraphs(tiny_artifact(tmp_path / "artifact", exits=(1,)), tmp_path / "out", format="openvino")
