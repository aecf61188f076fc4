"""The engine under address, undefined-behaviour and thread sanitizers: `make test-sanitize`."""

import shutil
import subprocess

import pytest

import build_kernels
from itrex_sweet.runtime.native import library
from tests.native.programs import compile_program, needs_compiler, run

ISAS = ("portable", "avx512_vnni")

pytestmark = [needs_compiler, pytest.mark.slow]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """Makes the libraries and a test program with a sanitizer; returns their directory."""

    def make(sanitizer: str, program: str):
        directory = tmp_path_factory.mktemp(sanitizer)
        flags = build_kernels.SANITIZERS[sanitizer]
        probe = [*build_kernels.compiler(), *flags, "-x", "c++", "-", "-o", str(directory / "probe")]
        if subprocess.run(probe, input="int main() {}", capture_output=True, text=True).returncode != 0:
            pytest.skip(f"the compiler has no {sanitizer} sanitizer")
        build_kernels.build(directory, (build_kernels.CPU, *ISAS), sanitizer=sanitizer, required=True)
        compile_program(f"{program}.cpp", directory / program, flags)
        return directory

    return make


@pytest.fixture(scope="module")
def with_addresses(sanitized):
    return sanitized("address", "op_table")


@pytest.fixture(scope="module")
def with_threads(sanitized):
    return sanitized("thread", "concurrent_calls")


def refuse_unsupported(isa: str) -> None:
    if library.available()[isa] == library.NOT_SUPPORTED:
        pytest.skip(f"{isa} is {library.NOT_SUPPORTED}")


@pytest.mark.parametrize("isa", ISAS)
def test_every_operation(isa, with_addresses):
    refuse_unsupported(isa)
    finished = run(with_addresses / "op_table", with_addresses, "any", isa)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{isa}: " in finished.stdout and " cases right, checksum " in finished.stdout


@pytest.mark.parametrize("isa", ISAS)
def test_concurrent_calls(isa, with_threads):
    refuse_unsupported(isa)
    # Addresses in the order that the sanitizer expects: with more bits of randomness it may not find room for its own.
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []
    finished = run(*fixed, with_threads / "concurrent_calls", with_threads / f"libsweet_{isa}.so", "6", timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "calls answered as one alone" in finished.stdout
