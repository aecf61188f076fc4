"""Compilation of the engine."""

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import build_kernels
from tests.native.programs import needs_compiler


def test_missing_compiler_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    (tmp_path / "libsweet_avx2.so").touch()  # outdated
    os.utime(tmp_path / "libsweet_avx2.so", (0, 0))
    results = build_kernels.build(tmp_path)
    assert all("no C++ compiler" in result.missing for result in results) and not list(tmp_path.iterdir())
    assert "libsweet_avx2.so was not built: no C++ compiler was found (CXX='/nowhere/c++')" in capsys.readouterr().err
    with pytest.raises(build_kernels.BuildError, match=r"libsweet_cpu\.so was not built"):
        build_kernels.build(tmp_path, required=True)


@needs_compiler
def test_unsupported_compiler_flags_are_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(build_kernels.ISAS, "amx", ("-mnothing-of-the-kind",))
    detector, amx = build_kernels.build(tmp_path, ("cpu", "amx"))
    assert detector.missing is None and [path.name for path in tmp_path.iterdir()] == ["libsweet_cpu.so"]
    assert "does not support its flags" in amx.missing and "-mnothing-of-the-kind" in amx.missing


@needs_compiler
def test_outdated_library_is_rebuilt(tmp_path):
    build_kernels.build(tmp_path, ["cpu"])
    built = tmp_path / "libsweet_cpu.so"
    first = built.stat().st_mtime_ns
    build_kernels.build(tmp_path, ["cpu"])
    assert built.stat().st_mtime_ns == first
    os.utime(built, (0, 0))
    build_kernels.build(tmp_path, ["cpu"])
    assert built.stat().st_mtime_ns >= first


def test_invalid_mode_raises(monkeypatch):
    monkeypatch.setenv(build_kernels.MODE, "perhaps")
    with pytest.raises(build_kernels.BuildError, match="'required' or 'none'"):
        build_kernels.mode()


HEADERS = [
    path.relative_to(build_kernels.SOURCES).as_posix() for path in build_kernels.sources() if path.suffix == ".h"
]
ISA_OF_HEADER = {"tile_madd.h": "avx2", "tile_vnni.h": "avx512_vnni", "tile_amx.h": "amx"}


x86_64_only = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs x86-64")


def check_syntax(compiler: list[str], source: Path, isa: str) -> str:
    """Returns the compiler's errors and warnings for a source file; generates no code."""
    flags = [*build_kernels.COMMON, *build_kernels.ISAS[isa], f"-DSWEET_ISA_{isa.upper()}"]
    command = [*compiler, *flags, "-fsyntax-only", "-I", str(build_kernels.SOURCES), str(source)]
    return subprocess.run(command, capture_output=True, text=True).stderr


@needs_compiler
@x86_64_only
def test_headers_compile_on_their_own(tmp_path):
    def errors(header: str) -> str:
        source = tmp_path / f"{header.replace('/', '.')}.cpp"
        source.write_text(f'#include "{header}"\n')
        return check_syntax(build_kernels.compiler(), source, ISA_OF_HEADER.get(header, "portable"))

    with ThreadPoolExecutor(2) as pool:
        assert "".join(pool.map(errors, HEADERS)) == ""


@pytest.mark.slow
@x86_64_only
@pytest.mark.parametrize("isa", build_kernels.ISAS)
@pytest.mark.parametrize("compiler", [name for name in ("g++", "clang++") if shutil.which(name)])
def test_gcc_and_clang_give_no_warnings(compiler, isa):
    sources = ("engine.cpp", "tokenizer/tokenizer.cpp") if isa == "portable" else ("engine.cpp",)
    for source in sources:
        assert check_syntax([compiler], build_kernels.SOURCES / source, isa) == ""
