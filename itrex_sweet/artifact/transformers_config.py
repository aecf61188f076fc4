"""Creates the config object of transformers from the validated fields of an artifact's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact.config_spelling import missing_fields
from itrex_sweet.artifact.model_config import check_model
from itrex_sweet.artifact.validation.config import check_config
from itrex_sweet.artifact.validation.values import ADVICE
from itrex_sweet.errors import ArtifactError, UnsupportedArtifactError, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Fields that choose code or a way of computing, which is not the artifact's business. Some name code on the hub.
_LEFT_OUT = (
    *("auto_map", "custom_pipelines", "attn_implementation", "experts_implementation", "quantization_config"),
    *("dtype", "torch_dtype", "name_or_path", "label2id"),
)


def model_config(fields: Mapping[str, Any], exits: Sequence[int], file: Path) -> PretrainedConfig:
    """Creates the config object, and checks it with transformers' defaults for absent fields.

    Args:
        fields: contents of `config.json`.
        exits: counts of layers, the last the model's depth.
        file: path of `config.json`, named in errors.

    Raises:
        ArtifactError: a field is missing, of the wrong type, out of range, or contradicts another one.
        UnsupportedArtifactError: a family, head or variant without exits.
    """
    from transformers import AutoConfig, __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    check_config(fields, file)
    model_type = fields["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedArtifactError(
            f"{file}: transformers {__version__} has no {model_type!r}. Install a later one, or run the model with "
            "`itrex_sweet.load`, which needs none."
        )
    config_class = CONFIG_MAPPING[model_type]
    given = {
        name: value
        for name, value in fields.items()
        if not name.startswith("_") and name not in _LEFT_OUT and not callable(getattr(config_class, name, None))
    }
    del given["model_type"]
    try:
        given |= missing_fields(fields)
    except UnsupportedModelError as error:
        raise UnsupportedArtifactError(f"{file}: {error}") from error
    try:
        config = AutoConfig.for_model(model_type, **given)
    except Exception as error:  # of whatever type transformers' own checks raise
        raise ArtifactError(f"{file}: transformers does not accept it: {error} {ADVICE}") from error
    if config.id2label:
        config.label2id = {name: label for label, name in config.id2label.items()}
    check_model(config, exits, file)
    return config
