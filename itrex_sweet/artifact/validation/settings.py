"""Validates `sweet_config.json`: exits, policy, precision and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itrex_sweet.artifact.layout import CASCADE, is_inside
from itrex_sweet.artifact.model_config import label_names_of
from itrex_sweet.artifact.validation.records import check_records
from itrex_sweet.artifact.validation.values import ADVICE, Value
from itrex_sweet.config import resolve_exits
from itrex_sweet.errors import ArtifactError, ConfigError, UnsupportedArtifactError
from itrex_sweet.policy import CRITERIA, Policy
from itrex_sweet.tasks import REGRESSION, TASKS, task_of

MAX_EXITS = 4096


def check_settings(settings: Mapping[str, Any], config: Mapping[str, Any], file: Path) -> None:
    """Checks the contents of `sweet_config.json` for consistency, also with `config.json`.

    Args:
        settings: contents of the file, with validated format, version, architecture and precision.
        config: contents of `config.json`, checked.
        file: path of the settings, for error messages.

    Raises:
        ArtifactError: a field is missing, of the wrong type, out of range, or contradicts another one.
    """
    root = Value(settings, "", file)
    exits = check_exits(root["exits"], config)
    sweet = config.get("sweet") or {}
    learned_to_exit = bool(sweet.get("learn_to_exit")) and not settings.get("stages")
    check_task(config, exits, learned_to_exit, file)
    check_policy(root["policy"], len(exits), config)
    if (shares := root.get("shares_pooler")) is not None:
        shares.boolean()
        if shares.value and sweet.get("mode") == "decoupled":
            shares.refuse("config.json says mode='decoupled', whose exits have poolers of their own")
    trained = sweet.get("exits")
    if not settings.get("stages") and trained is not None and list(exits) != list(trained):
        root["exits"].refuse(f"config.json was trained with the exits {list(trained)}")
    check_records(root, exits)


def check_exits(exits: Value, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Checks that exits increase to the number of layers."""
    counts = tuple(part.integer(1, MAX_EXITS) for part in exits.items())
    depth = next((config[name] for name in ("num_hidden_layers", "n_layers") if config.get(name) is not None), None)
    if not counts:
        exits.refuse("at least one exit is needed")
    try:
        return resolve_exits(counts, counts[-1] if depth is None else depth)
    except ConfigError as error:
        raise ArtifactError(f"{exits.file}: {error} {ADVICE}") from error


def check_task(config: Mapping[str, Any], exits: Sequence[int], learned_to_exit: bool, file: Path) -> None:
    """Checks that the exits can answer the model's task.

    Raises:
        UnsupportedArtifactError: a regression model whose exits do not estimate their error, so that no row could leave
            early.
    """
    if task_of(config).name != REGRESSION:
        return
    if len(exits) < 2:
        raise UnsupportedArtifactError(f"{file}: regression with one exit: no value can leave early; train more exits.")
    if not learned_to_exit:
        raise UnsupportedArtifactError(
            f"{file}: the exits of a regression model estimate their error, and these do not (those of a cascade never "
            "do); train the exits with SweetCallback."
        )


def check_policy(policy: Value, exits: int, config: Mapping[str, Any]) -> None:
    """Checks a policy for a number of exits and the model of a checked `config.json`."""
    for part in policy["thresholds"].items(exits - 1):
        part.number(0.0, 1.0)
    for part in policy["temperatures"].items(exits):
        part.greater_than(0.0, 3e38)
    if (criterion := policy.get("criterion")) is not None:
        criterion.one_of(CRITERIA)
    if (patience := policy.get("patience")) is not None:
        patience.integer(1, 1 << 16)
    if (deepest := policy.non_null("deepest")) is not None:
        deepest.integer(0, exits - 1)
    if (task := policy.non_null("task")) is not None:
        task.one_of(TASKS)
    for name, check in (("label_thresholds", _label_thresholds), ("tolerance", lambda value: value.greater_than(0.0))):
        if (value := policy.non_null(name)) is not None:
            check(value)
    try:
        Policy.from_dict(policy.mapping()).for_task(task_of(config).name, len(label_names_of(config)))
    except (ConfigError, TypeError) as error:
        raise ArtifactError(f"{policy.file}: policy: {error} {ADVICE}") from error


def _label_thresholds(thresholds: Value) -> None:
    for part in thresholds.items():
        part.number(0.0, 1.0)


def stage_names(settings: Mapping[str, Any], file: Path) -> list[str]:
    """Returns the sub-folders of a cascade's stages, one per exit, shallow to deep; empty for other architectures.

    Raises:
        ArtifactError: names are missing, invalid or duplicate, or their number is not that of the exits.
    """
    root = Value(settings, "", file)
    if root["architecture"].value != CASCADE:
        if settings.get("stages"):
            root["stages"].refuse(f"only the architecture {CASCADE!r} has stages")
        return []
    names = [part.string() for part in root["stages"].items(len(root["exits"].items()))]
    for name in names:
        if "/" in name or not is_inside(name) or names.count(name) > 1:
            root["stages"].refuse("different plain names of sub-folders are needed")
    return names


def check_stages(
    config: Mapping[str, Any], exits: Sequence[int], stages: Sequence[tuple[Path, Mapping[str, Any]]]
) -> None:
    """Checks that the stages of a cascade have the same labels and vocabulary.

    Args:
        config: contents of the cascade's `config.json`.
        exits: depth of each stage.
        stages: path and contents of each stage's `config.json`, checked.

    Raises:
        ArtifactError: another depth, family, vocabulary, padding token or label.
    """
    for exit_, (file, stage) in zip(exits, stages, strict=True):
        root = Value(stage, "", file)
        depth = root.non_null("n_layers") or root["num_hidden_layers"]
        if depth.value != exit_:
            depth.refuse(f"the stage of exit {exit_} has so many layers")
        for name in ("model_type", "id2label", "num_labels", "vocab_size", "pad_token_id"):
            if stage.get(name) != config.get(name):
                Value(stage.get(name), name, file).refuse(
                    f"the cascade's config.json has {config.get(name)!r}; its stages need the same"
                )
