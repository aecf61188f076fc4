"""Translates configs that transformers 5 wrote for transformers 4, which ignores their rotary positions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from itrex_sweet.families import FAMILIES
from itrex_sweet.families.rotary import flat_fields

_FIRST_WITH_PARAMETERS = 5  # major version of transformers that reads `rope_parameters`


def missing_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that the installed transformers needs besides those of a config.

    Args:
        fields: contents of `config.json`.

    Raises:
        UnsupportedModelError: the installed version cannot compute the positions of this config.
    """
    from transformers import __version__

    family = FAMILIES.get(fields.get("model_type", ""))
    if family is None or not family.local_layers or int(__version__.partition(".")[0]) >= _FIRST_WITH_PARAMETERS:
        return {}
    return flat_fields(fields)


def missing_fields_of(model_id: str | os.PathLike) -> dict[str, Any]:
    """Returns `missing_fields` of a folder or a repository on the hub, as arguments of `from_pretrained`.

    Raises:
        OSError: there is no config.
        UnsupportedModelError: as `missing_fields`.
    """
    from transformers import PretrainedConfig

    return missing_fields(PretrainedConfig.get_config_dict(model_id)[0])
