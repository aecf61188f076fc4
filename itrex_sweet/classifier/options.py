"""Checks the settings that a model is loaded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from itrex_sweet.arguments import sequence, whole_number
from itrex_sweet.errors import ArtifactError, ConfigError

_DTYPES = {
    "float32": ("float32", "fp32", "float", "f32", "torch.float32", "torch.float"),
    "bfloat16": ("bfloat16", "bf16", "torch.bfloat16"),
}
_DTYPE_BY_NAME = {name: dtype for dtype, names in _DTYPES.items() for name in names}


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
    """Returns pairs of rows and tokens.

    Raises:
        ConfigError: anything else.
    """
    shapes = []
    given = () if warm_up is None else sequence(warm_up)
    for shape in (warm_up,) if given is None else given:
        parts = sequence(shape)
        if parts is None or len(parts) != 2:
            raise ConfigError(f"warm_up={warm_up!r}: a sequence of pairs (rows, tokens), such as [(32, 64)].")
        rows, tokens = (whole_number("warm_up", part, minimum=1) for part in parts)
        shapes.append((rows, tokens))
    return tuple(shapes)


def refuse_adapter(directory: Path) -> None:
    """Raises ArtifactError for a folder that holds a PEFT adapter without its model."""
    if (directory / "adapter_config.json").is_file() and not (directory / "config.json").is_file():
        raise ArtifactError(
            f"{directory} holds a PEFT adapter alone, without the model that it adapts. Write the whole model, adapter "
            "merged, at the end of training: save_artifact(trainer.model, DIR, tokenizer=...)."
        )
