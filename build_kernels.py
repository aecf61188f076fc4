"""Compiles the native engine: one shared object per instruction set, and one that tells which of them may run.

They are plain libraries with a flat C interface: no Python headers, so one build serves every Python and torch.
`setup.py` builds them on installation; `python build_kernels.py` builds them into the source tree, or elsewhere.
Uses the standard library only, since it runs in isolated builds.

Environment:
    CXX: the compiler, with arguments if need be; else `c++`, `g++` or `clang++`, whichever is found first.
    ITREX_SWEET_KERNELS: `required` makes a kernel that cannot be built an error; `none` builds none. Otherwise what
        can be built is, and what cannot is named with the reason.
"""

from __future__ import annotations

import argparse
import os
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
# sanitizer → flags that stand behind `-O3` and replace it
SANITIZERS = {
    "address": ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=thread"),
}
LINK = ("-shared", "-pthread", "-Wl,-Bsymbolic")

_AVX2 = ("-mavx2", "-mfma")
_AVX512_VNNI = (
    *_AVX2,
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mprefer-vector-width=512"),
)
_AVX512_BF16 = (*_AVX512_VNNI, "-mavx512bf16")
# instruction set → flags
ISAS = {
    "portable": (),
    "avx2": _AVX2,
    "avx512_vnni": _AVX512_VNNI,
    "avx512_bf16": _AVX512_BF16,
    "amx": (*_AVX512_BF16, "-mamx-tile", "-mamx-int8"),
}
CPU = "cpu"  # the library that detects; stands among the kernels' names

MODE = "ITREX_SWEET_KERNELS"


class BuildError(Exception):
    """A library that was required could not be built."""


@dataclass(frozen=True)
class Result:
    """What became of one library: `missing` says why it is not there, or is `None`."""

    name: str
    missing: str | None = None
    log: str = ""


def library(name: str) -> str:
    """File name of the library of an instruction set, or of `CPU`."""
    return f"libsweet_{name}.so"


def mode() -> str:
    """`required`, `none` or the empty string, from the environment.

    Raises:
        BuildError: it says something else.
    """
    value = os.environ.get(MODE, "")
    if value not in ("", "required", "none"):
        raise BuildError(f"{MODE}={value!r}: it may be 'required' or 'none', or not set.")
    return value


def sources() -> list[Path]:
    """Every file that the libraries are made from."""
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".h", ".cpp"))


def build(
    output: Path = LIBRARIES,
    names: Iterable[str] = (CPU, *ISAS),
    *,
    sanitizer: str | None = None,
    required: bool = False,
    force: bool = False,
) -> list[Result]:
    """Compiles what is missing or older than its sources.

    A library that cannot be built is removed where an older one lies: it would not fit what calls it.

    Args:
        output: directory, made if need be.
        names: instruction sets, and `CPU`.
        sanitizer: one of `SANITIZERS`: `"address"`, with undefined behaviour, or `"thread"`.
        required: whether all must succeed.
        force: compile also what is up to date.

    Raises:
        BuildError: one was required and could not be built.
    """
    output.mkdir(parents=True, exist_ok=True)
    command = compiler()
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
    """The C++ compiler's command; `None` if there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        return named if shutil.which(named[0]) else None
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def compile_command(command: list[str], flags: Iterable[str], source: Path, target: Path) -> list[str]:
    """What is run to make a shared object of one source."""
    return [*command, *COMMON, *flags, *LINK, str(source), "-o", str(target)]


def _compile(command: list[str] | None, name: str, target: Path, more: tuple[str, ...]) -> Result:
    if command is None:
        return Result(name, f"no C++ compiler was found (CXX={os.environ.get('CXX', '')!r})")
    flags = (*ISAS.get(name, ()), *more)
    probe = _run([*command, *COMMON, *flags, "-Werror", "-fsyntax-only", "-x", "c++", os.devnull])
    if probe.returncode != 0:
        return Result(name, f"{command[0]} does not take its flags: {_first_error(probe.stderr)}")
    if name == CPU:
        source = SOURCES / "cpu.cpp"
    else:
        source, flags = SOURCES / "engine.cpp", (*flags, f"-DSWEET_ISA_{name.upper()}")
    # Under another name first: a process that has the old one loaded keeps it whole.
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        finished = _run(compile_command(command, flags, source, unfinished))
        if finished.returncode != 0:
            return Result(name, f"it did not compile: {_first_error(finished.stderr)}", finished.stderr)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return Result(name, None, finished.stderr)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a compiler, with messages in English."""
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it said nothing")


def main() -> int:
    """Builds by command line; 1 if something required is missing."""
    parser = argparse.ArgumentParser(description="Compiles the native engine.")
    parser.add_argument("--output", type=Path, default=LIBRARIES, help="directory (default: in the source tree)")
    parser.add_argument("--isas", nargs="+", choices=list(ISAS), default=list(ISAS), help="instruction sets")
    parser.add_argument(
        "--sanitize",
        nargs="?",
        const="address",
        choices=list(SANITIZERS),
        help="with a sanitizer: address and undefined-behaviour ones, or that of threads",
    )
    parser.add_argument("--force", action="store_true", help="compile also what is up to date")
    args = parser.parse_args()
    if args.sanitize and args.output == LIBRARIES:
        parser.error("--sanitize needs an --output of its own: Python cannot load what it makes")
    try:
        asked = mode()
        if asked == "none":
            return 0
        names = (CPU, *args.isas)
        required = asked == "required"
        results = build(args.output, names, sanitizer=args.sanitize, required=required, force=args.force)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print("built:", ", ".join(result.name for result in results if result.missing is None) or "nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
