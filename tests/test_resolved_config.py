"""Tests that a config read without transformers has the same fields as the object of transformers."""

import dataclasses

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.artifact.model_config import resolved_config
from itrex_sweet.artifact.transformers_config import model_config
from itrex_sweet.artifact.validation.config import READ_FIELDS
from itrex_sweet.errors import UnsupportedArtifactError
from itrex_sweet.families import FAMILIES

ONE_THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}}
POSITIONS = {  # fields without a default
    **dict.fromkeys(("nomic_bert", "gte", "jina_embeddings_v3", "eurobert"), ONE_THETA),
    "modernbert": {
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 128,
    },
}
CASES = {
    **{
        f"{name}, defaults": {"model_type": name, **POSITIONS.get(name, {})}
        for name in FAMILIES
        if name in CONFIG_MAPPING
    },
    "labels by number": {"model_type": "bert", "num_labels": 3},
    "labels by name": {"model_type": "bert", "id2label": {"1": "b", "0": "a", "2": 7}},
    "own names": {"model_type": "distilbert", "dim": 64, "n_heads": 4, "n_layers": 3, "hidden_dim": 96},
    "generic names": {"model_type": "distilbert", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3},
    "both names": {"model_type": "distilbert", "dim": 32, "hidden_size": 64, "n_heads": 4, "num_hidden_layers": 2},
    "terms in one string": {"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": "C2P| p2c"},
    "other fields": {
        "model_type": "electra",
        "embedding_size": 32,
        "architectures": ["X"],
        "_name_or_path": "x",
        "y": 1,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_fields_equal_those_of_transformers(name, tmp_path):
    fields, file = CASES[name], tmp_path / "config.json"
    depth = next((fields[key] for key in ("num_hidden_layers", "n_layers") if key in fields), None)
    depth = depth or FAMILIES[fields["model_type"]].defaults["num_hidden_layers"]
    ours, theirs = resolved_config(fields, (1, depth), file), model_config(fields, (1, depth), file)
    assert ours.id2label == {label: str(text) for label, text in theirs.id2label.items()}
    assert ours.num_labels == theirs.num_labels
    family = FAMILIES[fields["model_type"]]
    needed = {"model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}
    for field in needed | family.defaults.keys() | (READ_FIELDS & fields.keys() - family.own_names.keys()):
        if field not in POSITIONS.get(fields["model_type"], ()):
            assert getattr(ours, field) == getattr(theirs, field), field
    if family.attention == "rotary":
        assert Architecture(ours, family).layer_positions == Architecture(theirs, family).layer_positions


def test_a_family_that_the_installed_transformers_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "future", dataclasses.replace(FAMILIES["bert"], model_type="future"))
    fields, file = {"model_type": "future", "num_hidden_layers": 3}, tmp_path / "config.json"
    assert resolved_config(fields, (1, 3), file).hidden_size == 768
    with pytest.raises(UnsupportedArtifactError, match=r"has no 'future'. Install a later one, or .*itrex_sweet\.load"):
        model_config(fields, (1, 3), file)
