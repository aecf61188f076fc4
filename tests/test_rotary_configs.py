"""Rotary positions and windows of a config: both spellings are read, and nothing is guessed."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from itrex_sweet.acceleration.checkpoint import open_checkpoint
from itrex_sweet.artifact.model_config import resolved_config
from itrex_sweet.artifact.transformers_config import model_config
from itrex_sweet.errors import ArtifactError, UnsupportedArtifactError, UnsupportedModelError
from itrex_sweet.evaluation.plain_model import load_plain_model
from itrex_sweet.families import family_of
from itrex_sweet.families.rotary import GLOBAL, LOCAL, LayerPositions, flat_fields, layer_positions
from itrex_sweet.runtime.rotary_attention import windowed_attention
from tests.tiny_artifacts import tiny_tokenizer

OLD = {
    "global_rope_theta": 500.0,
    "local_rope_theta": 50.0,
    "global_attn_every_n_layers": 2,
    "local_attention": 9,
}
NEW = {
    "rope_parameters": {
        GLOBAL: {"rope_type": "default", "rope_theta": 500.0},
        LOCAL: {"rope_type": "default", "rope_theta": 50.0},
    },
    "layer_types": [GLOBAL, LOCAL, GLOBAL],
    "local_attention": 9,
}
EXPECTED = (LayerPositions(500.0, None), LayerPositions(50.0, 4), LayerPositions(500.0, None))


def positions(fields: dict) -> tuple[LayerPositions, ...]:
    return layer_positions(SimpleNamespace(**{"num_hidden_layers": 3, **fields}), local_layers=True)


def parameters(**changes) -> dict:
    """Returns the new spelling with changes to the parameters of the local layers."""
    local = {**NEW["rope_parameters"][LOCAL], **changes}
    return {**NEW, "rope_parameters": {**NEW["rope_parameters"], LOCAL: local}}


@pytest.mark.parametrize("fields", [OLD, NEW, {**OLD, **NEW}], ids=["transformers 4", "transformers 5", "both"])
def test_both_spellings_are_read(fields):
    assert positions(fields) == EXPECTED


@pytest.mark.parametrize("fields", [OLD, NEW], ids=["transformers 4", "transformers 5"])
def test_positions_are_those_of_the_transformers_config(fields, tmp_path):
    fields = {"model_type": "modernbert", "num_hidden_layers": 3, **fields}
    assert layer_positions(resolved_config(fields, (1, 3), tmp_path / "config.json"), True) == EXPECTED
    assert layer_positions(model_config(fields, (1, 3), tmp_path / "config.json"), True) == EXPECTED
    config = ModernBertConfig(num_hidden_layers=3, **OLD)
    assert layer_positions(config, True) == EXPECTED
    assert family_of(config).model_type == "modernbert"


def test_translation_for_transformers_4():
    fields = {"num_hidden_layers": 3, **NEW}
    expected = {name: value for name, value in OLD.items() if name != "local_attention"}
    assert flat_fields(fields) == expected
    assert flat_fields({"num_hidden_layers": 3, **OLD}) == {}
    assert flat_fields({**fields, **OLD}) == {}
    with pytest.raises(UnsupportedModelError, match="use transformers 5"):
        flat_fields({**fields, "layer_types": [GLOBAL, GLOBAL, LOCAL]})
    with pytest.raises(UnsupportedModelError, match="says otherwise"):
        flat_fields({**fields, "local_rope_theta": 10000.0})


@pytest.mark.parametrize("fields", [OLD, NEW], ids=["transformers 4", "transformers 5"])
def test_checkpoints_of_both_versions_load(fields, tmp_path):
    """The model is saved by the installed version, and its config replaced by that of each version."""
    torch.manual_seed(0)
    shape = dict(vocab_size=96, hidden_size=32, num_attention_heads=4, intermediate_size=48, num_hidden_layers=3)
    ids = dict(pad_token_id=1, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3, num_labels=3)
    model = ModernBertForSequenceClassification(ModernBertConfig(**shape, **ids, **OLD, initializer_range=0.5)).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in (*OLD, *NEW, "sliding_window"):
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps({**config, **fields}))
    loaded = load_plain_model(tmp_path)[0]
    tokens = torch.arange(4, 40)[None]
    with torch.no_grad():
        expected, found = model(input_ids=tokens).logits, loaded(input_ids=tokens).logits
    torch.testing.assert_close(found, expected)
    assert open_checkpoint(tmp_path).depth == 3 and layer_positions(loaded.config, True) == EXPECTED


def test_a_missing_local_theta_is_the_global_one():
    assert positions({**OLD, "local_rope_theta": None})[1] == LayerPositions(500.0, 4)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({**OLD, "global_rope_theta": None}, "neither global_rope_theta nor"),
        ({**OLD, "global_attn_every_n_layers": None}, "neither layer_types nor global_attn_every_n_layers"),
        ({**OLD, "local_attention": None}, "no local_attention"),
        ({**OLD, "local_attention": -1}, "local_attention=-1"),
        ({**OLD, "local_attention": 128.0}, r"local_attention=128\.0"),
        ({**OLD, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0"),
        ({**OLD, "global_rope_theta": float("nan")}, "global_rope_theta=nan"),
        ({**OLD, "global_rope_theta": "1e4"}, "global_rope_theta='1e4'"),
        ({**OLD, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, r"rope_scaling\['rope_type'\]='yarn'"),
        ({**OLD, "rope_scaling": {"type": "linear", "factor": 4.0}}, r"rope_scaling\['type'\]='linear'"),
        ({**OLD, "rope_scaling": "yarn"}, "rope_scaling='yarn'"),
        ({**NEW, "layer_types": [GLOBAL, LOCAL]}, "2 entries, and the model num_hidden_layers=3"),
        ({**NEW, "layer_types": [GLOBAL, LOCAL, "chunked_attention"]}, "'chunked_attention'"),
        ({**NEW, "rope_parameters": {GLOBAL: {"rope_theta": 500.0}}}, "neither local_rope_theta nor"),
        ({**NEW, "rope_parameters": {"rope_theta": 500.0}}, "a mapping of 'full_attention' and"),
        (parameters(rope_type="dynamic"), "'dynamic'"),
        (parameters(factor=2.0), "factor is unknown"),
        (parameters(partial_rotary_factor=0.5), "partial_rotary_factor is unknown"),
        ({**OLD, **NEW, "local_rope_theta": 10000.0}, "local_rope_theta=10000.0 says otherwise"),
        ({**OLD, **NEW, "global_attn_every_n_layers": 3}, "global_attn_every_n_layers=3 says otherwise"),
    ],
)
def test_unknown_or_missing_fields(fields, named, tmp_path):
    with pytest.raises(UnsupportedModelError, match=named):
        positions(fields)
    given = {name: value for name, value in fields.items() if value is not None}
    with pytest.raises(UnsupportedArtifactError, match=named):
        resolved_config({"model_type": "modernbert", "num_hidden_layers": 3, **given}, (3,), tmp_path / "config.json")


ONE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}


@pytest.mark.parametrize("fields", [ONE, {"rope_theta": 500.0}, {**ONE, "rope_theta": 500.0}])
def test_layers_that_are_alike(fields):
    config = SimpleNamespace(num_hidden_layers=2, **fields)
    assert layer_positions(config, local_layers=False) == (LayerPositions(500.0, None),) * 2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, r"neither rope_theta nor rope_parameters\['rope_theta'\]"),
        ({**ONE, "rope_theta": 1000.0}, r"rope_parameters\['rope_theta'\]=500.0: rope_theta=1000.0 says otherwise"),
        ({"rope_theta": True}, "rope_theta=True"),
        ({"rope_theta": 500.0, "rope_scaling": {"type": "ntk", "factor": 8.0}}, r"rope_scaling\['type'\]='ntk'"),
        ({"rope_parameters": {**ONE["rope_parameters"], "factor": 8.0}}, "factor is unknown"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0}}, "'yarn'"),
        ({"rope_parameters": NEW["rope_parameters"]}, "full_attention, sliding_attention is unknown"),
        ({"rope_parameters": 500.0}, "a mapping is needed"),
        ({**ONE, "head_dim": 16}, "head_dim=16"),
    ],
)
def test_unknown_or_missing_fields_of_layers_that_are_alike(fields, named, tmp_path):
    shape = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4}
    with pytest.raises((UnsupportedArtifactError, ArtifactError), match=named):
        resolved_config({"model_type": "nomic_bert", **shape, **fields}, (3,), tmp_path / "config.json")


@pytest.mark.parametrize(("length", "window"), [(3, 5), (40, 7), (700, 65)])
def test_windowed_attention_equals_a_mask(length, window):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, length, 8, generator=generator) for _ in range(3))
    steps = torch.randint(1, 3, (2, length), generator=generator)  # some positions are masked tokens'
    places = steps.cumsum(1) - steps[:, :1]
    within = (places[:, :, None] - places[:, None, :]).abs() <= window
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=within[:, None], scale=0.3)
    found = windowed_attention(query, key, value, places, window, scale=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
