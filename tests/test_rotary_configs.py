"""Rotary positions and windows of a config: both spellings are read, and nothing is guessed."""

from types import SimpleNamespace

import pytest
import torch
from transformers import ModernBertConfig

from itrex_sweet.artifact.model_config import resolved_config
from itrex_sweet.errors import UnsupportedArtifactError, UnsupportedModelError
from itrex_sweet.families import family_of
from itrex_sweet.families.rotary import GLOBAL, LOCAL, LayerPositions, layer_positions
from itrex_sweet.runtime.rotary_attention import windowed_attention

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
    return layer_positions(SimpleNamespace(**{"num_hidden_layers": 3, **fields}))


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
    assert layer_positions(resolved_config(fields, (1, 3), tmp_path / "config.json")) == EXPECTED
    config = ModernBertConfig(num_hidden_layers=3, **OLD)
    assert layer_positions(config) == EXPECTED
    assert family_of(config).model_type == "modernbert"


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
