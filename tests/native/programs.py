"""Shared by the tests of the engine: the table of cases, the compilation of test programs, and the built libraries."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import build_kernels
from itrex_sweet.runtime.native import library

HERE = Path(__file__).resolve().parent
BUILT = Path(library.__file__).parent / "lib"

KERNELS = [isa for isa in library.ISAS if (BUILT / f"libsweet_{isa}.so").is_file()]

needs_kernels = pytest.mark.skipif(
    not KERNELS or not (BUILT / "libsweet_cpu.so").is_file(), reason="the native engine was not built"
)
needs_compiler = pytest.mark.skipif(build_kernels.compiler() is None, reason="no C++ compiler here")


def op_cases() -> list[tuple[int, int, int, str]]:
    """Returns (m, n, k, values) of the cases in `op_cases.h`."""
    text = (HERE / "op_cases.h").read_text(encoding="utf-8")
    text = re.search(r"kCases\[\] = \{(.*?)\n\};", text, re.DOTALL).group(1)
    found = re.findall(r"^ *\{(\d+), (\d+), (\d+), ([A-Z]+)\},$", text, re.MULTILINE)
    assert len(found) == text.count("{"), "a case that the pattern does not match"
    return [(int(m), int(n), int(k), values) for m, n, k, values in found]


def compile_program(source: str | Path, target: Path, flags: Iterable[str] = ()) -> Path:
    """Compiles a C++ program of this folder, or one with an absolute path."""
    command = [*build_kernels.compiler(), "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", *flags]
    command += [
        "-I",
        str(HERE),
        "-I",
        str(build_kernels.SOURCES),
        str(HERE / source),
        "-o",
        str(target),
        "-ldl",
        "-pthread",
    ]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return target


def run(*command: str | Path, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program with `PATH` and the given variables as its only environment."""
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", **environment}
    assert shutil.which(str(command[0])), command[0]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, env=variables)
