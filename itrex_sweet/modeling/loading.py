"""Checks arguments of `from_pretrained` that are common with transformers and optimum."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from itrex_sweet.classifier.options import checked_dtype_name
from itrex_sweet.errors import ConfigError

_OF_THE_ARTIFACT = ("config", "num_labels", "id2label", "label2id", "problem_type", "state_dict", "adapter_kwargs")
_QUANTIZERS = ("quantization_config", "load_in_8bit", "load_in_4bit", "export", "gguf_file")

# argument of transformers or optimum → accepted values, which change nothing here, and why others are refused
_ACCEPTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "trust_remote_code": ((None, False), "no code in a model's folder is ever run; leave it out."),
    "use_safetensors": ((None, True), "weights are safetensors files, and nothing else is read."),
    "attn_implementation": ((None, "eager", "sdpa"), "each backend has its own attention; leave it out."),
    "low_cpu_mem_usage": ((None, False, True), "a boolean, without effect."),
    "ignore_mismatched_sizes": ((None, False), "weights have to fit."),
    **dict.fromkeys(_OF_THE_ARTIFACT, ((None,), "it is part of the artifact; write another one to change it.")),
    **dict.fromkeys(_QUANTIZERS, ((None, False), "itrex-sweet quantize (SweetQuantizer) makes an 8-bit artifact.")),
}


def dtype_of(dtype: Any, arguments: dict[str, Any]) -> str | None:
    """Returns `dtype`, or `torch_dtype`, which it removes from the other arguments.

    Raises:
        ConfigError: an unknown dtype, or two different ones.
    """
    old = checked_dtype_name(arguments.pop("torch_dtype", None))
    new = checked_dtype_name(dtype)
    if None not in (old, new) and old != new:
        raise ConfigError(f"dtype={new!r} and torch_dtype={old!r} contradict; name one of them.")
    return new or old


def check_further_arguments(arguments: dict[str, Any], known: Iterable[str]) -> None:
    """Checks that further arguments have values that change nothing here.

    Args:
        arguments: further arguments by name.
        known: known names, for a hint.

    Raises:
        ConfigError: an argument is not supported.
        TypeError: an unknown argument.
    """
    for name, value in arguments.items():
        if name in ("device_map", "device"):
            refuse_other_devices(name, value)
        elif name in _ACCEPTED:
            accepted, reason = _ACCEPTED[name]
            if not any(value is each or (isinstance(each, str) and value == each) for each in accepted):
                shown = repr(value) if isinstance(value, (str, bool)) else type(value).__name__
                raise ConfigError(f"{name}={shown}: {reason}")
        else:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"from_pretrained() got an unexpected keyword argument {name!r}{hint}")


def refuse_other_devices(name: str, value: Any) -> None:
    """Checks that a device is the CPU or `"auto"`.

    Raises:
        ConfigError: another device.
    """
    for place in value.values() if isinstance(value, dict) else (value,):
        text = "cpu" if place is None else str(place)  # -1 is the CPU of transformers' pipelines
        if text.partition(":")[0] != "cpu" and text not in ("auto", "-1"):
            raise ConfigError(f"{name}={str(value)!r}: early exits run on the CPU here.")
