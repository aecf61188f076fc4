"""Arguments of `from_pretrained` as people write them for transformers: heeded, harmless or refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from itrex_sweet.classifier.options import checked_dtype_name
from itrex_sweet.errors import ConfigError

_OF_THE_ARTIFACT = ("config", "num_labels", "id2label", "label2id", "problem_type", "state_dict", "adapter_kwargs")
_QUANTIZERS = ("quantization_config", "load_in_8bit", "load_in_4bit", "export", "gguf_file")

# argument of transformers or optimum → values that ask for what happens anyway, and why no other is taken
_HARMLESS: dict[str, tuple[tuple[Any, ...], str]] = {
    "trust_remote_code": ((None, False), "no code in a model's folder is ever run; leave it out."),
    "use_safetensors": ((None, True), "weights are safetensors files, and nothing else is read."),
    "attn_implementation": ((None, "eager", "sdpa"), "each backend has its own attention; leave it out."),
    "low_cpu_mem_usage": ((None, False, True), "a boolean, without effect."),
    "ignore_mismatched_sizes": ((None, False), "weights have to fit."),
    **dict.fromkeys(_OF_THE_ARTIFACT, ((None,), "it is part of the artifact; write another one to change it.")),
    **dict.fromkeys(_QUANTIZERS, ((None, False), "itrex-sweet quantize (SweetQuantizer) makes an 8-bit artifact.")),
}


def dtype_of(dtype: Any, arguments: dict[str, Any]) -> str | None:
    """`dtype`, or `torch_dtype` among the other arguments, from which it is taken.

    Raises:
        ConfigError: an unknown one, or two that differ.
    """
    old = checked_dtype_name(arguments.pop("torch_dtype", None))
    new = checked_dtype_name(dtype)
    if None not in (old, new) and old != new:
        raise ConfigError(f"dtype={new!r} and torch_dtype={old!r} contradict; name one of them.")
    return new or old


def heed(arguments: dict[str, Any], known: Iterable[str]) -> None:
    """Passes arguments of transformers that ask for what happens anyway.

    Args:
        arguments: by name, those that the caller does not know.
        known: names that the caller knows, for a hint.

    Raises:
        ConfigError: it asks for something that this package does not do.
        TypeError: no such argument.
    """
    for name, value in arguments.items():
        if name in ("device_map", "device"):
            refuse_other_devices(name, value)
        elif name in _HARMLESS:
            accepted, reason = _HARMLESS[name]
            if not any(value is each or (isinstance(each, str) and value == each) for each in accepted):
                shown = repr(value) if isinstance(value, (str, bool)) else type(value).__name__
                raise ConfigError(f"{name}={shown}: {reason}")
        else:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"from_pretrained() got an unexpected keyword argument {name!r}{hint}")


def refuse_other_devices(name: str, value: Any) -> None:
    """Accepts every way to say CPU, and `"auto"`.

    Raises:
        ConfigError: another device.
    """
    for place in value.values() if isinstance(value, dict) else (value,):
        text = "cpu" if place is None else str(place)  # -1 is the CPU of transformers' pipelines
        if text.partition(":")[0] != "cpu" and text not in ("auto", "-1"):
            raise ConfigError(f"{name}={str(value)!r}: early exits run on the CPU here.")
