"""Configs and weights of EuroBERT and RoFormer that are refused by name, with and without transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import RoFormerConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from itrex_sweet import attach
from itrex_sweet.artifact import open_artifact, write_artifact
from itrex_sweet.artifact.model_config import resolved_config
from itrex_sweet.errors import ArtifactError, UnsupportedArtifactError, UnsupportedModelError
from itrex_sweet.families import family_of
from itrex_sweet.runtime.backends import load_backend
from tests.tiny_artifacts import model_and_tensors
from tests.tiny_models import tiny_config, tiny_model

EUROBERT = {"model_type": "eurobert", "num_hidden_layers": 2, "rope_theta": 250000.0}
ROFORMER = {"model_type": "roformer", "num_hidden_layers": 2}
needs_eurobert = pytest.mark.skipif("eurobert" not in CONFIG_MAPPING, reason="this transformers has no EuroBERT")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({**ROFORMER, "rotary_value": True}, "rotary_value=True"),
        ({**ROFORMER, "rope_theta": 500.0}, "rope_theta=500.0: its family's theta=10000.0 says otherwise"),
        ({**ROFORMER, "rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_scaling\['type'\]='linear'"),
        ({**ROFORMER, "hidden_size": 60}, "heads of size 5 have no pairs"),
        ({**EUROBERT, "rope_theta": None}, r"neither rope_theta nor rope_parameters\['rope_theta'\]"),
        ({**EUROBERT, "rope_scaling": {"type": "yarn", "factor": 2.0}}, r"rope_scaling\['type'\]='yarn'"),
        ({**EUROBERT, "head_dim": 128}, "head_dim=128"),
        ({**EUROBERT, "num_key_value_heads": 5}, "num_key_value_heads=5: it has to divide num_attention_heads=12"),
        ({**EUROBERT, "classifier_pooling": "cls"}, "classifier_pooling='cls': one of bos, mean, late is needed"),
        ({**EUROBERT, "clf_pooling": "mean"}, "clf_pooling='mean': classifier_pooling='late' says otherwise"),
    ],
    ids=str,
)
def test_configs_that_are_refused(fields, named, tmp_path):
    with pytest.raises(UnsupportedArtifactError, match=named):
        resolved_config(fields, (1, 2), tmp_path / "config.json")


@pytest.mark.parametrize(
    "fields",
    [
        {**EUROBERT, "clf_pooling": "late", "num_key_value_heads": None, "head_dim": 64},
        {**EUROBERT, "clf_pooling": "mean", "classifier_pooling": "mean"},
        {**ROFORMER, "rope_theta": 10000, "rotary_value": False, "embedding_size": None},
    ],
    ids=str,
)
def test_configs_that_say_the_same_twice(fields, tmp_path):
    assert resolved_config(fields, (1, 2), tmp_path / "config.json").num_hidden_layers == 2


@needs_eurobert
@pytest.mark.parametrize("value", [0, -2, 2.0, "2", True])
def test_numbers_of_key_value_heads_that_are_no_numbers(value, tmp_path):
    with pytest.raises(ArtifactError, match="num_key_value_heads="):
        resolved_config({**EUROBERT, "num_key_value_heads": value}, (1, 2), tmp_path / "config.json")


@needs_eurobert
@pytest.mark.parametrize(("field", "value"), [("head_dim", 16), ("classifier_pooling", "cls"), ("clf_pooling", "mean")])
def test_training_refuses_them_too(field, value):
    model = tiny_model("eurobert")
    setattr(model.config, field, value)
    with pytest.raises(UnsupportedModelError, match=f"{field}={value!r}"):
        attach(model)


def test_training_refuses_rotated_values():
    with pytest.raises(UnsupportedModelError, match="rotary_value=True"):
        family_of(RoFormerConfig(rotary_value=True))


@needs_eurobert
def test_a_bias_of_a_norm_is_refused(tmp_path):
    _, config, tensors = model_and_tensors("eurobert", (1, 4))
    tensors["model.layers.1.input_layernorm.bias"] = torch.zeros(32)
    with pytest.raises(ArtifactError, match=r"input_layernorm\.bias.*config says is not there"):
        load_backend(write_artifact(tmp_path, config=config, tensors=tensors), "torch")


@needs_eurobert
@pytest.mark.parametrize("part", ["k_proj", "v_proj"])
def test_keys_and_values_have_their_own_number_of_heads(tmp_path, part):
    _, config, tensors = model_and_tensors("eurobert", (1, 4))
    tensors[f"model.layers.1.self_attn.{part}.weight"] = torch.zeros(32, 32)
    with pytest.raises(ArtifactError, match=rf"{part}\.weight' has shape \(32, 32\), the config needs \(16, 32\)"):
        load_backend(write_artifact(tmp_path, config=config, tensors=tensors), "torch")


TABLE = "roformer.encoder.embed_positions.weight"


def _with_table(directory, change):
    _, config, tensors = model_and_tensors("roformer", (1, 4))
    change(tensors)
    return load_backend(open_artifact(write_artifact(directory, config=config, tensors=tensors).directory), "torch")


def test_a_table_of_other_positions_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=f"{TABLE}' holds other values than the sines and cosines of theta=10000"):
        _with_table(tmp_path, lambda tensors: tensors[TABLE][-1].mul_(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, None], ids=str)
def test_tables_of_its_positions(tmp_path, dtype):
    def change(tensors):
        table = tensors.pop(TABLE)
        assert table.shape == (tiny_config("roformer").max_position_embeddings, 8)
        if dtype is not None:
            tensors[TABLE] = table.to(dtype)

    assert _with_table(tmp_path, change).name == "torch"
