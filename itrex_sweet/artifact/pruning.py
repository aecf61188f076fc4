"""Removes exits and their tensors from an artifact."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from itrex_sweet.artifact.layout import CASCADE
from itrex_sweet.artifact.reading import Artifact
from itrex_sweet.artifact.writing import write_artifact
from itrex_sweet.config import ALL, SweetConfig, resolve_exits
from itrex_sweet.errors import ConfigError
from itrex_sweet.families import EXIT_HEADS
from itrex_sweet.policy import Policy

_INT8_MARK = ".weight_scale"
# Criteria that use the outputs of earlier exits, also of those at which no row leaves.
_USES_EARLIER_EXITS = ("patience", "patience_and_confidence")


def keep_exits(
    artifact: Artifact,
    exits: Iterable[int],
    directory: str | os.PathLike,
    costs: Mapping[str, Any] | None = None,
) -> Artifact:
    """Writes an artifact with a subset of the exits of another one; their outputs are unchanged.

    The calibration record is kept if no row leaves at the removed exits under the policy: then every row is
    answered as before, and the guarantee still holds.

    Args:
        artifact: an early-exit artifact, in float32 or INT8.
        exits: exits to keep, as counts of encoder layers; the last is always kept.
        directory: folder of the new artifact; may be the artifact's own. The model card is not copied.
        costs: record of the measured times, for all exits; default: the artifact's own.

    Raises:
        ConfigError: the artifact is a cascade, does not have the exits, or would lose none.
        ArtifactError: the folder cannot be written; it is unchanged.
    """
    kept = _checked(artifact, exits)
    places = [place for place, exit_ in enumerate(artifact.exits) if exit_ in kept]
    dropped = [exit_ for exit_ in artifact.exits if exit_ not in kept]
    marks = tuple(f"{EXIT_HEADS}.{exit_}." for exit_ in dropped)
    tensors = artifact.tensors()
    integer_layers = sum(name.startswith(marks) and name.endswith(_INT8_MARK) for name in tensors)
    config = artifact.model_config()
    config.architectures = artifact.config.get("architectures")
    config.sweet = _settings(SweetConfig.from_dict(artifact.config["sweet"]), places).to_dict()
    records = {}
    if costs := costs or artifact.costs:
        records["costs"] = {**costs, "through": [costs["through"][place] for place in places]}
    if artifact.calibration and _no_row_leaves(artifact.policy, places):
        records["calibration"] = _calibration(artifact, places)
    gone = [*artifact.provenance.get("exits_removed", ()), *dropped]
    return write_artifact(
        directory,
        config=config,
        tensors={name: tensor for name, tensor in tensors.items() if not name.startswith(marks)},
        policy=_policy(artifact.policy, places),
        tokenizer_of=artifact,
        provenance={**artifact.provenance, "exits_removed": sorted(gone)},
        quantization=_quantization(artifact.quantization, places, marks, integer_layers),
        fingerprints=artifact.fingerprints(),
        **records,
    )


def _checked(artifact: Artifact, exits: Iterable[int]) -> tuple[int, ...]:
    if artifact.architecture == CASCADE:
        raise ConfigError(f"{artifact.directory} is a cascade of independent models: it has no exits to remove.")
    depth = artifact.exits[-1]
    kept = resolve_exits(sorted({*exits, depth}), depth)
    shown = ", ".join(map(str, artifact.exits))
    if unknown := [exit_ for exit_ in kept if exit_ not in artifact.exits]:
        raise ConfigError(f"exits {', '.join(map(str, unknown))} are not among those of {artifact.directory}: {shown}.")
    if kept == artifact.exits:
        raise ConfigError(f"keeping {shown} removes no exit of {artifact.directory}: it has no others.")
    return kept


def _settings(config: SweetConfig, places: Sequence[int]) -> SweetConfig:
    exits = tuple(config.exits[place] for place in places)
    scale = config.gradient_scale
    if isinstance(scale, tuple):  # one for each cut, that is, for each exit but the last
        scale = tuple(scale[place] for place in places[:-1])
    train = config.train if len(exits) > 1 else ALL  # of a model without early exits there is nothing else
    return dataclasses.replace(config, exits=exits, gradient_scale=scale, train=train)


def _policy(policy: Policy, places: Sequence[int]) -> Policy:
    """Returns the policy of the remaining exits; for a removed `max_exit_index`, the next exit takes its place."""
    max_exit_index = policy.max_exit_index
    if max_exit_index is not None:
        max_exit_index = next(new for new, old in enumerate(places) if old >= max_exit_index)
    return dataclasses.replace(
        policy,
        thresholds=tuple(policy.thresholds[place] for place in places[:-1]),
        temperatures=tuple(policy.temperatures[place] for place in places),
        max_exit_index=max_exit_index,
    )


def _no_row_leaves(policy: Policy, places: Sequence[int]) -> bool:
    """Returns whether no answer depends on the removed exits; `places` has the indices of the others."""
    if policy.criterion in _USES_EARLIER_EXITS or policy.max_exit_index is not None:
        return False
    return all(value >= 1.0 for place, value in enumerate(policy.thresholds) if place not in places)


def _calibration(artifact: Artifact, places: Sequence[int]) -> dict[str, Any]:
    """Returns the calibration record without candidates in which rows leave at a removed exit.

    Candidates are tested one after the other, so those that stay are certified as they were.
    """
    record = dict(artifact.calibration)
    early = [place for place in range(len(artifact.exits) - 1) if place not in places]

    def of_kept(values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in places if place < len(values)]

    def is_kept(candidate: Mapping[str, Any]) -> bool:
        return all(candidate["thresholds"][place] >= 1.0 for place in early)

    candidates = record.get("candidates") or []
    if record.get("certified") is not None:
        record["certified"] = sum(map(is_kept, candidates[: record["certified"]]))
    if len(candidates) != sum(map(is_kept, candidates)):
        record["rows_for_the_next"] = None  # that may have been one that goes
    record["candidates"] = [{**each, "thresholds": of_kept(each["thresholds"])} for each in candidates if is_kept(each)]
    if chosen := record.get("chosen"):
        record["chosen"] = {**chosen, "thresholds": of_kept(chosen["thresholds"])}
    kept = [artifact.exits[place] for place in places]
    record["exits"] = kept
    record["switched_off"] = [exit_ for exit_ in record.get("switched_off", ()) if exit_ in kept]
    if (static := record.get("static_alternative")) and static["exit"] not in kept:
        record["static_alternative"] = None
    record["temperatures"] = {name: of_kept(values) for name, values in (record.get("temperatures") or {}).items()}
    if traffic := record.get("traffic"):
        record["traffic"] = {**traffic, "exits": kept, "rows": [of_kept(label) for label in traffic["rows"]]}
    return record


def _quantization(
    facts: Mapping[str, Any], places: Sequence[int], marks: tuple[str, ...], integer_layers: int
) -> dict[str, Any] | None:
    """Returns the quantization record for the remaining exits."""
    if not facts:
        return None
    kept = dict(facts)
    for name in ("exits", "before", "after"):
        if name in kept:
            kept[name] = [kept[name][place] for place in places]
    for name in ("temperatures", "expected_calibration_error"):
        if name in kept:
            kept[name] = {when: [values[place] for place in places] for when, values in kept[name].items()}
    if "float_layers" in kept:
        kept["float_layers"] = [path for path in kept["float_layers"] if not path.startswith(marks)]
    if "integer_layers" in kept:
        kept["integer_layers"] -= integer_layers
    return kept
