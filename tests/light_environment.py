"""Makes an environment with this package, NumPy, tokenizers and safetensors only, of links to installed packages."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import itrex_sweet

PACKAGES = ("numpy", "tokenizers", "safetensors")


def make_environment(folder: Path) -> Path:
    """Links the packages, their libraries and metadata, and this package, into a folder, used as site-packages."""
    folder.mkdir()
    for package in PACKAGES:
        site = Path(importlib.util.find_spec(package).origin).parent.parent
        for path in (site / package, site / f"{package}.libs", Path(metadata.distribution(package)._path)):
            if path.exists():
                (folder / path.name).symlink_to(path)
    own = Path(itrex_sweet.__file__).resolve().parent  # of the checkout, or installed
    (folder / own.name).symlink_to(own)
    return folder


def run_in(environment: Path, *arguments: str, stdin: str = "", **options) -> subprocess.CompletedProcess:
    """Runs the interpreter with the packages of an environment and no others.

    Args:
        arguments: of `python`.
        options: of `subprocess.run`.
    """
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(environment), "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"},
        timeout=300,
        **options,
    )
