"""Exported subgraphs, run only by their description, match the executor."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from itrex_sweet import open_artifact
from itrex_sweet.artifact import write_artifact
from itrex_sweet.artifact.layout import sha256
from itrex_sweet.errors import ArtifactError, ConfigError, ExportError, MissingExtraError
from itrex_sweet.export import description, onnx, torchscript
from itrex_sweet.export.subgraphs import export_subgraphs
from itrex_sweet.families import family_of
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.torch_encoder import load_torch_encoder
from tests.quantized_encoders import PROJECTIONS, quantized, with_int8_words
from tests.tiny_artifacts import model_and_tensors, random_rows, tiny_artifact, tiny_cascade
from tests.tiny_models import FAMILY_CONFIGS, tiny_model

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FORMATS = ("onnx", "torchscript")
LENGTHS = [3, 9, 1, 14, 6, 6, 11, 2, 20, 5, 8, 4]

# ---------------------------------------------------------------------------------------------------- another runtime


class Chain:
    """Runs an export without this package, by its description."""

    def __init__(self, folder: Path):
        self.facts = json.loads((folder / "subgraphs.json").read_text(encoding="utf-8"))
        opened = self._onnx if self.facts["kind"] == "onnx" else self._torchscript
        self.run_one = {name: opened(folder / part["file"], part) for name, part in self.facts["subgraphs"].items()}

    @staticmethod
    def _onnx(path: Path, part: dict):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(str(path), options)
        return lambda arrays: session.run([part["outputs"][0]["name"]], arrays)[0]

    @staticmethod
    def _torchscript(path: Path, part: dict):
        module = torch.jit.load(str(path))
        return lambda arrays: module(*map(torch.from_numpy, arrays.values())).numpy()

    def __call__(self, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits (rows, labels), and the exit (rows,) of each row."""
        length = max(map(len, rows))
        arrays = {
            "input_ids": np.array([row + [0] * (length - len(row)) for row in rows], dtype=np.int64),
            "token_type_ids": np.zeros((len(rows), length), dtype=np.int64),
            "positions": np.arange(length, dtype=np.int64)[None].repeat(len(rows), axis=0),
            "mask": np.arange(length)[None, :] < np.array([len(row) for row in rows])[:, None],
        }
        exits, policy = self.facts["exits"], self.facts["policy"]
        logits, left_at = np.zeros((len(rows), len(self.facts["labels"])), np.float32), np.zeros(len(rows), int)
        alive = np.arange(len(rows))
        for step in self.facts["chain"]:
            if not len(alive):
                break
            part = self.facts["subgraphs"][step["run"]]
            output = self.run_one[step["run"]]({port["name"]: arrays[port["name"]] for port in part["inputs"]})
            arrays[part["outputs"][0]["becomes"]] = output
            if "exit" in step:
                place = exits.index(step["exit"])
                powers = np.exp(output / policy["temperatures"][place])
                confidence = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
                last = place == len(exits) - 1
                leaving = np.ones(len(alive), bool) if last else confidence > policy["thresholds"][place]
                logits[alive[leaving]], left_at[alive[leaving]] = output[leaving], step["exit"]
                alive = alive[~leaving]
                arrays = {name: array[~leaving] for name, array in arrays.items()}
        return logits, left_at


# ---------------------------------------------------------------------------------------------------- expected results


def rows() -> list[list[int]]:
    return random_rows(np.random.default_rng(0), LENGTHS)


def with_early_exits(artifact):
    """Returns the artifact with thresholds in the widest gap of confidences, and different temperatures."""
    backend = load_backend(artifact)
    temperatures = [0.5 + 0.5 * place for place in range(len(artifact.exits))]
    logits = Executor(backend, None).logits_at_every_exit(TokenBatch.from_rows(rows()))
    thresholds = []
    for place, temperature in enumerate(temperatures[:-1]):
        powers = np.exp(logits[:, place] / temperature)
        confidence = np.sort((powers / powers.sum(axis=1, keepdims=True)).max(axis=1))[3:-3]
        widest = np.diff(confidence).argmax()
        thresholds.append(float(confidence[widest : widest + 2].mean()))
    return dataclasses.replace(artifact, policy=Policy(tuple(thresholds), tuple(temperatures)))


def expected(artifact) -> Answers:
    return Executor(load_backend(artifact), artifact.policy).run(TokenBatch.from_rows(rows()))


def assert_equal_answers(artifact, folder: Path, median: float, most: float) -> None:
    answers = expected(artifact)
    logits, left_at = Chain(folder)(rows())
    assert len(set(left_at)) > 1, "rows must leave at different exits"
    assert left_at.tolist() == [artifact.exits[place] for place in answers.exit_index]
    assert logits.argmax(axis=1).tolist() == answers.logits.argmax(axis=1).tolist()
    off = np.abs(logits - answers.logits)
    assert np.median(off) < median and off.max() < most


def int8_artifact(folder: Path, family: str, recipe: str, exits=(1, 2, 4), mode: str = "sweet"):
    """Writes a tiny INT8 artifact as the quantizer does."""
    encoder = quantized(load_torch_encoder(tiny_artifact(folder / "float32", family, exits, mode=mode)), recipe)
    words = with_int8_words(encoder).embeddings.words
    _, config, tensors = model_and_tensors(family, exits, mode=mode)
    row = family_of(config)
    tensors[f"{row.word_embeddings}.weight"], tensors[f"{row.word_embeddings}.weight_scale"] = words.weight, words.scale
    layers = {f"{row.layers_path}.{index}": layer for index, layer in enumerate(encoder.trunk)}
    if mode == "decoupled":
        private = zip(exits[:-1], encoder.probes, strict=False)
        layers |= {row.private_layer_path(exit_): probe.layer for exit_, probe in private}
    for below, layer in layers.items():
        for name in (name for name in PROJECTIONS if getattr(layer, name) is not None):
            linear, path = getattr(layer, name), f"{below}.{row.layer[name]}"
            tensors[f"{path}.weight"], tensors[f"{path}.weight_scale"] = linear.weight, linear.weight_scale
            if linear.input_scale is not None:
                tensors[f"{path}.input_scale"] = torch.tensor(linear.input_scale)
                tensors[f"{path}.input_zero_point"] = torch.tensor(linear.input_zero_point, dtype=torch.uint8)
            if linear.input_smoothing is not None:
                tensors[f"{path}.input_smoothing"] = linear.input_smoothing
    return write_artifact(folder / "int8", config=config, tensors=tensors, quantization={"recipe": recipe})


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("bert"))


# ---------------------------------------------------------------------------------------------------- equal answers


PRIVATE = ("bert", "distilbert", "deberta-v2-conv")  # with private layers


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("family", "mode"), [*((name, "sweet") for name in FAMILY_CONFIGS), *((name, "decoupled") for name in PRIVATE)]
)
def test_export_matches_the_executor(tmp_path, family, mode, format_):
    artifact = with_early_exits(tiny_artifact(tmp_path / "artifact", family, mode=mode))
    export_subgraphs(artifact, tmp_path / "out", format=format_)
    assert_equal_answers(artifact, tmp_path / "out", median=1e-5, most=1e-4)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("recipe", "mode"), [("static", "sweet"), ("smooth", "sweet"), ("dynamic", "sweet"), ("static", "decoupled")]
)
def test_int8_export_matches_the_executor(tmp_path, recipe, mode, format_):
    artifact = with_early_exits(int8_artifact(tmp_path, "bert", recipe, mode=mode))
    facts = export_subgraphs(artifact, tmp_path / "out", format=format_)
    notes = " ".join(facts["how"])
    assert facts["precision"] == "int8"
    assert ("x64quantprecision" in notes, "no faster than float32" in notes) == (format_ == "onnx", recipe == "dynamic")
    assert_equal_answers(artifact, tmp_path / "out", median=1e-3, most=0.05)  # inputs near a rounding boundary


@pytest.mark.parametrize("format_", FORMATS)
def test_cascade_export_matches_the_executor(tmp_path, format_):
    artifact = with_early_exits(tiny_cascade(tmp_path / "artifact"))
    facts = export_subgraphs(artifact, tmp_path / "out", format=format_)
    assert [step["run"] for step in facts["chain"]] == [
        f"{part}_{exit_}" for exit_ in (1, 2, 4) for part in ("embed", "probe")
    ]
    assert_equal_answers(artifact, tmp_path / "out", median=1e-5, most=1e-4)


@pytest.mark.parametrize("recipe", ["static", "smooth", "dynamic"])
def test_onnx_files_store_int8_weights(tmp_path, recipe):
    import onnx as library

    export_subgraphs(int8_artifact(tmp_path, "bert", recipe), tmp_path / "out", format="onnx")
    graph = library.load(str(tmp_path / "out" / "advance_2_4.onnx")).graph
    weights = [tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 2]
    assert weights == [library.TensorProto.INT8] * 8
    graph = library.load(str(tmp_path / "out" / "embed.onnx")).graph
    [table] = [tensor for tensor in graph.initializer if list(tensor.dims) == [96, 32]]
    assert table.data_type == library.TensorProto.INT8


def test_onnx_runtime_fuses_static_layers_to_integer_arithmetic(tmp_path):
    import onnx as library

    export_subgraphs(int8_artifact(tmp_path, "bert", "static"), tmp_path / "out", format="onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "fused.onnx"), 3
    onnxruntime.InferenceSession(str(tmp_path / "out" / "advance_2_4.onnx"), options)
    kinds = [node.op_type for node in library.load(str(tmp_path / "fused.onnx")).graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2 * 4, "of each layer: q, k and v together, and three more"
    assert not {"Gemm", "DequantizeLinear"} & set(kinds)


# ---------------------------------------------------------------------------------------------------- description


@pytest.mark.parametrize("format_", FORMATS)
def test_description_matches_the_files(tmp_path, bert, format_):
    facts = export_subgraphs(bert.directory, tmp_path / "out", format=format_)
    assert facts == json.loads((tmp_path / "out" / "subgraphs.json").read_text(encoding="utf-8"))
    assert [step["run"] for step in facts["chain"]] == [
        "embed",
        "probe_1",
        "advance_1_2",
        "probe_2",
        "advance_2_4",
        "probe_4",
    ]
    assert [step["exit"] for step in facts["chain"] if "exit" in step] == facts["exits"] == [1, 2, 4]
    assert facts["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"] and facts["max_tokens"] == 64
    assert {**bert.policy.to_dict(), "confidence": "max(softmax(logits / temperature))"} == facts["policy"]
    by_token = ["rows", "length"]
    states = {"name": "states", "dtype": "float32", "shape": [*by_token, 32]}
    mask = {"name": "mask", "dtype": "bool", "shape": by_token}
    assert facts["subgraphs"]["probe_2"]["inputs"] == facts["subgraphs"]["advance_1_2"]["inputs"] == [states, mask]
    assert facts["subgraphs"]["probe_2"]["outputs"] == [
        {"name": "logits", "dtype": "float32", "shape": ["rows", 3], "becomes": "logits"}
    ]
    assert facts["subgraphs"]["advance_2_4"]["outputs"] == [{**states, "name": "next_states", "becomes": "states"}]
    for part in facts["subgraphs"].values():
        path = tmp_path / "out" / part["file"]
        assert (path.stat().st_size, sha256(path)) == (part["bytes"], part["sha256"])
    written = {part["file"] for part in facts["subgraphs"].values()} | {"subgraphs.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written


def test_onnx_inputs_and_dynamic_sizes_match_the_description(tmp_path, bert):
    facts = export_subgraphs(bert, tmp_path / "out", format="onnx")
    dtypes = {"tensor(int64)": "int64", "tensor(bool)": "bool", "tensor(float)": "float32"}
    for part in facts["subgraphs"].values():
        session = onnxruntime.InferenceSession(str(tmp_path / "out" / part["file"]))
        found = [{"name": port.name, "dtype": dtypes[port.type], "shape": port.shape} for port in session.get_inputs()]
        assert found == part["inputs"]
        (port,), (output,) = session.get_outputs(), part["outputs"]
        assert (port.name, dtypes[port.type]) == (output["name"], output["dtype"])
    assert [port["name"] for port in facts["subgraphs"]["embed"]["inputs"]] == [
        "input_ids",
        "token_type_ids",
        "positions",
    ], "no layer precedes exit 1, so the mask is not used"


def test_description_of_positions_with_padding_idx(tmp_path, bert):
    facts = export_subgraphs(tiny_artifact(tmp_path / "artifact", "roberta"), tmp_path / "out", format="torchscript")
    assert "a token of id 1 is not counted" in facts["tokens"]["positions"]
    assert facts["max_tokens"] == 62
    assert "not counted" not in export_subgraphs(bert, tmp_path / "out", format="torchscript")["tokens"]["positions"]


# ---------------------------------------------------------------------------------------------------- atomic export


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format_", FORMATS)
def test_failed_export_leaves_the_earlier_one(tmp_path, bert, monkeypatch, format_):
    export_subgraphs(bert, tmp_path / "out", format=format_)
    before = contents(tmp_path / "out")
    writer = {"onnx": onnx, "torchscript": torchscript}[format_]
    write = writer.write

    def fail_late(graph, inputs, path):
        if graph.name == "probe_4":
            raise OSError("no space left")
        return write(graph, inputs, path)

    monkeypatch.setattr(writer, "write", fail_late)
    for folder in (tmp_path / "out", tmp_path / "new" / "out"):
        with pytest.raises(ArtifactError, match="no space left"):
            export_subgraphs(tiny_artifact(tmp_path / "other", exits=(2, 4)), folder, format=format_)
    assert contents(tmp_path / "out") == before and not (tmp_path / "new" / "out").exists()


@pytest.mark.parametrize("format_", FORMATS)
def test_inaccurate_file_is_an_error(tmp_path, bert, monkeypatch, format_):
    writer = {"onnx": onnx, "torchscript": torchscript}[format_]
    load = writer.load

    def load_wrongly(path):
        run = load(path)
        return lambda inputs: run(inputs) + (0.01 if path.stem == "advance_1_2" else 0)

    monkeypatch.setattr(writer, "load", load_wrongly)
    with pytest.raises(ExportError, match=r"the file of advance_1_2 has a relative error of"):
        export_subgraphs(bert, tmp_path / "out", format=format_)
    assert not (tmp_path / "out").exists()


def test_file_that_does_not_run_is_an_error(tmp_path, bert, monkeypatch):
    def break_off(path):
        raise RuntimeError("unknown operator")

    monkeypatch.setattr(onnx, "load", break_off)
    with pytest.raises(ExportError, match="the file of embed does not run: unknown operator"):
        export_subgraphs(bert, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()


def test_new_export_replaces_only_files_of_the_earlier_one(tmp_path, bert):
    export_subgraphs(bert, tmp_path / "out", format="onnx")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    export_subgraphs(tiny_artifact(tmp_path / "other", exits=(2, 4)), tmp_path / "out", format="torchscript")
    names = {"embed.pt", "probe_2.pt", "advance_2_4.pt", "probe_4.pt", "subgraphs.json", "notes.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


# ---------------------------------------------------------------------------------------------------- errors


def test_unknown_format(tmp_path, bert):
    with pytest.raises(ConfigError, match="format='tflite': choose one of onnx, openvino, torchscript"):
        export_subgraphs(bert, tmp_path / "out", format="tflite")


def test_unwritable_output_fails_early(tmp_path, bert, monkeypatch):
    monkeypatch.setattr("itrex_sweet.export.subgraphs.subgraphs_of", lambda _: pytest.fail("work began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        export_subgraphs(bert, tmp_path / "file" / "out", format="torchscript")


def test_plain_checkpoint_is_rejected(tmp_path):
    tiny_model("bert").save_pretrained(tmp_path / "plain")
    with pytest.raises(ArtifactError, match="plain checkpoint"):
        export_subgraphs(tmp_path / "plain", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_package_names_the_extra(tmp_path, bert, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}, .*itrex-sweet\[onnx\]"):
        export_subgraphs(bert, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()
    export_subgraphs(bert, tmp_path / "out", format="torchscript")


def test_criterion_without_a_formula_is_rejected(tmp_path, bert, monkeypatch):
    monkeypatch.setattr(description, "_FORMULAS", {})
    with pytest.raises(ConfigError, match="criterion='max_probability' cannot be exported"):
        export_subgraphs(bert, tmp_path / "out", format="torchscript")


def test_unsupported_operator(tmp_path, bert, monkeypatch):
    def refuse(*args, **kwargs):
        raise torch.onnx.OnnxExporterError("no symbol for it")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ExportError, match=r"embed cannot be written as ONNX: no symbol for it.*--format torchscript"):
        export_subgraphs(bert, tmp_path / "out", format="onnx")


def test_artifact_is_unchanged(tmp_path, bert):
    before = contents(bert.directory)
    export_subgraphs(bert.directory, tmp_path / "out", format="torchscript")
    assert contents(bert.directory) == before
    open_artifact(bert.directory)


def test_a_full_disk_is_an_error(tmp_path):
    """A limit on file size takes the place of a full disk. In a process of its own, which a library might end."""
    tiny_artifact(tmp_path / "artifact")
    script = (
        "import resource, signal, sys\n"
        "from itrex_sweet.errors import ArtifactError\n"
        "from itrex_sweet.export.subgraphs import export_subgraphs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "for format in sys.argv[2:]:\n"
        "    try: export_subgraphs(sys.argv[1], sys.argv[1] + format, format=format)\n"
        "    except ArtifactError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "artifact"), *FORMATS]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [line for line in run.stdout.splitlines() if "cannot write" in line and "unchanged" in line]
    assert len(lines) == len(FORMATS), run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
