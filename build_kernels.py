"""Compiles the native libraries: the engine, one per instruction set, one that detects which of them can run, and the
tokenizer.

The libraries have a plain C interface and use no Python headers, so one build serves every version of Python and torch.
`setup.py` builds them into the wheel; `python build_kernels.py` builds them into the source tree or another directory.
Imports the standard library only: it runs in isolated builds.

Environment:
    CXX: the compiler and its arguments; by default the first of `c++`, `g++` and `clang++` that is found. A cross
        compiler builds for its own target: `CXX=aarch64-linux-gnu-g++ python build_kernels.py --output DIR`.
    CXXFLAGS: more compiler flags, after the package's own, such as `-Werror`.
    ITREX_SWEET_KERNELS: `required` raises an error for a library that cannot be built; `none` builds nothing. By
        default a library that cannot be built is left out and reported.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "itrex_sweet" / "csrc"
LIBRARIES = ROOT / "itrex_sweet" / "runtime" / "native" / "lib"

COMMON = (
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast"),
    *("-Wall", "-Wextra", "-Wno-psabi", "-pthread"),
)
# Sanitizer -> flags. They follow `COMMON`, so their `-O1` replaces its `-O3`.
SANITIZERS = {
    "address": ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=thread"),
}
LINK = ("-shared", "-pthread", "-Wl,-Bsymbolic")

_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
_AVX512_VNNI = (*_AVX512, "-mavx512vnni")
_AVX512_BF16 = (*_AVX512_VNNI, "-mavx512bf16")
# Instruction set -> compiler flags. All but `portable` are for x86-64.
ISAS = {
    "portable": (),
    "avx2": _AVX2,
    "avx512": _AVX512,
    "avx_vnni": (*_AVX2, "-mavxvnni"),
    "avx512_vnni": _AVX512_VNNI,
    "avx512_bf16": _AVX512_BF16,
    "amx": (*_AVX512_BF16, "-mamx-tile", "-mamx-int8"),
}
CPU = "cpu"  # the library that detects what the processor supports
TOKENIZER = "tokenizer"  # the library that tokenizes texts
_SOURCES = {CPU: "cpu.cpp", TOKENIZER: "tokenizer/tokenizer.cpp"}

MODE = "ITREX_SWEET_KERNELS"


class BuildError(Exception):
    """A required library could not be built, or the environment holds an invalid setting."""


@dataclass(frozen=True)
class Result:
    """The outcome of building one library; `missing` is the reason why it was not built, or `None`."""

    name: str
    missing: str | None = None
    log: str = ""


def library(name: str) -> str:
    """Returns the file name of the library for an instruction set, for `CPU` or for `TOKENIZER`."""
    return f"libsweet_{name}.so"


def mode() -> str:
    """Returns the value of `ITREX_SWEET_KERNELS`: `required`, `none` or the empty string.

    Raises:
        BuildError: it has another value.
    """
    value = os.environ.get(MODE, "")
    if value not in ("", "required", "none"):
        raise BuildError(f"{MODE}={value!r}: set it to 'required' or 'none', or unset it.")
    return value


def sources() -> list[Path]:
    """Returns the paths of all source files."""
    return sorted(path for path in SOURCES.rglob("*") if path.suffix in (".h", ".cpp"))


def build(
    output: Path = LIBRARIES,
    names: Iterable[str] | None = None,
    *,
    sanitizer: str | None = None,
    required: bool = False,
    force: bool = False,
) -> list[Result]:
    """Compiles the libraries that are missing or older than their sources.

    Removes the existing file of a library that cannot be built: it would not match the Python code.

    Args:
        output: target directory; created if missing.
        names: instruction sets, `CPU` and `TOKENIZER`; by default these two and all instruction sets of the compiler's
            target.
        sanitizer: a key of `SANITIZERS`: `"address"` (which includes undefined behaviour) or `"thread"`.
        required: raise an error if a library cannot be built.
        force: also compile libraries that are up to date.

    Raises:
        BuildError: `required`, and a library could not be built.
    """
    output.mkdir(parents=True, exist_ok=True)
    command = compiler()
    names = (CPU, TOKENIZER, *isas_of(command)) if names is None else tuple(names)
    newest = max(path.stat().st_mtime for path in (*sources(), Path(__file__)))

    def one(name: str) -> Result:
        target = output / library(name)
        if not force and target.is_file() and target.stat().st_mtime > newest:
            return Result(name)
        result = _compile(command, name, target, SANITIZERS[sanitizer] if sanitizer else ())
        if result.missing is not None:
            target.unlink(missing_ok=True)
        return result

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as workers:
        results = list(workers.map(one, names))
    for result in results:
        if result.log:
            print(result.log, file=sys.stderr, flush=True)
    missing = [f"{library(result.name)} was not built: {result.missing}" for result in results if result.missing]
    if missing and required:
        raise BuildError("\n".join(missing))
    for line in missing:
        print(f"itrex-sweet: {line}", file=sys.stderr, flush=True)
    return results


def compiler() -> list[str] | None:
    """Returns the C++ compiler's command, or `None` if there is no compiler."""
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        return named if shutil.which(named[0]) else None
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def isas_of(command: list[str] | None) -> tuple[str, ...]:
    """Returns the instruction sets of the processors that a compiler compiles for."""
    if command is None:
        machine = platform.machine()
    else:
        machine = _run([*command, "-dumpmachine"]).stdout.partition("-")[0].strip()
    return tuple(ISAS) if machine.lower() in ("x86_64", "amd64") else ("portable",)


def compile_command(command: list[str], flags: Iterable[str], source: Path, target: Path) -> list[str]:
    """Returns the command that compiles one source file to a shared library."""
    return [*command, *COMMON, *flags, *_user_flags(), *LINK, str(source), "-o", str(target)]


def _user_flags() -> list[str]:
    return shlex.split(os.environ.get("CXXFLAGS", ""))


def _compile(command: list[str] | None, name: str, target: Path, more: tuple[str, ...]) -> Result:
    if command is None:
        return Result(name, f"no C++ compiler was found (CXX={os.environ.get('CXX', '')!r})")
    flags = (*ISAS.get(name, ()), *more)
    probe = _run([*command, *COMMON, *flags, "-Werror", "-fsyntax-only", "-x", "c++", os.devnull])
    if probe.returncode != 0:
        return Result(name, f"{command[0]} does not support its flags: {_first_error(probe.stderr)}")
    if name in _SOURCES:
        source = SOURCES / _SOURCES[name]
    else:
        source, flags = SOURCES / "engine.cpp", (*flags, f"-DSWEET_ISA_{name.upper()}")
    # Written under a temporary name and renamed: a process that has loaded the old file keeps it intact.
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        finished = _run(compile_command(command, flags, source, unfinished))
        if finished.returncode != 0:
            return Result(name, f"compilation failed: {_first_error(finished.stderr)}", finished.stderr)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return Result(name, None, finished.stderr)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a compiler with messages in English."""
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")


def main() -> int:
    """Runs the command line; returns 1 if a required library was not built."""
    parser = argparse.ArgumentParser(description="Compiles the native engine.")
    parser.add_argument("--output", type=Path, default=LIBRARIES, help="directory (default: in the source tree)")
    parser.add_argument("--isas", nargs="+", choices=list(ISAS), help="instruction sets (default: all of the target)")
    parser.add_argument(
        "--sanitize",
        nargs="?",
        const="address",
        choices=list(SANITIZERS),
        help="build with sanitizers: address and undefined behaviour (default), or thread",
    )
    parser.add_argument("--force", action="store_true", help="also compile libraries that are up to date")
    args = parser.parse_args()
    if args.sanitize and args.output == LIBRARIES:
        parser.error("--sanitize needs --output: Python cannot load libraries built with a sanitizer")
    try:
        requested = mode()
        if requested == "none":
            return 0
        names = (CPU, TOKENIZER, *args.isas) if args.isas else None
        required = requested == "required"
        results = build(args.output, names, sanitizer=args.sanitize, required=required, force=args.force)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print("built:", ", ".join(result.name for result in results if result.missing is None) or "nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
