"""Caches converted models in `benchmarks/runs/peers`, by engine, weights and calibration rows."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from record import RUNS

from itrex_sweet.runtime.ragged import TokenBatch

DIGITS = 16  # of the digest, in hexadecimal


def converted(engine: str, model: Path, calibration: TokenBatch | None, make: Callable[[Path], None]) -> Path:
    """Returns the folder of a converted model, after converting it if it is not cached.

    Args:
        engine: name with version and settings.
        model: folder of the float32 model.
        calibration: rows that the conversion depends on, or `None`.
        make: writes the converted model into a folder.
    """
    digest = hashlib.sha256(engine.encode())
    for path in sorted(model.glob("*.safetensors")):
        digest.update(path.read_bytes())
    if calibration is not None:
        digest.update(calibration.input_ids.tobytes() + calibration.cu_seqlens.tobytes())
    name = "".join(letter if letter.isalnum() else "-" for letter in engine.lower())
    folder = RUNS / "peers" / f"{name}-{digest.hexdigest()[:DIGITS]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            make(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
