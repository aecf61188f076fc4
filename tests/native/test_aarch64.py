"""The portable kernels compiled for aarch64, run in emulation with qemu-user.

Needs `aarch64-linux-gnu-g++` and `qemu-aarch64` (Debian: g++-aarch64-linux-gnu, qemu-user).
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import build_kernels
from tests.native.programs import BUILT, compile_program, needs_compiler, needs_kernels, run

CROSS_COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
MISSING = [tool for tool in (CROSS_COMPILER, EMULATOR) if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Returns what `op_table` prints on an emulated aarch64 processor."""
    folder = tmp_path_factory.mktemp("aarch64")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CXX", CROSS_COMPILER)
        environment.setenv("CXXFLAGS", "-Werror")
        built = build_kernels.build(folder, required=True)
        assert [result.name for result in built] == ["cpu", "tokenizer", "portable"]
        program = compile_program("op_table.cpp", folder / "op_table")
    compiler = subprocess.run([CROSS_COMPILER, "-print-file-name=libc.so.6"], capture_output=True, text=True)
    system = Path(compiler.stdout.strip()).resolve().parents[1]  # qemu finds the dynamic loader below it
    return run(EMULATOR, "-L", system, program, folder, "portable", timeout=300)


def test_operations(output):
    assert output.returncode == 0, output.stdout + output.stderr
    assert re.search(r"^portable: (\d+) of \1 int8 products exact", output.stdout, re.MULTILINE)
    assert re.search(r"^portable: (\d+) of \1 floating-point checks passed", output.stdout, re.MULTILINE)
    unsupported = re.findall(r"^(\w+): not supported$", output.stdout, re.MULTILINE)
    assert unsupported == [isa for isa in reversed(build_kernels.ISAS) if isa != "portable"]


@needs_compiler
@needs_kernels
def test_checksum_equals_that_of_this_machine(output, tmp_path):
    here = run(compile_program("op_table.cpp", tmp_path / "op_table"), BUILT, "any", "portable")
    checksums = [re.search(r"^checksum (\w{16})$", text.stdout, re.MULTILINE).group(1) for text in (output, here)]
    assert checksums[0] == checksums[1]
