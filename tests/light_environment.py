"""An environment that holds NumPy, tokenizers and safetensors alone, made of links to the installed packages."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "tokenizers", "safetensors")
ROOT = Path(__file__).resolve().parent.parent


def make_environment(folder: Path) -> Path:
    """Links the packages, their libraries and metadata into a folder, which then stands for site-packages."""
    folder.mkdir()
    for package in PACKAGES:
        site = Path(importlib.util.find_spec(package).origin).parent.parent
        for path in (site / package, site / f"{package}.libs", Path(metadata.distribution(package)._path)):
            if path.exists():
                (folder / path.name).symlink_to(path)
    return folder


def run_in(environment: Path, *arguments: str, stdin: str = "", **options) -> subprocess.CompletedProcess:
    """Runs the interpreter with the packages of an environment and this one, and no others.

    Args:
        arguments: of `python`.
        options: of `subprocess.run`.
    """
    paths = os.pathsep.join((str(environment), str(ROOT)))
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"},
        timeout=300,
        **options,
    )
