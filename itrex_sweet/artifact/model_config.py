"""Reads an artifact's `config.json` without transformers, with the family's defaults for absent fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from itrex_sweet.artifact.validation.config import READ_FIELDS, check_config, check_resolved
from itrex_sweet.artifact.validation.values import ADVICE
from itrex_sweet.config import resolve_exits
from itrex_sweet.errors import ArtifactError, ConfigError, UnsupportedArtifactError, UnsupportedModelError
from itrex_sweet.families import FAMILIES, Family, family_of

_DEFAULT_NUM_LABELS = 2  # of transformers


class ModelConfig(SimpleNamespace):
    """Fields of a config as attributes, under the names of `transformers.PretrainedConfig`.

    It has only the fields that determine the outputs of a model. Where a family stores a field under a name of
    its own, such as `dim`, it is here under the generic one, `hidden_size`.
    """


def resolved_config(fields: Mapping[str, Any], exits: Sequence[int] | None, file: Path) -> ModelConfig:
    """Checks the fields and adds defaults.

    Args:
        fields: contents of `config.json`.
        exits: counts of layers, the last the model's depth; `None` for a model without exits.
        file: path of `config.json`, named in errors.

    Raises:
        ArtifactError: a field is missing, of the wrong type, out of range, or contradicts another one.
        UnsupportedArtifactError: a family, head or variant without exits.
    """
    check_config(fields, file)
    family = FAMILIES[fields["model_type"]]
    config = ModelConfig(**_with_defaults(fields, family))
    names = label_names_of(fields)
    config.num_labels, config.id2label = len(names), dict(enumerate(names))
    check_model(config, exits, file)
    return config


def check_model(config: Any, exits: Sequence[int] | None, file: Path) -> None:
    """Checks a config that has all defaults, of this module or of transformers.

    Raises:
        ArtifactError, UnsupportedArtifactError: as of `resolved_config`.
    """
    check_resolved(config, file)
    try:
        family_of(config)
        if exits is not None:
            resolve_exits(exits, config.num_hidden_layers)
    except UnsupportedModelError as error:
        raise UnsupportedArtifactError(f"{file}: {error}") from error
    except ConfigError as error:
        raise ArtifactError(f"{file}: num_hidden_layers={config.num_hidden_layers}: {error} {ADVICE}") from error


def label_names_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the label names by id; `LABEL_0`, `LABEL_1`, ... if the fields have none.

    Args:
        fields: contents of `config.json`, checked by `check_config`.
    """
    by_id = fields.get("id2label")
    if by_id is None:
        count = fields.get("num_labels", _DEFAULT_NUM_LABELS)
        return tuple(f"LABEL_{label}" for label in range(count))
    return tuple(str(by_id[key]) for key in sorted(by_id, key=int))


def _with_defaults(fields: Mapping[str, Any], family: Family) -> dict[str, Any]:
    resolved = family.with_defaults({name: value for name, value in fields.items() if name in READ_FIELDS})
    terms = resolved.get("pos_att_type")
    if isinstance(terms, str):
        resolved["pos_att_type"] = [term.strip() for term in terms.lower().split("|")]
    return resolved
