"""Arguments of `from_pretrained` as people write them for transformers: heeded, harmless or refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from itrex_sweet.arguments import sequence, whole_number
from itrex_sweet.errors import ArtifactError, ConfigError

_DTYPES = {
    "float32": ("float32", "fp32", "float", "f32", "torch.float32", "torch.float"),
    "bfloat16": ("bfloat16", "bf16", "torch.bfloat16"),
}
_DTYPE_BY_NAME = {name: dtype for dtype, names in _DTYPES.items() for name in names}
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


def checked_dtype_name(dtype: Any) -> str | None:
    """Reads a dtype given by one of its usual names or as a dtype of torch or NumPy.

    Returns:
        `"float32"`, `"bfloat16"`, or `None` for the default, also for `"auto"`.

    Raises:
        ConfigError: another one.
    """
    if dtype is None or (isinstance(dtype, str) and dtype == "auto"):
        return None
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
    if (known := _DTYPE_BY_NAME.get(name.lower())) is None:
        hint = " 8-bit weights come of itrex-sweet quantize." if "int" in name or "float8" in name else ""
        raise ConfigError(f"dtype={dtype!r}: float artifacts are computed in float32 or bfloat16.{hint}")
    return known


def checked_warm_up(warm_up: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of rows and tokens.

    Raises:
        ConfigError: anything else.
    """
    shapes = []
    given = () if warm_up is None else sequence(warm_up)
    for shape in (warm_up,) if given is None else given:
        parts = sequence(shape)
        if parts is None or len(parts) != 2:
            raise ConfigError(f"warm_up={warm_up!r}: a sequence of pairs (rows, tokens), such as [(32, 64)].")
        rows, tokens = (whole_number("warm_up", part, least=1) for part in parts)
        shapes.append((rows, tokens))
    return tuple(shapes)


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


def refuse_adapter(directory: Path) -> None:
    """Raises ArtifactError for a folder that holds a PEFT adapter without its model."""
    if (directory / "adapter_config.json").is_file() and not (directory / "config.json").is_file():
        raise ArtifactError(
            f"{directory} holds a PEFT adapter alone, without the model that it adapts. Write the whole model, adapter "
            "merged, at the end of training: save_artifact(trainer.model, DIR, tokenizer=...)."
        )


def refuse_other_devices(name: str, value: Any) -> None:
    """Accepts every way to say CPU, and `"auto"`.

    Raises:
        ConfigError: another device.
    """
    for place in value.values() if isinstance(value, dict) else (value,):
        text = "cpu" if place is None else str(place)  # -1 is the CPU of transformers' pipelines
        if text.partition(":")[0] != "cpu" and text not in ("auto", "-1"):
            raise ConfigError(f"{name}={str(value)!r}: early exits run on the CPU here.")
