"""Tests of invalid numbers, names and shapes in artifacts with correct hashes: they raise before inference."""

import json
import os
import shutil
import socket
import threading
import time

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import open_artifact
from itrex_sweet.errors import ArtifactError, UnsupportedModelError
from itrex_sweet.runtime.backends import load_backend
from tests.artifact_kinds import KINDS, WITHOUT_NATIVE
from tests.mutation import (
    RawTensor,
    edit_config,
    edit_json,
    edit_settings,
    edit_tensors,
    read_tensors,
    recompute_hashes,
    weights_of,
    with_value,
    write_raw,
)

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("kinds") / kind
            KINDS[kind](made[kind])
        return made[kind]

    return of


@pytest.fixture
def artifact_of(pristine, tmp_path):
    """Returns a function that copies an artifact of a kind."""

    def copied(kind):
        return shutil.copytree(pristine(kind), tmp_path / kind)

    return copied


def refused(directory, words, error=ArtifactError):
    start = time.perf_counter()
    with pytest.raises(error, match=words):
        SweetModelForSequenceClassification.from_pretrained(directory, backend="torch")
    assert time.perf_counter() - start < 5
    with pytest.raises(ArtifactError):
        load_backend(open_artifact(directory), "native")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_loads_with_original_and_updated_hashes(artifact_of, kind):
    directory = artifact_of(kind)
    recompute_hashes(directory)
    backend = "torch" if kind in WITHOUT_NATIVE else "native"
    model = SweetModelForSequenceClassification.from_pretrained(directory, backend=backend)
    assert model.predict(["the soup was good"])[0]["label"].startswith("LABEL_")


# ---------------------------------------------------------------------------------------------------- config.json

CONFIGS = [
    ("bert", dict(num_hidden_layers=1), r"exits.*the model has 1 layers"),
    ("bert", dict(num_hidden_layers=3), "exits"),
    ("bert", dict(num_hidden_layers=10**9), "num_hidden_layers=1000000000"),
    *(("bert", dict(num_attention_heads=value), f"num_attention_heads={value}") for value in (2**31, 2**40, 5, 0, -4)),
    *(
        ("bert", dict(num_attention_heads=value), "num_attention_heads=")
        for value in (None, "4", 4.0, True, [4], 10**400, NAN)
    ),
    ("distilbert", dict(n_heads=5), "n_heads=5"),
    ("distilbert", dict(dim=31), "heads"),
    ("distilbert", dict(n_layers=3), "exits"),
    ("distilbert", dict(hidden_dim=47), r"lin1.weight.*shape \(48, 32\)"),
    *(("bert", dict(hidden_size=value), "hidden_size") for value in (0, -32, "32", None, 2**40)),
    ("bert", dict(hidden_size=64), "shape"),
    ("bert", dict(intermediate_size=49), r"intermediate.dense.weight.*\(49, 32\)"),
    *(("bert", dict(vocab_size=value), "vocab_size") for value in (0, -1, 2**31, "96")),
    *(("bert", dict(vocab_size=value), r"word_embeddings.*\(96, 32\)") for value in (95, 97, 2**31 - 1)),
    *(("bert", dict(max_position_embeddings=value), "max_position_embeddings") for value in (0, -1, 2**40, 1.5)),
    ("bert", dict(max_position_embeddings=65), "position_embeddings"),
    ("bert", dict(type_vocab_size=3), "token_type_embeddings"),
    ("bert", dict(type_vocab_size=0), "token_type_embeddings"),
    *(("bert", dict(layer_norm_eps=value), "layer_norm_eps") for value in (0.0, -1e-12, NAN, INFINITY, "1", None)),
    *(("bert", dict(hidden_act=value), "hidden_act") for value in ("evil", 3, None, ["gelu"], "")),
    *(("bert", dict(pad_token_id=value), "pad_token_id") for value in (96, -1, 2**40, "0", 1.0, True)),
    ("roberta", dict(pad_token_id=63), "max_position_embeddings=64"),
    ("roberta", dict(pad_token_id=95), "max_position_embeddings=64"),
    ("bert", dict(num_labels=10**9), "num_labels=1000000000"),
    ("bert", dict(num_labels=10**9, id2label=None), "num_labels=1000000000"),
    ("bert", dict(num_labels=4, id2label=None), r"classifier.*shape \(3, 32\)"),
    ("bert", dict(num_labels=2), "num_labels=2"),
    ("bert", dict(id2label={"0": "a", "2": "b", "3": "c"}), "without gaps"),
    ("bert", dict(id2label={"1": "a", "2": "b", "3": "c"}), "without gaps"),
    ("bert", dict(id2label={"0": "a", "1": "b", "x": "c"}), "without gaps"),
    ("bert", dict(id2label={"0": "a", "1": "b", "02": "c"}), "without gaps"),
    ("bert", dict(id2label={"0": "a", "1": "b"}), "classifier"),
    ("bert", dict(id2label={"0": "a", "1": None, "2": "c"}), "id2label.1=None"),
    ("bert", dict(id2label={"0": "a", "1": {}, "2": "c"}), "id2label.1"),
    ("bert", dict(id2label={}), "id2label"),
    *(("bert", dict(id2label=value), "id2label=") for value in (3, "abc", ["a", "b", "c"], True)),
    *(("bert", dict(sweet=value), "sweet") for value in (3, "x", [1], True)),
    ("bert", dict(sweet={"exits": 3}), "sweet.exits=3"),
    ("bert", dict(sweet={"exits": [1, 2], "mode": {}}), "sweet"),
    ("bert", dict(sweet={"exits": [1, 2], "mode": "decoupled"}), r"lack 'sweet_exits\.1\.layer\.attention"),
    ("decoupled", dict(sweet={"exits": [1, 2], "mode": "joint"}), r"holds 'sweet_exits\.1\.layer.*the config excludes"),
    ("bert", dict(sweet={"exits": [1, 2], "learn_to_exit": "yes"}), "learn_to_exit='yes'"),
    ("bert", dict(sweet={"exits": [1, 2], "learn_to_exit": True}), r"lack 'sweet_exits.1.certainty.weight'"),
    ("bert", dict(sweet={"exits": [2]}), r"exits=\[1, 2\]"),
    ("bert", dict(sweet={"exits": ["1", 2]}), "sweet"),
    ("bert", dict(pruned_heads={"0": [0]}), "pruned_heads"),
    ("bert", dict(per_layer_config={"0": {"hidden_act": "relu"}}), "per_layer_config"),
    ("bert", dict(hidden_dropout_prob="x"), "hidden_dropout_prob='x'"),
    ("roberta", dict(pad_token_id=None), "pad_token_id"),
    ("deberta-v3", dict(pooler_hidden_act=None), "pooler_hidden_act"),
    ("bert", dict(intermediate_size=None), "intermediate_size"),
    ("electra", dict(embedding_size=32), "embeddings_project"),
    ("electra", dict(embedding_size=40), "embeddings"),
    ("electra", dict(embedding_size=0), "embedding_size=0"),
    ("deberta-v3", dict(position_buckets=1), "position_buckets=1"),
    ("deberta-v3", dict(position_buckets=10**6), "position_buckets=1000000"),
    ("deberta-v3", dict(position_buckets=9), "rel_embeddings"),
    ("deberta-v3", dict(max_relative_positions=4), "position_buckets=8"),
    ("deberta-v3", dict(max_relative_positions=0), "max_relative_positions=0"),
    ("deberta-v3", dict(max_relative_positions=2**40), "max_relative_positions"),
    ("deberta", dict(max_relative_positions=25), "rel_embeddings"),
    ("deberta-v3", dict(pos_att_type=["c2p", "c2p"]), "pos_att_type"),
    ("deberta-v3", dict(pos_att_type=["p2p"]), "pos_att_type"),
    ("deberta-v3", dict(pos_att_type=[3]), "pos_att_type"),
    ("deberta-v3", dict(norm_rel_ebd="batch_norm"), "norm_rel_ebd"),
    ("deberta-v3", dict(norm_rel_ebd=3), "norm_rel_ebd"),
    ("deberta-v3", dict(share_att_key=False), "pos_key_proj"),
    ("deberta-v3", dict(share_att_key="no"), "share_att_key"),
    ("deberta-v3", dict(attention_head_size=16), "attention_head_size=16"),
    ("deberta-v3", dict(position_biased_input=True), "position_embeddings"),
    ("deberta-v3", dict(pooler_hidden_act="evil"), "pooler_hidden_act"),
    ("deberta-v3", dict(pooler_hidden_size=16), "pooler_hidden_size"),
    ("deberta-v2-conv", dict(conv_kernel_size=4), "conv_kernel_size=4"),
    ("deberta-v2-conv", dict(conv_kernel_size=10**9), "conv_kernel_size"),
    ("deberta-v2-conv", dict(conv_groups=3), "conv_groups=3"),
    ("deberta-v2-conv", dict(conv_groups=0), "conv_groups=0"),
    ("deberta-v2-conv", dict(conv_act="evil"), "conv_act"),
]


@pytest.mark.parametrize(("kind", "fields", "words"), CONFIGS, ids=lambda value: str(value)[:40])
def test_config_fields(artifact_of, kind, fields, words):
    directory = artifact_of(kind)
    missing_eps = fields == {"layer_norm_eps": None}
    edit_config(directory, lambda config: config.update(fields))
    if missing_eps or (any(value is None for value in fields.values()) and len(fields) == 1):
        words = "|".join((words, "does not accept", "has no", "lack", "shape"))
    refused(directory, words)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "deberta", "deberta-v2-conv"])
def test_null_fields_raise_or_count_as_absent(artifact_of, kind):
    directory = artifact_of(kind)
    whole = (directory / "config.json").read_bytes()
    for name in json.loads(whole):
        for change in (
            lambda config, name=name: config.update({name: None}),
            lambda config, name=name: config.pop(name),
        ):
            edit_config(directory, change)
            try:
                model = SweetModelForSequenceClassification.from_pretrained(directory, backend="torch")
                model.predict(["the soup was good"])
            except ArtifactError as error:
                assert "config.json" in str(error) or "weights" in str(error) or "safetensors" in str(error), name
            (directory / "config.json").write_bytes(whole)


@pytest.mark.parametrize("model_type", ["evil", "gpt2", "albert", "", None, 3, ["bert"], "roberta", "deberta-v2"])
def test_unknown_families(artifact_of, model_type):
    directory = artifact_of("bert")
    edit_config(directory, lambda config: config.update(model_type=model_type))
    refused(directory, "model_type|lack")


@pytest.mark.parametrize(
    "fields", [dict(is_decoder=True), dict(problem_type="regression"), dict(add_cross_attention=True)]
)
def test_error_class_of_unsupported_models(artifact_of, fields):
    directory = artifact_of("bert")
    edit_config(directory, lambda config: config.update(fields))
    with pytest.raises(UnsupportedModelError) as caught:
        SweetModelForSequenceClassification.from_pretrained(directory)
    assert isinstance(caught.value, ArtifactError) and "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["to_dict", "__class__", "save_pretrained", "_attn_implementation", "auto_map"])
def test_fields_do_not_replace_methods_of_the_config(artifact_of, name):
    directory = artifact_of("bert")
    edit_config(directory, lambda config: config.update({name: "evil/kernel"}))
    config = open_artifact(directory).model_config()
    assert config.to_dict()["model_type"] == "bert" and config._attn_implementation != "evil/kernel"


# ---------------------------------------------------------------------------------------------------- sweet_config.json

SETTINGS = [
    *(("bert", dict(exits=value), "exits") for value in ([2, 1], [4, 4], [1, 4, 2], [1, 4], [1, 3], [0, 2], [-1, 2])),
    *(("bert", dict(exits=value), "exits") for value in ([], None, 3, "12", {"1": 2}, [1.0, 2], [True, 2], [[1], 2])),
    ("bert", dict(exits=[2]), "exits|policy"),
    *(("bert", dict(policy=value), "policy") for value in (None, 3, [], {}, "max", {"thresholds": [0.5]})),
    *(
        ("bert", dict(policy={"thresholds": thresholds, "temperatures": temperatures}), "policy")
        for thresholds, temperatures in (
            ("a", [1, 1]),
            ([None], [1, 1]),
            (["0.5"], [1, 1]),
            ([2], [1, 1]),
            ([NAN], [1, 1]),
            ([0.5], [0, 1]),
            ([0.5], [1, INFINITY]),
            ([0.5], [1, 10**400]),
            ([0.5], [1, 1, 1]),
            ([0.5], [1, 1e39]),
            ([0.5, 0.5], [1, 1]),
            ([[0.5]], [1, 1]),
            ([True], [1, 1]),
            (0.5, [1, 1]),
        )
    ),
    *(
        ("bert", dict(policy={"thresholds": [0.5], "temperatures": [1, 1], name: value}), f"policy.{name}")
        for name, value in (
            ("criterion", "evil"),
            ("criterion", ["entropy"]),
            ("criterion", None),
            ("patience", 0),
            ("patience", True),
            ("patience", 1.5),
            ("deepest", 2),
            ("deepest", 0.5),
            ("deepest", -1),
            ("deepest", True),
        )
    ),
    *(("bert", {name: None}, name) for name in ("calibration", "costs", "quantization", "provenance", "shares_pooler")),
    *(("bert", {name: [1]}, name) for name in ("calibration", "costs", "quantization", "provenance")),
    *(("bert", dict(precision=value), "precision") for value in ("int4", None, ["float32"], {}, 3)),
    ("bert", dict(precision="int8"), "int8"),
    ("static", dict(precision="float32"), "model.safetensors"),
    *(("bert", dict(architecture=value), "architecture") for value in ("evil", None, ["cascade"], 3)),
    ("bert", dict(architecture="cascade"), "stages"),
    *(("bert", dict(schema_version=value), "schema") for value in (0, -1, None, "3", 1.5, True, 10**6)),
    ("bert", dict(format=None), "format"),
    *(("bert", dict(files=value), "files") for value in (None, [], "x", {"../x": {}}, {"a": 3})),
    ("bert", dict(files={"config.json": None}), "files|listed"),
    ("bert", dict(calibration={"candidates": 3}), "candidates"),
    ("bert", dict(calibration={"candidates": [3]}), r"candidates\[0\]"),
    ("bert", dict(calibration={"candidates": [{"mean_layers": 1.0}]}), "thresholds"),
    ("bert", dict(calibration={"candidates": [{"mean_layers": "x", "thresholds": [0.5]}]}), "mean_layers"),
    ("bert", dict(calibration={"candidates": [{"mean_layers": NAN, "thresholds": [0.5]}]}), "mean_layers"),
    ("bert", dict(calibration={"candidates": [{"mean_layers": 1, "thresholds": [0.5, 0.5]}]}), "thresholds"),
    ("bert", dict(calibration={"backend": ["native"]}), "calibration.backend"),
    ("bert", dict(calibration={"budget": 3}), "budget"),
    ("bert", dict(calibration={"labels": 3}), "labels"),
    ("bert", dict(calibration={"labels": [{"label": 3, "rows": 2, "agreeing": 1}]}), r"labels\[0\].label"),
    ("bert", dict(calibration={"labels": [{"label": "a", "rows": 2, "agreeing": 3}]}), r"labels\[0\].agreeing"),
    ("bert", dict(calibration={"budget": {"max_accuracy_drop": "x"}}), "max_accuracy_drop"),
    ("bert", dict(calibration={"traffic": {"exits": [1, 2]}}), "traffic"),
    ("bert", dict(calibration={"traffic": {"exits": [1, 2], "score_edges": [], "rows": [[[0], [0]]]}}), "traffic"),
    ("bert", dict(costs={"processor": "x"}), "costs"),
    ("bert", dict(costs={"processor": "x", "threads": 1, "batch_sizes": [1, 1]}), "batch_sizes"),
    ("bert", dict(shares_pooler="yes"), "shares_pooler"),
    ("bert", dict(shares_pooler=3), "shares_pooler"),
    ("decoupled", dict(shares_pooler=True), "shares_pooler=True.*decoupled"),
    *(
        ("cascade", dict(stages=value), "stages")
        for value in (
            ["../other", "exit_2"],
            ["exit_1", "/etc"],
            ["exit_1", "exit_1"],
            ["exit_2", "."],
            ["exit_2"],
            [],
            None,
            3,
            "exit_1",
            [1, 2],
            [None, "exit_2"],
            ["exit_1/..", "exit_2"],
            ["exit_1\0", "exit_2"],
        )
    ),
    ("cascade", dict(stages=["exit_2", "exit_1"]), "num_hidden_layers"),
    ("cascade", dict(exits=[1, 3]), "exits|layers"),
]


@pytest.mark.parametrize(("kind", "fields", "words"), SETTINGS, ids=lambda value: str(value)[:60])
def test_settings_fields(artifact_of, kind, fields, words):
    directory = artifact_of(kind)
    edit_settings(directory, lambda settings: settings.update(fields))
    refused(directory, words)


@pytest.mark.parametrize("name", ["format", "schema_version", "architecture", "exits", "policy", "files"])
def test_missing_settings(artifact_of, name):
    directory = artifact_of("bert")
    edit_settings(directory, lambda settings: settings.pop(name))
    refused(directory, name)


def test_cascade_without_stages(artifact_of):
    directory = artifact_of("cascade")
    edit_settings(directory, lambda settings: settings.pop("stages"))
    refused(directory, "stages")


@pytest.mark.parametrize(
    "fields",
    [
        dict(num_hidden_layers=2),
        dict(vocab_size=95),
        dict(pad_token_id=3),
        dict(id2label={"0": "a", "1": "b", "2": "c"}),
        dict(num_attention_heads=5),
        dict(sweet=None),
        dict(model_type="roberta"),
    ],
    ids=str,
)
def test_inconsistent_stages_of_a_cascade(artifact_of, fields):
    directory = artifact_of("cascade")
    edit_json(directory / "exit_1" / "config.json", lambda config: config.update(fields))
    recompute_hashes(directory)
    refused(directory, "exit_1")


# ---------------------------------------------------------------------------------------------------- JSON text

TEXTS = {
    "nested": b'{"a": ' * 10_000 + b"1" + b"}" * 10_000,
    "nested lists": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested a little": b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half": b'{"a": ',
    "empty": b"",
    "NUL bytes": b"\0" * 64,
    "a list": b"[1]",
    "null": b"null",
    "surrogate": b'{"id2label": {"0": "\\ud83d"}}',
    "long integer": b'{"vocab_size": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["config.json", "sweet_config.json", "tokenizer_config.json"])
def test_invalid_json(artifact_of, name, text):
    directory = artifact_of("bert")
    (directory / name).write_bytes(TEXTS[text])
    recompute_hashes(directory)
    with pytest.raises(ArtifactError, match=name):
        SweetModelForSequenceClassification.from_pretrained(directory)


# ---------------------------------------------------------------------------------------------------- tensors

LAYER = "bert.encoder.layer.0"
QUERY, KEY, VALUE = (f"{LAYER}.attention.self.{name}" for name in ("query", "key", "value"))


def resized(*names_and_shapes):
    def change(tensors):
        for name, *shape in names_and_shapes:
            tensors[name] = tensors[name].reshaped(*shape)

    return change


def replaced(name, tensor):
    return lambda tensors: tensors.__setitem__(name, tensor)


def set_to(name, value, place=0):
    return lambda tensors: tensors.__setitem__(name, with_value(tensors[name], value, place))


def narrowed(size):
    """Changes the width of query, key and value, and of all layers that read them."""
    parts = [(f"{path}.{part}", *shape) for path in (QUERY, KEY, VALUE) for part, shape in PARTS(size)]
    return resized(*parts, (f"{LAYER}.attention.output.dense.weight", 32, size))


def PARTS(size):
    return (("weight", (size, 32)), ("bias", (size,)))


OWN, OWN_STATIC = "sweet_exits.1.layer.attention.self.query", "sweet_exits.1.layer.ffn.lin1"
WORDS, TABLE = "bert.embeddings.word_embeddings.weight", "bert.embeddings"
TENSORS = [
    *(("bert", narrowed(size), "query.weight.*shape") for size in (16, 28, 64, 4)),
    ("bert", resized((f"{KEY}.weight", 64, 32), (f"{KEY}.bias", 64)), "key.weight"),
    ("bert", resized((f"{KEY}.weight", 16, 32), (f"{KEY}.bias", 16)), "key.weight"),
    ("bert", resized((f"{VALUE}.weight", 16, 32), (f"{VALUE}.bias", 16)), "value.weight"),
    ("bert", resized((f"{QUERY}.bias", 31)), "query.bias"),
    *(
        (
            "bert",
            resized(
                (WORDS, 96, size),
                (f"{TABLE}.position_embeddings.weight", 64, size),
                (f"{TABLE}.token_type_embeddings.weight", 2, size),
                (f"{TABLE}.LayerNorm.weight", size),
                (f"{TABLE}.LayerNorm.bias", size),
            ),
            "word_embeddings",
        )
        for size in (16, 64)
    ),
    ("bert", resized((f"{TABLE}.position_embeddings.weight", 8, 32)), "position_embeddings"),
    ("bert", resized((f"{TABLE}.token_type_embeddings.weight", 1, 32)), "token_type"),
    ("bert", resized((f"{LAYER}.output.LayerNorm.weight", 16)), "LayerNorm"),
    ("bert", resized((f"{LAYER}.intermediate.dense.weight", 24, 32)), "intermediate"),
    ("bert", resized(("classifier.weight", 2, 32), ("classifier.bias", 2)), "classifier"),
    ("bert", resized(("classifier.bias", 1)), "classifier.bias"),
    ("bert", resized(("sweet_exits.1.classifier.weight", 4, 32)), "sweet_exits.1.classifier"),
    ("bert", resized(("sweet_exits.1.dense.weight", 32, 16)), "sweet_exits.1.dense"),
    ("bert", resized(("classifier.weight", 96)), "classifier"),
    ("bert", lambda tensors: tensors.pop(f"{QUERY}.bias"), "lack"),
    ("bert", lambda tensors: tensors.pop(f"{TABLE}.position_embeddings.weight"), "lack"),
    ("bert", lambda tensors: tensors.pop(f"{TABLE}.token_type_embeddings.weight"), "lack"),
    ("bert", lambda tensors: tensors.pop("sweet_exits.1.classifier.weight"), "lack"),
    ("bert", replaced("classifier.weight", RawTensor("C64", [3, 32], bytes(8 * 96))), "C64"),
    ("bert", replaced("classifier.weight", RawTensor("F8_E4M3", [3, 32], bytes(96))), "F8_E4M3"),
    ("bert", replaced("classifier.weight", RawTensor("EVIL", [3, 32], bytes(96))), "EVIL"),
    ("bert", replaced("classifier.weight", RawTensor.of(np.zeros((3, 32)), "F64")), "float64"),
    ("bert", replaced("classifier.weight", RawTensor.of(np.zeros((3, 32)), "I64")), "int64"),
    ("bert", replaced("classifier.weight", RawTensor.of(np.zeros((3, 32)), "I8")), "int8"),
    ("bert", replaced(f"{QUERY}.weight", RawTensor.of(np.ones((32, 32)), "I8")), "int8"),
    *(
        ("bert", set_to(name, value, place), name.replace(".", r"\."))
        for name in (WORDS, f"{QUERY}.bias", "classifier.weight", f"{LAYER}.output.LayerNorm.weight")
        for value, place in ((NAN, 0), (INFINITY, 5), (-INFINITY, 31), (3e38, 7))
    ),
    *(
        ("static", replaced(f"{QUERY}.input_zero_point", RawTensor.of(np.array(value), dtype)), "zero_point")
        for value, dtype in (
            *((300, "I32"), (-1, "I32"), (256, "I32"), (2**31 - 1, "I32"), (2**32, "I64"), (2**32 + 5, "I64")),
            *((-(2**63), "I64"), (NAN, "F32"), (128.0, "F32"), (-128, "I8")),
        )
    ),
    *(
        ("static", set_to(f"{QUERY}.{name}", value), name)
        for name in ("input_scale", "weight_scale")
        for value in (0.0, -0.0, -1.0, NAN, INFINITY, -INFINITY, 1e-45)
    ),
    ("decoupled", resized((f"{OWN}.weight", 16, 32), (f"{OWN}.bias", 16)), r"1\.layer.*query.weight.*\(16, 32\)"),
    ("decoupled", resized(("sweet_exits.1.layer.output.LayerNorm.bias", 31)), r"1\.layer.*LayerNorm.bias.*\(31,\)"),
    ("decoupled", set_to(f"{OWN}.weight", NAN, 7), r"1\.layer.*query.weight.*nan"),
    ("decoupled", replaced(f"{OWN}.weight", RawTensor.of(np.ones((32, 32)), "I8")), r"1\.layer.*int8"),
    ("decoupled", lambda tensors: tensors.pop(f"{OWN}.bias"), r"lack 'sweet_exits\.1\.layer.*bias'"),
    ("decoupled-static", lambda tensors: tensors.pop(f"{OWN_STATIC}.weight_scale"), r"lack.*1\.layer.*weight_scale"),
    ("decoupled-static", set_to(f"{OWN_STATIC}.input_scale", 0.0), r"1\.layer.*input_scale"),
    ("decoupled-static", set_to(f"{OWN_STATIC}.input_zero_point", 300), r"1\.layer.*input_zero_point"),
    *(("smooth", None, value) for value in (0.0, -1.0, NAN, INFINITY)),
    ("static", lambda tensors: tensors.pop(f"{QUERY}.input_zero_point"), "input_zero_point"),
    ("static", lambda tensors: tensors.pop(f"{QUERY}.input_scale"), "input_scale"),
    ("static", lambda tensors: tensors.pop(f"{QUERY}.weight_scale"), "weight_scale"),
    ("static", resized((f"{QUERY}.weight_scale", 1)), "weight_scale"),
    ("static", resized((f"{QUERY}.input_scale", 32)), "input_scale"),
    *(
        ("static", set_to(f"{TABLE}.word_embeddings.weight_scale", value, 3), r"word_embeddings\.weight_scale")
        for value in (0.0, -1.0, NAN, INFINITY)
    ),
    ("static", lambda tensors: tensors.pop(f"{TABLE}.word_embeddings.weight_scale"), "word_embeddings.weight_scale"),
    ("static", resized((f"{TABLE}.word_embeddings.weight_scale", 32)), "word_embeddings.weight_scale"),
    ("static", replaced(WORDS, RawTensor.of(np.ones((96, 32)), "U8")), "word_embeddings.*uint8"),
    ("static", replaced(WORDS, RawTensor.of(np.ones((96, 32)), "F32")), "word_embeddings.*not quantized"),
    ("static", replaced(WORDS, RawTensor.of(np.ones((96, 16)), "I8")), r"word_embeddings.*\(96, 16\)"),
    (
        "static",
        lambda tensors: tensors.update({f"{TABLE}.word_embeddings.input_scale": RawTensor.of(np.array(0.1), "F32")}),
        "word_embeddings.input_scale.*no input range",
    ),
    ("bert", replaced(WORDS, RawTensor.of(np.ones((96, 32)), "I8")), "word_embeddings.*holds no integers"),
    ("static", replaced(f"{TABLE}.position_embeddings.weight", RawTensor.of(np.ones((64, 32)), "I8")), "int8"),
    ("static", resized((f"{QUERY}.input_zero_point", 1)), "input_zero_point"),
    ("static", replaced(f"{QUERY}.weight", RawTensor.of(np.ones((32, 32)), "U8")), "uint8"),
    ("static", replaced(f"{QUERY}.weight", RawTensor.of(np.ones((32, 32)), "F32")), "weight_scale"),
]


@pytest.mark.parametrize("place", range(len(TENSORS)))
def test_tensors(artifact_of, place):
    kind, change, words = TENSORS[place]
    directory = artifact_of(kind)
    if change is None:
        smoothing = "roberta.encoder.layer.0.attention.self.query.input_smoothing"
        change, words = set_to(smoothing, words, 3), "input_smoothing"
    edit_tensors(directory, change)
    refused(directory, words)


@pytest.mark.parametrize(
    "kind", ["electra", "deberta", "deberta-v3", "deberta-v2-conv", "learned", "dynamic", "cascade"]
)
def test_every_tensor_of_every_kind_is_checked(artifact_of, kind):
    """Damages each tensor in several ways."""
    directory = artifact_of(kind)
    path = weights_of(directory / "exit_1" if kind == "cascade" else directory)
    whole, settings = path.read_bytes(), (directory / "sweet_config.json").read_bytes()
    tensors = read_tensors(path)
    damages = (
        lambda tensor: with_value(tensor, NAN) if tensor.dtype == "F32" else RawTensor.of(tensor.values, "U8"),
        lambda tensor: tensor.reshaped(*tensor.shape, 1),
        lambda tensor: RawTensor.of(tensor.values, "F64"),
        lambda tensor: None,
    )
    for number, name in enumerate(tensors):
        damaged = damages[number % len(damages)](tensors[name])

        def change(found, name=name, damaged=damaged):
            found.pop(name) if damaged is None else found.__setitem__(name, damaged)

        edit_tensors(path.parent, change)
        recompute_hashes(directory)
        with pytest.raises(
            ArtifactError, match=name.removesuffix("_scale").replace(".", r"\.") + "|lack|not quantized"
        ):
            load_backend(open_artifact(directory), "torch")
        path.write_bytes(whole)
        (directory / "sweet_config.json").write_bytes(settings)


@pytest.mark.parametrize("by", range(1, 8))
@pytest.mark.parametrize("kind", ["bert", "static"])
def test_misaligned_tensors_give_the_same_answers(artifact_of, kind, by):
    directory = artifact_of(kind)
    expected = SweetModelForSequenceClassification.from_pretrained(directory, backend="native").predict(["good soup"])
    edit_tensors(directory, lambda tensors: None, misaligned_by=by)
    tensors = open_artifact(directory).tensors()
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in tensors.values())
    for backend in ("native", "torch"):
        model = SweetModelForSequenceClassification.from_pretrained(directory, backend=backend)
        assert model.predict(["good soup"])[0]["score"] == pytest.approx(expected[0]["score"], abs=1e-5)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_weights(artifact_of, dtype):
    def change(tensors):
        for name, tensor in tensors.items():
            values = tensor.values
            if dtype == "BF16":
                bits = (values.view(np.uint32) >> 16).astype(np.uint16)
                tensors[name] = RawTensor("BF16", tensor.shape, bits.tobytes())
            else:
                tensors[name] = RawTensor.of(values, dtype)

    directory = artifact_of("bert")
    expected = SweetModelForSequenceClassification.from_pretrained(directory).predict(["good soup"])[0]["score"]
    edit_tensors(directory, change)
    for backend in ("native", "torch"):
        model = SweetModelForSequenceClassification.from_pretrained(directory, backend=backend)
        assert model.predict(["good soup"])[0]["score"] == pytest.approx(expected, abs=0.05)

    def broken(tensors):
        tensor = tensors["classifier.bias"]
        bits = {"F16": b"\x00\x7e", "BF16": b"\xc0\x7f"}[dtype]  # not a number
        tensors["classifier.bias"] = RawTensor(tensor.dtype, tensor.shape, bits + tensor.data[2:])

    edit_tensors(directory, broken)
    refused(directory, "classifier.bias.*nan")


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HEADERS = {
    "overlap": {"a": entry(), "b": entry(offsets=(2, 6))},
    "gap": {"a": entry(), "b": entry(offsets=(5, 9))},
    "behind the end": {"a": entry(shape=(10**9,), offsets=(0, 4 * 10**9))},
    "negative": {"a": entry(offsets=(-4, 0))},
    "backwards": {"a": entry(offsets=(4, 0))},
    "too few bytes": {"a": entry(shape=(1000, 1000, 1000))},
    "negative shape": {"a": entry(shape=(-1, -1))},
    "shape that overflows": {"a": entry(shape=(2**63, 2), offsets=(0, 0))},
    "axes of zeros": {"a": entry(shape=(0,) * 5 + (2**61,) * 3, offsets=(0, 0)), "b": entry()},
    "many axes": {"a": entry(shape=(1,) * 70)},
    "float shape": {"a": entry(shape=(1.0,))},
    "no offsets": {"a": {"dtype": "F32", "shape": [1]}},
    "null": {"a": None},
    "list": {"a": []},
    "dtype list": {"a": entry(dtype=["F32"])},
    "metadata list": {"__metadata__": [1], "a": entry()},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_safetensors(artifact_of, name):
    directory = artifact_of("bert")
    write_raw(directory / "model.safetensors", json.dumps(HEADERS[name]), bytes(4))
    recompute_hashes(directory)
    refused(directory, "model.safetensors")


@pytest.mark.parametrize(
    "contents",
    [b"", b"\0" * 7, b"\0" * 8, (2**63).to_bytes(8, "little"), (10**9).to_bytes(8, "little") + b"{}", b"\xff" * 64],
    ids=str,
)
def test_invalid_safetensors_files(artifact_of, contents):
    directory = artifact_of("bert")
    (directory / "model.safetensors").write_bytes(contents)
    recompute_hashes(directory)
    refused(directory, "model.safetensors|lack")


def test_duplicate_tensor_in_a_header(artifact_of):
    directory = artifact_of("bert")
    text = '{"a": %s, "a": %s}' % ((json.dumps(entry()),) * 2)
    write_raw(directory / "model.safetensors", text, bytes(4))
    recompute_hashes(directory)
    refused(directory, "duplicate name")


def test_duplicate_tensor_in_two_shards(artifact_of):
    directory = artifact_of("bert")
    whole = (directory / "model.safetensors").read_bytes()
    for number in (1, 2):
        (directory / f"model-{number}.safetensors").write_bytes(whole)
    (directory / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "sweet_config.json").unlink()
    refused(directory, "both hold")


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["config.json", "sweet_config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("what", ["pipe", "folder", "loop", "device", "socket"])
def test_special_files(artifact_of, name, what):
    directory = artifact_of("bert")
    path = directory / name
    path.unlink()
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    }[what]()
    done = []

    def load():
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            SweetModelForSequenceClassification.from_pretrained(directory)
        done.append(True)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(20)
    assert done
