"""The engine under the address, undefined-behaviour and thread sanitizers: `make test-sanitize`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import build_kernels
from itrex_sweet.runtime.native import library
from tests.native.programs import compile_program, needs_compiler, run

ISAS = ("portable", "avx512_vnni")
# With too many random bits in addresses, ThreadSanitizer cannot map its shadow memory.
WITHOUT_RANDOMIZATION = ["setarch", "-R"] if shutil.which("setarch") else []

pytestmark = [needs_compiler, pytest.mark.slow]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """Returns a function that compiles the libraries and test programs with a sanitizer; it returns their folder."""

    def make(sanitizer: str, *programs: str):
        directory = tmp_path_factory.mktemp(sanitizer)
        flags = build_kernels.SANITIZERS[sanitizer]
        probe = [*build_kernels.compiler(), *flags, "-x", "c++", "-", "-o", str(directory / "probe")]
        if subprocess.run(probe, input="int main() {}", capture_output=True, text=True).returncode != 0:
            pytest.skip(f"the compiler has no {sanitizer} sanitizer")
        supported = [isa for isa in ISAS if is_supported(isa)]  # compiling takes minutes
        build_kernels.build(directory, (build_kernels.CPU, *supported), sanitizer=sanitizer, required=True)
        for program in programs:
            compile_program(f"{program}.cpp", directory / program, flags)
        return directory

    return make


@pytest.fixture(scope="module")
def address_sanitized(sanitized):
    return sanitized("address", "op_table", "concurrent_calls")


@pytest.fixture(scope="module")
def thread_sanitized(sanitized):
    return sanitized("thread", "concurrent_calls")


def is_supported(isa: str) -> bool:
    return library.available()[isa] != library.NOT_SUPPORTED


def skip_if_unsupported(isa: str) -> None:
    if not is_supported(isa):
        pytest.skip(f"{isa} is {library.NOT_SUPPORTED}")


@pytest.mark.parametrize("isa", ISAS)
def test_operations_under_address_sanitizer(isa, address_sanitized):
    skip_if_unsupported(isa)
    finished = run(address_sanitized / "op_table", address_sanitized, "any", isa)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{isa}: " in finished.stdout and " int8 products exact, checksum " in finished.stdout


@pytest.mark.parametrize("isa", ISAS)
def test_concurrent_calls_under_address_sanitizer(isa, address_sanitized):
    skip_if_unsupported(isa)
    check_concurrent_calls(address_sanitized, isa)


@pytest.mark.parametrize("isa", ISAS)
def test_concurrent_calls_under_thread_sanitizer(isa, thread_sanitized):
    skip_if_unsupported(isa)
    check_concurrent_calls(thread_sanitized, isa)


def check_concurrent_calls(directory, isa: str) -> None:
    rounds = "5"  # each kind of call once by every caller
    finished = run(
        *WITHOUT_RANDOMIZATION, directory / "concurrent_calls", directory / f"libsweet_{isa}.so", rounds, timeout=300
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "concurrent calls match" in finished.stdout
    assert "3 calls and 3 threads at the same time" in finished.stdout


TOKENIZER_CASES = """
import sys
from pathlib import Path
from itrex_sweet.tokenization import native_library
native_library._PATH = Path(sys.argv[1])
from tests.fuzz.tokenization import KINDS, compare
for kind in KINDS:
    outcome = compare(kind, 400, 7)
    assert outcome.difference is None and outcome.texts == 400, outcome
print(len(KINDS), "kinds of tokenizer")
"""


THREAD_CASES = """
import sys, threading
from pathlib import Path
from itrex_sweet.tokenization import native_library
native_library._PATH = Path(sys.argv[1])
native_library.BYTES_WITH_GIL = 0  # so that calls run at the same time
from itrex_sweet.tokenization.native_reader import NativeReader
from tests.fuzz.tokenization import KINDS
texts = ["the good soup \\u00bd\\u0301 running caf\\u00e9 \\ufb01 qZ " * 20, "x" * 3000]
for make in KINDS.values():
    reader, start, found = NativeReader(make()), threading.Barrier(2), []
    def read():
        start.wait()
        for _ in range(20):
            found.append([reader.pack([text])[0].input_ids.tolist() for text in texts])
    threads = [threading.Thread(target=read) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 40 and all(ids == found[0] for ids in found)
print(len(KINDS), "kinds of tokenizer")
"""


def test_tokenizer_under_address_sanitizer(tmp_path):
    # Python leaks objects of its own.
    check_tokenizer(tmp_path, "address", TOKENIZER_CASES, ASAN_OPTIONS="detect_leaks=0")


def test_tokenizer_under_thread_sanitizer(tmp_path):
    # The threads of the `tokenizers` library, whose code is not instrumented, look like races.
    others = tmp_path / "others"
    others.write_text("race:tokenizers.abi3\n")
    check_tokenizer(
        tmp_path, "thread", THREAD_CASES, TSAN_OPTIONS=f"suppressions={others}", TOKENIZERS_PARALLELISM="false"
    )


def check_tokenizer(directory, sanitizer: str, cases: str, **variables: str) -> None:
    """Runs a program with the tokenizer library under a sanitizer."""
    # The sanitizer looks for the function that throws exceptions when the process starts, so both are loaded there.
    runtime = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    preloaded = [
        subprocess.run(
            [*build_kernels.compiler(), f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        for name in (runtime, "libstdc++.so")
    ]
    if not all(Path(path).is_absolute() for path in preloaded):
        pytest.skip(f"the compiler has no {sanitizer} sanitizer that can be preloaded")
    build_kernels.build(directory, (build_kernels.TOKENIZER,), sanitizer=sanitizer, required=True)
    environment = {**os.environ, "LD_PRELOAD": " ".join(preloaded), **variables}
    prefix = WITHOUT_RANDOMIZATION if sanitizer == "thread" else []
    path = directory / build_kernels.library(build_kernels.TOKENIZER)
    command = [*prefix, sys.executable, "-c", cases, str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=build_kernels.ROOT)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "kinds of tokenizer" in finished.stdout
