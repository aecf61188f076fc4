"""Selection of the instruction set on emulated processors, and the kernels of all instruction sets: `make test-amx`.

Kernels run on this processor where it supports them, else on an emulated one. Needs the emulator script beside the
checkout. Its first preparation takes one or two minutes, the tests one minute for each emulated instruction set.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from itrex_sweet.runtime.native import library
from tests.native.programs import BUILT, HERE, KERNELS, compile_program, needs_compiler, needs_kernels, run

EMULATOR = HERE.parents[2] / "shared" / "amx" / "run-under-amx"

SECONDS = 150  # of one run on an idle machine, at most; other tests may use the processor meanwhile

# processor → best supported instruction set
PROCESSORS = {
    "sapphire_rapids": "amx",
    "corei7_icelake_u": "avx512_vnni",
    "arrow_lake": "avx_vnni",  # no AVX-512
    "corei7_skylake_x": "avx512",  # no VNNI
    "corei7_haswell_4770": "avx2",
    "corei7_sandy_bridge_2600k": "portable",  # AVX
}
HERE_SUPPORTED = [isa for isa, reason in library.available().items() if reason is None]
# The first processor of each other instruction set computes with it; on the others the choice is tested alone.
COMPUTING = {isa: processor for processor, isa in reversed(PROCESSORS.items()) if isa not in HERE_SUPPORTED}

pytestmark = [
    pytest.mark.skipif(not EMULATOR.is_file(), reason=f"no emulator at {EMULATOR.parent.name}/{EMULATOR.name}"),
    needs_kernels,
    pytest.mark.skipif(set(KERNELS) != set(library.ISAS), reason=f"built for {', '.join(KERNELS) or 'nothing'} only"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module", autouse=True)
def _prepared():
    finished = subprocess.run([EMULATOR, "--setup"], capture_output=True, text=True, timeout=10 * SECONDS)
    if finished.returncode != 0:
        pytest.skip(f"the emulator cannot be prepared: {finished.stderr.strip()}")


@pytest.fixture(scope="module")
def op_table(tmp_path_factory):
    return compile_program("op_table.cpp", tmp_path_factory.mktemp("programs") / "op_table")


def emulate(processor, *arguments):
    command = [EMULATOR, "--cpu", processor, "--timeout", 5 * SECONDS, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=6 * SECONDS)


THIS_PROCESSOR = "this processor"


@pytest.fixture(scope="module")
def outputs(op_table):
    """Returns a function: processor → the finished `op_table` process; runs each processor once."""
    found = {}

    def output(processor):
        if processor == THIS_PROCESSOR and processor not in found:
            found[processor] = run(op_table, BUILT, "any", *HERE_SUPPORTED, timeout=2 * SECONDS)
        if processor not in found:
            best = PROCESSORS[processor]
            tested = best if COMPUTING.get(best) == processor else "none"
            found[processor] = emulate(processor, "--root", f"{BUILT}:/kernels", op_table, "/kernels", best, tested)
        return found[processor]

    return output


@needs_compiler
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_best_instruction_set_is_detected(processor, outputs):
    finished = outputs(processor)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    better = library.ISAS[: library.ISAS.index(PROCESSORS[processor])]
    unsupported = re.findall(r"^(\w+): not supported$", finished.stdout, re.MULTILINE)
    # Processors with AVX-512 may lack AVX-VNNI, and the reverse.
    assert [isa for isa in unsupported if isa in better] == list(better)
    assert set(unsupported) - set(better) <= {"avx_vnni", "avx512"}
    assert re.search(r"^best: (\w+)$", finished.stdout, re.MULTILINE).group(1) == PROCESSORS[processor]


@needs_compiler
@pytest.mark.parametrize("isa", library.ISAS)
def test_operations_of(isa, outputs):
    if isa not in COMPUTING and isa not in HERE_SUPPORTED:
        pytest.skip(f"{isa} is the best of none of the emulated processors, and this one does not support it")
    finished = outputs(COMPUTING.get(isa, THIS_PROCESSOR))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for checks in ("int8 products exact", "floating-point checks passed", "validation checks passed"):
        assert re.search(rf"^{isa}: (\d+) of \1 {checks}", finished.stdout, re.MULTILINE), finished.stdout


@needs_compiler
def test_checksums_agree_on_all_processors(outputs):
    checksums = {
        processor: re.search(r"^checksum (\w{16})$", outputs(processor).stdout, re.MULTILINE).group(1)
        for processor in (THIS_PROCESSOR, *COMPUTING.values())
    }
    assert len(set(checksums.values())) == 1, checksums


SCRIPT = """
import numpy, sys
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.native import library

print("reasons", library.available())
loaded = library.load()
random = numpy.random.default_rng(0)
a, w = random.integers(0, 256, (33, 100)).astype(numpy.uint8), random.integers(-128, 128, (48, 100)).astype(numpy.int8)
c = numpy.empty((33, 48), numpy.int32)
loaded.call("sweet_op_gemm_int32", 33, 48, 100, a.ctypes.data, w.ctypes.data, c.ctypes.data)
assert (c == a.astype(numpy.int32) @ w.T.astype(numpy.int32)).all()
for isa, reason in library.available().items():
    if reason is not None:
        try:
            library.load(isa)
        except BackendUnavailable as error:
            assert reason in str(error)
        else:
            raise AssertionError(isa)
assert "torch" not in sys.modules
print("chosen", loaded.isa)
"""


@pytest.fixture(scope="module")
def python_tree(tmp_path_factory):
    """Returns the part of the package that selects and loads a library, and NumPy."""
    package = Path(library.__file__).resolve().parents[2]
    tree = tmp_path_factory.mktemp("tree")
    for name in ("__init__.py", "version.py", "errors.py", "extras.py", "runtime/__init__.py"):
        (tree / "itrex_sweet" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / name, tree / "itrex_sweet" / name)
    shutil.copytree(package / "runtime" / "native", tree / "itrex_sweet" / "runtime" / "native")
    numpy = Path(np.__file__).parent
    without = shutil.ignore_patterns("tests", "f2py", "*.pyi", "distutils", "include", "typing/tests")
    shutil.copytree(numpy, tree / "numpy", ignore=without, symlinks=True)
    if numpy.with_name("numpy.libs").is_dir():
        shutil.copytree(numpy.with_name("numpy.libs"), tree / "numpy.libs")
    (tree / "script.py").write_text(SCRIPT)
    return tree


@pytest.mark.parametrize("processor", ["sapphire_rapids", "corei7_haswell_4770"])
def test_python_loads_the_best_library(processor, python_tree):
    standard_library = sysconfig.get_path("stdlib")
    options = ["--root", f"{python_tree}:/tree", "--root", standard_library, "--env", "PYTHONPATH=/tree"]
    for pattern in ("site-packages", "dist-packages", "test", "tests", "idlelib", "ensurepip", "lib2to3", "tkinter"):
        options += ["--exclude", pattern]
    python = Path(sys.executable).resolve()
    finished = emulate(processor, *options, python, "-B", "-S", "/tree/script.py")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.splitlines()[-1] == f"chosen {PROCESSORS[processor]}"
