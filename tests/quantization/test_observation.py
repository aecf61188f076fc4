"""Observations match the float model; failures are reported and leave no files."""

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from itrex_sweet import errors
from itrex_sweet.artifact import write_artifact, writing
from itrex_sweet.errors import ArtifactError, BackendUnavailable, ConfigError, InputError, QuantizationError
from itrex_sweet.families import family_of
from itrex_sweet.quantization import observation, worker
from itrex_sweet.quantization.inc_linears import CalibrationInputs, layers_by_input
from itrex_sweet.quantization.observation import observe
from itrex_sweet.quantization.packing import quantizable_layers
from itrex_sweet.runtime.ragged import TokenBatch
from tests.quantization.hook_observer import with_private_layers
from tests.tiny_artifacts import model_and_tensors, random_rows, tiny_artifact, tiny_cascade
from tests.tiny_models import FAMILY_CONFIGS, POSITIONS

EXITS = (1, 2)
LENGTHS = [1, 2, 3, 5, 5, 5, 9, 12, 12, 40, POSITIONS - 4]  # none as long as DeBERTa's relative position embeddings
HAS_IPEX = find_spec("intel_extension_for_pytorch") is not None
DEFAULT_PATH = "ipex" if HAS_IPEX else "pt2e"
MIN_SCALE = torch.finfo(torch.float32).eps
DEAD = "bert.encoder.layer.1.output.dense"  # whose input is 0 throughout, in `artifact`


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    tokens = random_rows(generator, LENGTHS)
    return TokenBatch.from_rows(tokens, [generator.integers(0, 2, len(row)).tolist() for row in tokens])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """Returns a tiny BERT with a private layer and a dead layer, whose GELU outputs are 0."""
    _, config, tensors = model_and_tensors("bert", EXITS, mode="decoupled")
    tensors["bert.encoder.layer.1.intermediate.dense.weight"].zero_()
    tensors["bert.encoder.layer.1.intermediate.dense.bias"].fill_(-30.0)
    return write_artifact(tmp_path_factory.mktemp("bert"), config=config, tensors=tensors)


@torch.no_grad()
def inputs_by_hooks(artifact, rows, all_tokens=()):
    """Returns the linear layers of the plain model and their inputs (tokens, in), rows one at a time and in order.

    Private layers have the first tokens' inputs, except those whose paths end with one of `all_tokens`.
    """
    model = AutoModelForSequenceClassification.from_pretrained(artifact.directory).eval()
    family = family_of(model.config)
    with_private_layers(model, artifact)
    layers = {path: model.get_submodule(path) for path in quantizable_layers(artifact)}
    seen = {path: [] for path in layers}

    def keep(path):
        def hook(_, arguments):
            if arguments[0].shape[:2] == (1, length):  # not DeBERTa's relative position embeddings
                is_of_first = path.startswith("sweet_exits.") and not path.endswith(tuple(all_tokens))
                seen[path].append(arguments[0][0, :1] if is_of_first else arguments[0][0])

        return hook

    for path, layer in layers.items():
        layer.register_forward_pre_hook(keep(path))
    for start, end in zip(rows.cu_seqlens[:-1], rows.cu_seqlens[1:], strict=True):
        length = end - start
        batch = {"input_ids": torch.from_numpy(rows.input_ids[start:end])[None]}
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        if "token_types" in family.embeddings and model.config.type_vocab_size > 1:
            batch["token_type_ids"] = torch.from_numpy(rows.token_type_ids[start:end])[None]
        model(**batch)
    return layers, {path: torch.cat(parts) for path, parts in seen.items()}


# ---------------------------------------------------------------------- the float model's inputs


@pytest.mark.parametrize(("mode", "batch_size"), [("sweet", 1), ("sweet", 4), ("decoupled", 4)])
@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_calibration_inputs_match_the_model(tmp_path, rows, family, mode, batch_size):
    artifact = tiny_artifact(tmp_path, family, EXITS, mode=mode)
    if family not in ("bert", "electra"):
        rows = TokenBatch(rows.input_ids, np.zeros_like(rows.token_type_ids), rows.position_ids, rows.cu_seqlens)
    _, expected = inputs_by_hooks(artifact, rows)
    model = worker._float_model(artifact)
    layers = layers_by_input(family_of(model.config), EXITS[-1], artifact.private_exits)
    assert sorted(path for paths in layers for path in paths) == sorted(quantizable_layers(artifact))
    reports = []
    batches = CalibrationInputs(
        model,
        family_of(model.config),
        layers,
        rows,
        batch_size,
        lambda *done: reports.append(done),
        artifact.private_exits,
    )
    for _ in range(2):  # iterable again
        found = [torch.cat(parts) for parts in zip(*batches, strict=True)]
        for paths, states in zip(layers, found, strict=True):
            for path in paths:  # all layers of the group have this input
                assert torch.allclose(states, expected[path], atol=1e-4), path
    assert reports[-1] == (len(rows), len(rows))


def test_non_finite_activations_name_the_layer(artifact, rows):
    model = worker._float_model(artifact)
    model.bert.encoder.layer[0].output.LayerNorm.weight.data[3] = float("inf")
    layers = layers_by_input(family_of(model.config), EXITS[-1])
    batches = CalibrationInputs(model, family_of(model.config), layers, rows, 4, lambda *_: None)
    with pytest.raises(QuantizationError, match=r"input of bert\.encoder\.layer\.1\.attention\.self\.value holds NaN"):
        next(iter(batches))


def test_non_finite_weights_are_named(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(writing, "check_finite", lambda tensors: None)  # written by other software
    _, config, tensors = model_and_tensors("bert", EXITS)
    tensors["bert.encoder.layer.1.attention.self.key.weight"][0, 0] = float("nan")
    artifact = write_artifact(tmp_path, config=config, tensors=tensors)
    with pytest.raises(
        ArtifactError, match=r"'bert\.encoder\.layer\.1\.attention\.self\.key\.weight' holds nan at \[0, 0\]"
    ):
        worker.observe_here(artifact, rows, "static", 0.5, 4, "pt2e", lambda **_: None)


# ---------------------------------------------------------------------- Neural Compressor

RUNS = {"static": DEFAULT_PATH, "smooth": DEFAULT_PATH, "dynamic": "pt2e"}  # recipe → default path


@pytest.fixture(scope="module")
def observed(artifact, rows):
    """Returns all runs, started concurrently: they must not interfere."""
    progress = {recipe: [] for recipe in RUNS}

    def one(recipe):
        return observe(artifact, rows, recipe, batch_size=4, progress=lambda *done: progress[recipe].append(done))

    with ThreadPoolExecutor(len(RUNS)) as pool:
        return dict(zip(RUNS, pool.map(one, RUNS), strict=True)), progress


PROJECTIONS = ("query", "key", "value")


@pytest.fixture(scope="module")
def truth(artifact, rows):
    return inputs_by_hooks(artifact, rows)


@pytest.fixture(scope="module")
def smoothed(artifact, rows):
    """Inputs that determine smoothing factors: key and value weights multiply the states of all tokens."""
    return inputs_by_hooks(artifact, rows, PROJECTIONS)[1]


def expected_factors(layers, inputs, path):
    """Returns SmoothQuant's equation 4 with alpha 0.5, over all layers that read one input."""
    # A private layer has the same input as a layer of the trunk.
    of_same_layer = [other for other in layers if other.startswith("sweet_exits.") == path.startswith("sweet_exits.")]
    group = [other for other in of_same_layer if inputs[other].equal(inputs[path])]
    weights = torch.cat([layers[other].weight for other in group]).abs().amax(0).clamp(min=1e-5)
    strength = inputs[path].abs().amax(0)
    return torch.where(strength == 0, torch.ones_like(strength), (weights / strength).sqrt())


@pytest.mark.parametrize("recipe", RUNS)
def test_observations_match_minimum_and_maximum(observed, truth, smoothed, artifact, recipe):
    found = observed[0][recipe]
    layers, inputs = truth
    assert found.path == RUNS[recipe]
    assert list(found.linears) == quantizable_layers(artifact)
    for path, seen in found.linears.items():
        weight, states = layers[path].weight.detach(), inputs[path]
        if recipe == "smooth":
            factors = expected_factors(layers, smoothed, path)
            torch.testing.assert_close(seen.input_smoothing, factors, rtol=1e-4, atol=0.0)
            weight, states = weight / seen.input_smoothing, states * seen.input_smoothing
        else:
            assert seen.input_smoothing is None
        scale = (weight.abs().amax(1) / 127.5).clamp(min=MIN_SCALE)
        torch.testing.assert_close(seen.weight_scale, scale, rtol=1e-5, atol=0.0)
        if recipe == "dynamic":
            assert seen.input_scale is None and seen.input_zero_point is None
        elif path == DEAD:
            assert (seen.input_scale, seen.input_zero_point) == (1.0, 0)
        else:
            least, greatest = min(states.min().item(), 0.0), max(states.max().item(), 0.0)
            assert seen.input_scale == pytest.approx((greatest - least) / 255, rel=1e-5), path
            assert abs(seen.input_zero_point + least / seen.input_scale) <= 0.501, path
            assert isinstance(seen.input_zero_point, int) and 0 <= seen.input_zero_point <= 255


def test_query_key_and_value_share_input_parameters(observed):
    for recipe, found in observed[0].items():
        for index in range(EXITS[-1]):
            parts = [
                found.linears[f"bert.encoder.layer.{index}.attention.self.{name}"] for name in ("query", "key", "value")
            ]
            assert len({(part.input_scale, part.input_zero_point) for part in parts}) == 1
            assert not parts[0].weight_scale.equal(parts[1].weight_scale)
            if recipe == "smooth":
                assert all(part.input_smoothing.equal(parts[0].input_smoothing) for part in parts)


def test_progress_and_versions_are_reported(observed, rows):
    for recipe, seen in observed[1].items():
        stages = {"static": ["calibrating"], "smooth": ["smoothing", "calibrating"], "dynamic": []}[recipe]
        assert list(dict.fromkeys(stage for stage, *_ in seen)) == ["starting", *stages]
        assert not stages or seen[-1] == ("calibrating", len(rows), len(rows))
        versions = observed[0][recipe].versions
        assert versions["neural-compressor-pt"] and versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
        assert ("intel-extension-for-pytorch" in versions) == (RUNS[recipe] == "ipex")


@pytest.mark.skipif(HAS_IPEX, reason="IPEX is here")
def test_ipex_path_needs_ipex():
    assert worker._select_path(None, "static") == "pt2e"
    with pytest.raises(BackendUnavailable):
        worker._select_path("ipex", "static")


# ---------------------------------------------------------------------- refusals and failures


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(recipe="int4"), "recipe='int4': choose one of 'static'"),
        (dict(path="cuda"), "path='cuda': choose one of None, 'ipex'"),
        (dict(recipe="dynamic", path="ipex"), "it needs path='pt2e'"),
        (dict(alpha=1.5), "alpha=1.5"),
        (dict(alpha=float("nan")), "alpha=nan"),
        (dict(batch_size=0), "batch_size=0"),
    ],
)
def test_invalid_arguments_are_rejected(artifact, rows, options, message):
    with pytest.raises(ConfigError, match=message):
        observe(artifact, rows, **{"recipe": "static", **options})


def test_cascades_and_empty_rows_are_rejected(artifact, rows, tmp_path):
    with pytest.raises(ConfigError, match="cascade"):
        observe(tiny_cascade(tmp_path), rows, "static")
    with pytest.raises(InputError, match="no rows"):
        observe(artifact, rows.select(np.zeros(0, np.int64)), "static")


@pytest.fixture()
def worker_is(monkeypatch, tmp_path):
    """Replaces the worker with a script; temporary folders are created in the returned folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def put(script):
        monkeypatch.setattr(observation, "_WORKER", (sys.executable, "-c", script))
        return tmp_path

    return put


@pytest.mark.parametrize(
    "script, error, message",
    [
        (
            """print('hello'); print('{"error": "ArtifactError", "message": "no weights"}'); exit(1)""",
            errors.ArtifactError,
            "no weights",
        ),
        ("import sys; sys.exit('broken\\n' * 99 + 'the end')", QuantizationError, r"status 1(.|\n)*broken\n +the end$"),
        ("import os; os.kill(os.getpid(), 9)", QuantizationError, "signal 9"),
    ],
)
def test_failures_are_reported_and_leave_no_files(worker_is, artifact, rows, script, error, message):
    folder = worker_is(script)
    with pytest.raises(error, match=message):
        observe(artifact, rows, "static")
    assert not list(folder.iterdir())


def test_interrupt_terminates_the_worker_and_its_children(worker_is, artifact, rows, tmp_path_factory):
    pids = tmp_path_factory.mktemp("pids") / "pids"
    folder = worker_is(
        f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
open("nc_workspace", "w").close()
print('{{"stage": "starting", "done": 0, "rows": 1}}', flush=True)
time.sleep(600)
"""
    )

    def interrupt(*_):
        assert list(folder.glob("*/nc_workspace")), "the worker works in its own folder"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe(artifact, rows, "static", progress=interrupt)
    assert not list(folder.iterdir())
    for pid in map(int, pids.read_text().split()):
        assert ended(pid)


def ended(pid: int) -> bool:
    """Returns true if a process ends, or becomes a zombie, within five seconds."""
    for _ in range(50):
        try:
            with open(f"/proc/{pid}/stat") as stream:
                if stream.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    os.kill(pid, 9)
    return False
