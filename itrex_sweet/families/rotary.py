"""Rotary positions and attention windows of a config, per layer. Nothing that a config leaves open is guessed.

For ModernBERT, whose layers differ, transformers 4 writes `global_rope_theta`, `local_rope_theta`,
`global_attn_every_n_layers` and `rope_scaling`; transformers 5 writes `rope_parameters` and `layer_types`. Both are
read; if a config has both, they must agree. `flat_fields` translates the second spelling for transformers 4. Where all
layers are alike, `rope_parameters` holds the fields of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, NoReturn

from itrex_sweet.errors import UnsupportedModelError

GLOBAL, LOCAL = "full_attention", "sliding_attention"

_THETAS = {GLOBAL: "global_rope_theta", LOCAL: "local_rope_theta"}
_MAX_THETA = 1e12
_SCALING_TYPE = ("rope_type", "type")  # the second is the older spelling


def inverse_frequencies(theta: float, head_size: int) -> list[float]:
    """Returns the frequency of each pair of elements of a head, `theta ** (-2 d / head size)`.

    Source: RoFormer (arXiv 2104.09864, equation 15).
    """
    return [theta ** (-2 * pair / head_size) for pair in range(head_size // 2)]


@dataclass(frozen=True)
class LayerPositions:
    """The positions of one layer.

    Args:
        theta: base of the rotary frequencies.
        window: the greatest distance that attention reaches; `None` for any.
    """

    theta: float
    window: int | None


def layer_positions(config: Any, local_layers: bool, family_theta: float | None = None) -> tuple[LayerPositions, ...]:
    """Returns the positions of each layer of a config with rotary positions, first to last.

    Args:
        config: an object of transformers, or one with the fields of `config.json` as attributes.
        local_layers: see `Family`.
        family_theta: `Family.theta`.

    Raises:
        UnsupportedModelError: a field is missing, invalid, unknown, or contradicts another one.
    """
    if not local_layers:
        return (LayerPositions(_only_theta(config, family_theta), None),) * config.num_hidden_layers
    types = _layer_types(config)
    thetas = {name: _theta(config, name) for name in sorted(set(types))}
    windows = {GLOBAL: None, LOCAL: _window(config) if LOCAL in types else None}
    return tuple(LayerPositions(thetas[name], windows[name]) for name in types)


def flat_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of transformers 4 that a config in the spelling of transformers 5 lacks.

    Transformers 4 ignores `rope_parameters` and `layer_types`, and would compute with its defaults instead.

    Args:
        fields: contents of `config.json`, with `num_hidden_layers`.

    Raises:
        UnsupportedModelError: transformers 4 cannot express the positions, or a field is invalid, as of
            `layer_positions`.
    """
    if fields.get("rope_parameters") is None and fields.get("layer_types") is None:
        return {}
    config = SimpleNamespace(**fields)
    types = _layer_types(config)
    found: dict[str, Any] = {_THETAS[name]: _theta(config, name) for name in sorted({GLOBAL, *types})}
    places = [place for place, name in enumerate(types) if name == GLOBAL]
    every = places[1] if len(places) > 1 else len(types)
    if types != tuple(LOCAL if index % every else GLOBAL for index in range(len(types))):
        _refuse(
            "layer_types", list(types), "transformers 4 computes every n-th layer globally only; use transformers 5"
        )
    found["global_attn_every_n_layers"] = every
    return {name: value for name, value in found.items() if fields.get(name) is None}


def _layer_types(config: Any) -> tuple[str, ...]:
    """Returns `GLOBAL` or `LOCAL` for each layer."""
    depth = config.num_hidden_layers
    given, every = _field(config, "layer_types"), _field(config, "global_attn_every_n_layers")
    if every is not None and (not isinstance(every, Integral) or isinstance(every, bool) or every < 1):
        _refuse("global_attn_every_n_layers", every, "a whole number from 1 is needed")
    pattern = None if every is None else tuple(LOCAL if index % every else GLOBAL for index in range(depth))
    if given is None:
        if pattern is None:
            raise UnsupportedModelError(
                "The config has neither layer_types nor global_attn_every_n_layers, so which layers have a window is "
                "unknown. Add the one that the model was trained with."
            )
        return pattern
    if not isinstance(given, (list, tuple)) or not set(map(str, given)) <= {GLOBAL, LOCAL}:
        _refuse("layer_types", given, f"a list of {GLOBAL!r} and {LOCAL!r} is needed")
    if len(given) != depth:
        _refuse("layer_types", given, f"it has {len(given)} entries, and the model num_hidden_layers={depth} layers")
    if pattern is not None and tuple(given) != pattern:
        _refuse("layer_types", given, f"global_attn_every_n_layers={every} says otherwise; remove the wrong one")
    return tuple(given)


def _window(config: Any) -> int:
    """Returns the greatest distance in a local layer: half of `local_attention`, rounded down, as in transformers."""
    width = _field(config, "local_attention")
    if width is None:
        raise UnsupportedModelError("The config has local layers and no local_attention, so their window is unknown.")
    if not isinstance(width, Integral) or isinstance(width, bool) or width < 2:
        _refuse("local_attention", width, "a whole number from 2 is needed")
    return int(width) // 2


def _only_theta(config: Any, family_theta: float | None) -> float:
    """Returns the theta of a config whose layers are alike; a config may repeat that of its family."""
    given, scaling = _field(config, "rope_parameters"), _field(config, "rope_scaling")
    if scaling != given:  # one is the other's alias
        _check_scaling("rope_scaling", scaling)
    _check_scaling("rope_parameters", given)
    flat, nested = _field(config, "rope_theta"), (given or {}).get("rope_theta")
    given_by_family = {} if family_theta is None else {"its family's theta": family_theta}
    return _agreed({**given_by_family, "rope_theta": flat, "rope_parameters['rope_theta']": nested})


def _theta(config: Any, layer_type: str) -> float:
    if (scaling := _field(config, "rope_scaling")) != _field(config, "rope_parameters"):  # one is the other's alias
        _check_scaling("rope_scaling", scaling)
    name = _THETAS[layer_type]
    flat = _field(config, name)
    if flat is None and layer_type == LOCAL:
        flat = _field(config, _THETAS[GLOBAL])  # as in transformers 4
    nested = _parameters(config, layer_type).get("rope_theta")
    return _agreed({name: flat, f"rope_parameters[{layer_type!r}]['rope_theta']": nested})


def _agreed(thetas: Mapping[str, Any]) -> float:
    """Returns the value of fields that each give theta or are absent.

    Args:
        thetas: field → its value, or `None`.
    """
    given = {field: value for field, value in thetas.items() if value is not None}
    for field, value in given.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not 1 < value <= _MAX_THETA:
            _refuse(field, value, f"a number above 1, up to {_MAX_THETA:g}, is needed")
    if not given:
        raise UnsupportedModelError(
            f"The config has neither {' nor '.join(thetas)}, so the frequencies of its rotary positions are unknown. "
            "Add the value that the model was trained with."
        )
    (first, theta), *others = given.items()
    for field, value in others:
        if value != theta:
            _refuse(field, value, f"{first}={theta} says otherwise")
    return float(theta)


def _parameters(config: Any, layer_type: str) -> Mapping[str, Any]:
    given = _field(config, "rope_parameters")
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not set(given) <= {GLOBAL, LOCAL}:
        _refuse("rope_parameters", given, f"a mapping of {GLOBAL!r} and {LOCAL!r} is needed")
    by_type = given.get(layer_type)
    _check_scaling(f"rope_parameters[{layer_type!r}]", by_type)
    return by_type or {}


def _check_scaling(field: str, given: Any) -> None:
    """Refuses any scaling of the frequencies."""
    if given is None:
        return
    if not isinstance(given, Mapping):
        _refuse(field, given, "a mapping is needed")
    for name in _SCALING_TYPE:
        if given.get(name, "default") != "default":
            _refuse(f"{field}[{name!r}]", given[name], "only 'default', frequencies without scaling, is supported")
    unknown = set(map(str, given)) - {*_SCALING_TYPE, "rope_theta"}
    if unknown:
        _refuse(field, given, f"{', '.join(sorted(unknown))} is unknown")


def _field(config: Any, name: str) -> Any:
    return getattr(config, name, None)


def _refuse(field: str, value: Any, reason: str) -> NoReturn:
    raise UnsupportedModelError(f"{field}={value!r}: {reason}.")
