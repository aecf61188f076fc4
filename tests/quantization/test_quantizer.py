"""The quantizer: artifacts, automatic recipe selection, invalid input, and atomic writes."""

import dataclasses
import hashlib
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer, open_artifact
from itrex_sweet.artifact import copy_artifact, write_artifact, write_card
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.artifact.pruning import keep_exits
from itrex_sweet.data import Rows
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, QuantizationError
from itrex_sweet.policy import Policy
from itrex_sweet.quantization import packing
from itrex_sweet.quantization import quantizer as quantizer_file
from itrex_sweet.quantization.packing import pack, quantizable_layers, word_embeddings
from itrex_sweet.quantization.recipe_search import RECIPES
from itrex_sweet.runtime.encoder import QuantizedTable
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import WORDS, model_and_tensors, tiny_artifact, tiny_cascade, tiny_tokenizer

EXITS = (1, 2, 4)


def texts(count: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(2, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Returns a float32 artifact with a tokenizer, with logits of mean 0 and standard deviation 2."""
    directory = tmp_path_factory.mktemp("float")
    _, config, tensors = model_and_tensors("bert", EXITS)
    for name, tensor in tensors.items():
        if "encoder" in name and tensor.dim() == 2:
            tensor *= 1.5 / tensor.norm(dim=1).mean()
    options = dict(config=config, tokenizer=tiny_tokenizer(), policy=Policy((0.7, 0.8), (1.0,) * 3))
    write_artifact(directory, tensors=tensors, **options)
    model = SweetModelForSequenceClassification.from_pretrained(directory)
    logits = torch.from_numpy(model.executor.logits_at_every_exit(model.read(texts(200))))
    for place, path in enumerate(("sweet_exits.1.classifier", "sweet_exits.2.classifier", "classifier")):
        stretch = 2.0 / logits[:, place].std(0)
        tensors[f"{path}.weight"] *= stretch[:, None]
        tensors[f"{path}.bias"] = stretch * (tensors[f"{path}.bias"] - logits[:, place].mean(0))
    write_artifact(directory, tensors=tensors, **options)
    return directory


@pytest.fixture(scope="module")
def rows(source) -> Rows:
    """Returns texts labelled by the float model's last exit, with one label in ten changed."""
    model = SweetModelForSequenceClassification.from_pretrained(source)
    written = texts(240)
    labels = model.executor.run(model.read(written), model.policy.with_threshold(1.0)).logits.argmax(-1)
    labels[::10] = (labels[::10] + 1) % 3
    return Rows(written, labels.tolist(), source="made.jsonl")


@pytest.fixture(autouse=True)
def _hooks_for_neural_compressor(monkeypatch):
    monkeypatch.setattr(quantizer_file, "observe", observe_with_hooks)


def quantize(source: Path, rows, output: Path, recipe: str = "static", **options):
    return SweetQuantizer.from_pretrained(source).quantize(rows, output, recipe, rows=60, max_moved=1.0, **options)


@pytest.mark.parametrize("recipe", ["static", "smooth", "dynamic"])
def test_recipes_write_quantized_weights_and_parameters(source, rows, tmp_path, recipe):
    artifact = quantize(source, rows, tmp_path / "int8", recipe)
    tensors, before = artifact.tensors(), open_artifact(source).tensors()
    layers = quantizable_layers(artifact)
    assert len(layers) == 6 * 4
    for path in layers:
        assert tensors[f"{path}.weight"].dtype == torch.int8
        assert tensors[f"{path}.weight_scale"].shape == tensors[f"{path}.weight"].shape[:1]
        assert (f"{path}.input_scale" in tensors) == (recipe != "dynamic")
        assert (f"{path}.input_smoothing" in tensors) == (recipe == "smooth")
    table = tensors[f"{word_embeddings(artifact)}.weight"]
    assert table.dtype == torch.int8 and artifact.embeddings_precision == "int8"
    integers = {f"{path}.weight" for path in (*layers, word_embeddings(artifact))}
    for name in before.keys() - integers:
        torch.testing.assert_close(tensors[name], before[name], rtol=0, atol=0)
    assert artifact.precision == "int8"
    assert not (artifact.directory / "model.safetensors").exists()
    facts = artifact.quantization
    assert (facts["recipe"], facts["integer_layers"], facts["float_layers"]) == (recipe, 24, [])
    assert facts["calibration"] == {
        "source": "made.jsonl",
        "rows_observed": 60,
        "rows_judged": 180,
        "judged_on_other_rows": True,
    }


FAMILIES = ("roberta", "distilbert", "electra", "deberta", "deberta-v3", "deberta-v2-conv")


@pytest.mark.parametrize(
    ("family", "mode"),
    [*((family, "sweet") for family in FAMILIES), ("roberta", "decoupled"), ("deberta", "decoupled")],
)
def test_families_are_close_to_float(family, mode, tmp_path):
    source = tmp_path / "float"
    tiny_artifact(source, family, EXITS, tokenizer=tiny_tokenizer(), mode=mode)
    quantize(source, texts(120), tmp_path / "int8", "dynamic")
    batch = None
    logits = []
    for directory in (source, tmp_path / "int8"):
        model = SweetModelForSequenceClassification.from_pretrained(directory, backend="torch")
        batch = batch or model.read(texts(40, seed=1))
        logits.append(model.executor.logits_at_every_exit(batch))
    artifact = open_artifact(tmp_path / "int8")
    assert artifact.quantization["integer_layers"] == len(quantizable_layers(artifact))
    integers = [name for name, tensor in artifact.tensors().items() if tensor.dtype == torch.int8]
    quantized = (*quantizable_layers(artifact), word_embeddings(artifact))
    assert sorted(integers) == sorted(f"{path}.weight" for path in quantized)
    error = np.abs(logits[1] - logits[0]).mean() / np.abs(logits[0]).mean()
    assert 0 < error < 0.05


@pytest.mark.parametrize("recipe", ["static", "smooth"])
def test_private_layers_are_close_to_float(recipe, tmp_path):
    source = tmp_path / "float"
    tiny_artifact(source, "bert", EXITS, tokenizer=tiny_tokenizer(), mode="decoupled")
    quantize(source, texts(120), tmp_path / "int8", recipe)
    models = [SweetModelForSequenceClassification.from_pretrained(part) for part in (source, tmp_path / "int8")]
    batch = models[0].read(texts(40, seed=1))
    exact, rounded = (model.executor.logits_at_every_exit(batch)[:, 0] for model in models)
    assert np.abs(rounded - exact).mean() < 0.1 * np.abs(exact).mean()


def test_predictions_are_equal_after_saving_and_loading(source, rows, tmp_path):
    quantize(source, rows, tmp_path / "int8")
    first = SweetModelForSequenceClassification.from_pretrained(tmp_path / "int8", backend="torch")
    first.save_pretrained(tmp_path / "copy")
    again = SweetModelForSequenceClassification.from_pretrained(tmp_path / "copy", backend="torch")
    assert again.predict(rows.texts[:30]) == first.predict(rows.texts[:30])
    assert again.artifact.quantization == first.artifact.quantization
    assert again.artifact.fingerprints().keys() == {"quantization"}


def test_temperatures_are_refitted_and_exit_rates_kept(source, rows, tmp_path):
    artifact = quantize(source, rows, tmp_path / "int8")
    before = open_artifact(source).policy
    assert all(value != 1.0 for value in artifact.policy.temperatures)
    assert artifact.policy.thresholds != before.thresholds
    errors = artifact.quantization["expected_calibration_error"]
    assert len(errors["fitted"]) == 3
    shares = []
    for directory in (source, tmp_path / "int8"):
        model = SweetModelForSequenceClassification.from_pretrained(directory, backend="torch")
        layers = model.exit_layers(model.executor.run(model.read(rows.texts)))
        shares.append(np.array([(layers == exit_).mean() for exit_ in EXITS]))
    np.testing.assert_allclose(shares[0], shares[1], atol=0.08)


def test_without_labels_agreement_is_compared_and_temperatures_are_kept(source, tmp_path):
    artifact = quantize(source, texts(150), tmp_path / "int8")
    facts = artifact.quantization
    assert facts["metric"] == "agreement with float32"
    assert facts["before"] == [1.0, 1.0, 1.0]
    assert "expected_calibration_error" not in facts
    assert artifact.policy.temperatures == (1.0, 1.0, 1.0)


def test_forms_of_calibration_data(source, rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(rows.texts, rows.labels, strict=True)]
    path.write_text("\n".join(lines))
    named = Dataset.from_dict({"text": rows.texts, "label": rows.labels})
    tokenizer = tiny_tokenizer()
    padded = Dataset.from_dict({**tokenizer(rows.texts, padding=True), "labels": rows.labels})
    expected = quantize(source, rows, tmp_path / "expected").tensors()
    for place, given in enumerate((path, str(path), named, padded)):
        tensors = quantize(source, given, tmp_path / str(place)).tensors()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_few_rows_are_used_for_both_parts(source, rows, tmp_path, caplog):
    few = Rows(rows.texts[:40], rows.labels[:40], source="few.csv")
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        artifact = quantize(source, few, tmp_path / "int8")
    assert "few.csv has only 40 rows" in caplog.text
    assert artifact.quantization["calibration"]["judged_on_other_rows"] is False


# ---------------------------------------------------------------------------------------------------- auto


def spoiled(recipes: dict[str, list[str]]):
    """Returns observations in which some layers, by part of their path, have too wide ranges, per recipe."""

    def observe(artifact, batch, recipe, **options):
        found = observe_with_hooks(artifact, batch, recipe, **options)
        for path, linear in found.linears.items():
            if any(part in path for part in recipes.get(recipe, ())):
                wide = {"input_scale": 50.0 * linear.input_scale} if linear.input_scale else {}
                found.linears[path] = dataclasses.replace(
                    linear, weight_scale=linear.weight_scale * (1 if wide else 30), **wide
                )
        return found

    return observe


def test_auto_selects_the_fastest_recipe_within_the_limits(source, rows, tmp_path, monkeypatch):
    options = dict(max_drop=0.05, max_changed=1.0, embeddings="float32")
    assert quantize(source, rows, tmp_path / "a", "auto", **options).quantization["recipe"] == "static"
    monkeypatch.setattr(quantizer_file, "observe", spoiled({"static": ["layer"]}))
    artifact = quantize(source, rows, tmp_path / "b", "auto", **options)
    assert (artifact.quantization["recipe"], artifact.quantization["asked"]) == ("smooth", "auto")
    monkeypatch.setattr(quantizer_file, "observe", spoiled({"static": ["layer"], "smooth": ["layer"]}))
    assert quantize(source, rows, tmp_path / "c", "auto", **options).quantization["recipe"] == "dynamic"


def test_auto_prefers_a_recipe_that_changes_few_answers(source, rows, tmp_path, monkeypatch):
    def selected(folder: str, wide: dict[str, list[str]], max_changed: float) -> tuple[str, float]:
        monkeypatch.setattr(quantizer_file, "observe", spoiled(wide))
        facts = quantize(source, rows, tmp_path / folder, "auto", max_drop=1.0, max_changed=max_changed).quantization
        return facts["recipe"], facts["changed_answers"]

    last = ["layer.3"]
    recipe, changed = selected("any", {"static": last}, max_changed=1.0)
    assert recipe == "static" and changed > 0.1
    recipe, changed = selected("few", {"static": last}, max_changed=0.1)
    assert recipe == "smooth" and changed <= 0.1
    # Every recipe exceeds the limit: the fewest changes, and no layer in float.
    recipe, changed = selected("none", {"static": last, "smooth": last}, max_changed=0.0)
    assert recipe == "dynamic"
    recipe, changed = selected("all", {recipe: ["layer"] for recipe in RECIPES[1:]}, max_changed=0.0)
    assert recipe == "static"


def test_auto_leaves_sensitive_layers_in_float(source, rows, tmp_path, monkeypatch):
    bad = "layer.1.intermediate.dense"
    monkeypatch.setattr(quantizer_file, "observe", spoiled({recipe: [bad] for recipe in RECIPES}))
    artifact = quantize(source, rows, tmp_path / "int8", "auto", max_drop=0.05)
    assert artifact.quantization["recipe"] == "static"
    assert artifact.quantization["float_layers"] == [f"bert.encoder.{bad}"]
    assert artifact.quantization["integer_layers"] == 23
    assert artifact.tensors()[f"bert.encoder.{bad}.weight"].dtype == torch.float32
    assert max(np.subtract(artifact.quantization["before"], artifact.quantization["after"])) <= 0.05


def test_embeddings_are_quantized_per_token(source):
    path, whole = word_embeddings(open_artifact(source)), open_artifact(source).tensors()
    table = whole[f"{path}.weight"]
    table[7] = 0.0
    table[8] *= 1000.0  # no other row gets a greater error
    packed = pack(whole, {}, tables=[path])
    assert packed.keys() - whole.keys() == {f"{path}.weight_scale"}
    words = QuantizedTable(packed[f"{path}.weight"], packed[f"{path}.weight_scale"])
    error = (words[torch.arange(len(words))] - table).abs().amax(dim=1)
    assert (error <= table.abs().amax(dim=1) / 254 * 1.0001).all()
    assert not words[torch.tensor([7])].any() and (words.scale > 0).all()


def test_embeddings_stay_in_float_on_request(source, rows, tmp_path):
    path = word_embeddings(open_artifact(source))
    versions = {}
    for precision in ("int8", "float32"):
        artifact = quantize(source, rows, tmp_path / precision, embeddings=precision)
        assert artifact.embeddings_precision == artifact.quantization["embeddings"] == precision
        versions[precision] = json.loads((tmp_path / precision / "sweet_config.json").read_text())["schema_version"]
        card = (tmp_path / precision / "README.md").read_text()
        assert ("Word embeddings are in int8" in card) == (precision == "int8")
    assert torch.equal(artifact.tensors()[f"{path}.weight"], open_artifact(source).tensors()[f"{path}.weight"])
    assert versions == {"int8": 5, "float32": 4}  # older releases read the second
    written = open_artifact(tmp_path / "int8")
    for done in (copy_artifact(written, tmp_path / "copy"), keep_exits(written, [4], tmp_path / "pruned")):
        settings = json.loads((done.directory / "sweet_config.json").read_text())
        assert (settings["schema_version"], done.embeddings_precision) == (5, "int8")
    with pytest.raises(ConfigError, match="embeddings='int4': choose one of int8, float32"):
        quantize(source, rows, tmp_path / "int4", embeddings="int4")


def test_auto_leaves_sensitive_embeddings_in_float(source, rows, tmp_path, monkeypatch):
    def spoil(table):
        return [(name, part.roll(1, 0)) for name, part in quantize_table(table)]  # each token gets another's row

    quantize_table = packing._quantize_table
    monkeypatch.setattr(packing, "_quantize_table", spoil)
    artifact = quantize(source, rows, tmp_path / "int8", "auto", max_drop=0.05)
    path = word_embeddings(artifact)
    assert (artifact.embeddings_precision, artifact.quantization["float_layers"]) == ("float32", [path])
    assert artifact.quantization["integer_layers"] == 24
    assert artifact.tensors()[f"{path}.weight"].dtype == torch.float32


def test_auto_fails_with_a_table_if_no_recipe_is_within_the_limits(source, rows, tmp_path, monkeypatch):
    everything = {recipe: ["layer"] for recipe in RECIPES}
    monkeypatch.setattr(quantizer_file, "observe", spoiled(everything))
    with pytest.raises(QuantizationError, match=r"no recipe loses at most 1 points of accuracy") as caught:
        quantize(source, rows, tmp_path / "int8", "auto")
    for part in ("float32", "static", "smooth", "dynamic", "exit 4", "max_drop"):
        assert part in str(caught.value)
    assert not (tmp_path / "int8").exists()


def test_auto_limits_rows_leaving_at_another_exit(source, rows, tmp_path):
    with pytest.raises(QuantizationError, match="0% of the rows leaving at another exit"):
        SweetQuantizer.from_pretrained(source).quantize(
            rows, tmp_path / "int8", "auto", rows=60, max_drop=1.0, max_moved=0.0
        )


# ---------------------------------------------------------------------------------------------------- invalid input


@pytest.mark.parametrize("count", [0, 1, 15])
def test_too_few_rows_are_rejected(source, tmp_path, count):
    with pytest.raises(InputError, match=f"{count or 'no'} rows|has no rows"):
        quantize(source, texts(count), tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_invalid_columns_labels_and_types_are_rejected(source, rows, tmp_path):
    with pytest.raises(ConfigError, match="colour, label"):
        quantize(source, Dataset.from_dict({"colour": rows.texts, "label": rows.labels}), tmp_path / "int8")
    with pytest.raises(ConfigError, match="body"):
        quantize(
            source, Dataset.from_dict({"text": rows.texts, "label": rows.labels}), tmp_path / "x", text_column="body"
        )
    with pytest.raises(InputError, match="label 7 of row 3"):
        quantize(source, Rows(rows.texts, [*rows.labels[:3], 7, *rows.labels[4:]]), tmp_path / "int8")
    with pytest.raises(ConfigError, match="type int"):
        quantize(source, 5, tmp_path / "int8")
    with pytest.raises(ConfigError, match="recipe='int4'"):
        quantize(source, rows, tmp_path / "int8", "int4")
    with pytest.raises(ConfigError, match="max_drop=3"):
        quantize(source, rows, tmp_path / "int8", max_drop=3)


def test_unsupported_models_are_rejected(source, rows, tmp_path):
    quantize(source, rows, tmp_path / "int8")
    with pytest.raises(ConfigError, match=r"already quantized \(static\)"):
        SweetQuantizer.from_pretrained(tmp_path / "int8")
    tiny_cascade(tmp_path / "cascade", tokenizer=tiny_tokenizer())
    with pytest.raises(ConfigError, match="cascade"):
        SweetQuantizer.from_pretrained(tmp_path / "cascade")
    with pytest.raises(ArtifactError):
        SweetQuantizer.from_pretrained(tmp_path)


def test_failures_leave_source_and_target_unchanged(source, rows, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="another folder"):
        quantize(source, rows, source)
    good = tmp_path / "int8"
    quantize(source, rows, good)
    before = contents(good)

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantizer_file, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize(source, rows, good, "smooth")
    assert contents(good) == before
    with pytest.raises(KeyboardInterrupt):
        quantize(source, rows, tmp_path / "new", "smooth")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        quantize(source, rows, tmp_path / "file")


def test_int8_artifact_replaces_a_float_artifact(source, rows, tmp_path):
    tiny_artifact(tmp_path, exits=EXITS, tokenizer=tiny_tokenizer())
    quantize(source, rows, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    assert open_artifact(tmp_path).precision == "int8"
    tiny_artifact(tmp_path, exits=EXITS)
    assert not (tmp_path / "model_int8.safetensors").exists()
    assert not (tmp_path / "fingerprints.safetensors").exists()
    assert open_artifact(tmp_path).precision == "float32"


def test_transformers_does_not_load_int8_weights(source, rows, tmp_path):
    from transformers import AutoModelForSequenceClassification

    quantize(source, rows, tmp_path / "int8")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8")


@pytest.mark.parametrize(("role", "count"), [("training", 120), ("reporting", 120), ("training", 1)])
def test_warns_of_seen_rows(source, rows, tmp_path, caplog, role, count):
    model = SweetModelForSequenceClassification.from_pretrained(source)
    model.save_pretrained(tmp_path / "float")
    seen = Fingerprints.of(model.read(rows.texts[:count]).rows())
    if role == "reporting":
        write_card(open_artifact(tmp_path / "float"), "card", seen)
    else:
        config, tensors = model.artifact.model_config(), model.artifact.tensors()
        write_artifact(tmp_path / "float", config=config, tensors=tensors, fingerprints={role: seen})
    with caplog.at_level(logging.WARNING, "itrex_sweet"):
        artifact = quantize(tmp_path / "float", rows, tmp_path / "int8")
    share = artifact.quantization["shared_rows"][role]
    assert share == pytest.approx(count / len(rows.texts), rel=0.1)
    warning = re.search(rf"([\d.]+) % of the rows in made.jsonl are {role} rows of this model", caplog.text)
    assert float(warning[1]) == pytest.approx(100 * share, rel=0.02)
    assert artifact.fingerprints().keys() == {role, "quantization"}


def contents(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()}
