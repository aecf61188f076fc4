"""The engine's operations under AddressSanitizer and UndefinedBehaviorSanitizer: `make test-sanitize`."""

import subprocess

import pytest

import build_kernels
from itrex_sweet.runtime.native import library
from tests.native.programs import compile_program, needs_compiler, run

ISAS = ("portable", "avx512_vnni")

pytestmark = [needs_compiler, pytest.mark.slow]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """Directory of the libraries and of `op_table`."""
    directory = tmp_path_factory.mktemp("sanitized")
    probe = [*build_kernels.compiler(), *build_kernels.SANITIZED, "-x", "c++", "-", "-o", str(directory / "probe")]
    if subprocess.run(probe, input="int main() {}", capture_output=True, text=True).returncode != 0:
        pytest.skip("the compiler has no sanitizers")
    build_kernels.build(directory, (build_kernels.CPU, *ISAS), sanitize=True, required=True)
    compile_program("op_table.cpp", directory / "op_table", build_kernels.SANITIZED)
    return directory


@pytest.mark.parametrize("isa", ISAS)
def test_every_operation(isa, sanitized):
    if library.available()[isa] == library.NOT_SUPPORTED:
        pytest.skip(f"{isa} is {library.NOT_SUPPORTED}")
    finished = run(sanitized / "op_table", sanitized, "any", isa)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{isa}: " in finished.stdout and " cases right, checksum " in finished.stdout
