"""Choosing the engine's instruction set: the best one usable, the one forced, and never another in its place."""

import ctypes
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import build_kernels
from itrex_sweet.errors import BackendUnavailable, ConfigError, SweetError
from itrex_sweet.runtime.native import cores, interface, library
from tests.native.programs import compile_program, needs_compiler, needs_kernels, op_cases, run

USABLE = [isa for isa, reason in library.available().items() if reason is None]
HEADER = (build_kernels.SOURCES / "api.h").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch):
    monkeypatch.delenv(library.ENVIRONMENT, raising=False)


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Sets which libraries are built, as empty files, and which instruction sets the processor supports."""

    class Processor:
        def __init__(self, supported):
            self.supported = supported

        def sweet_cpu_supports(self, isa):
            return isa.decode() in self.supported

    def set_up(built, supported):
        for name in ("cpu", *built):
            (tmp_path / f"libsweet_{name}.so").touch()
        monkeypatch.setattr(library, "_DIRECTORY", tmp_path)
        monkeypatch.setattr(library, "_cpu", lambda path: Processor(supported))
        monkeypatch.setattr(library, "_open_file", lambda isa, path: isa)

    return set_up


# ---------------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("built", "supported", "taken"),
    [
        (library.ISAS, library.ISAS, "amx"),
        (library.ISAS, ("portable", "avx2", "avx512_vnni", "avx512_bf16"), "avx512_bf16"),
        (library.ISAS, ("portable", "avx2", "avx512_vnni"), "avx512_vnni"),
        (library.ISAS, ("portable", "avx2"), "avx2"),
        (library.ISAS, ("portable",), "portable"),
        (("portable", "avx2"), library.ISAS, "avx2"),
    ],
)
def test_the_best_that_is_built_and_supported_is_taken(pretend, built, supported, taken):
    pretend(built, supported)
    assert library.load() == taken


def test_reasons(pretend):
    pretend(("portable", "amx"), ("portable", "avx2"))
    assert library.available() == {
        "amx": "not supported by this processor",
        "avx512_bf16": "not built",
        "avx512_vnni": "not built",
        "avx2": "not built",
        "portable": None,
    }
    assert tuple(library.available()) == library.ISAS


def test_a_forced_one_is_taken(pretend, monkeypatch):
    pretend(library.ISAS, library.ISAS)
    assert library.load("avx2") == "avx2"
    monkeypatch.setenv(library.ENVIRONMENT, "portable")
    assert library.load() == "portable"
    assert library.load("avx2") == "avx2", "an argument is nearer than the environment"
    monkeypatch.setenv(library.ENVIRONMENT, "")
    assert library.load() == "amx"


@pytest.mark.parametrize(
    ("isa", "message"),
    [
        ("amx", "amx' is not supported by this processor. Usable here: portable"),
        ("avx2", "avx2' is not built"),
        ("neon", "neon' is unknown; there are amx, avx512_bf16, avx512_vnni, avx2, portable"),
        ("", "isa='' is unknown"),
    ],
)
def test_none_is_put_in_the_place_of_a_forced_one(pretend, monkeypatch, isa, message):
    pretend(("portable", "amx"), ("portable", "avx2"))
    with pytest.raises(BackendUnavailable, match=message):
        library.load(isa)
    if isa:
        monkeypatch.setenv(library.ENVIRONMENT, isa)
        with pytest.raises(BackendUnavailable, match=f"{library.ENVIRONMENT}={message.replace(chr(39), '', 1)}"):
            library.load()


def test_nothing_usable(pretend):
    pretend((), library.ISAS)
    with pytest.raises(BackendUnavailable, match=r"no instruction set to run on.*portable: not built"):
        library.load()


@needs_kernels
def test_a_file_that_is_no_library(tmp_path):
    (tmp_path / "libsweet_avx2.so").write_text("nothing")
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        library.Library("avx2", tmp_path / "libsweet_avx2.so")
    with pytest.raises(BackendUnavailable, match="was built for portable"):
        library.Library("avx2", library._path("portable"))
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        library.Library("portable", library._path("cpu"))


# ---------------------------------------------------------------------------------------------------- the real ones


@needs_kernels
def test_this_processor():
    loaded = library.load()
    assert loaded.isa == USABLE[0] and loaded is library.load(USABLE[0]), "loaded once"
    assert "portable" in USABLE
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
        flags = flags.group(1).split() if flags else ()
        if library._path("avx512_vnni").is_file():
            needed = {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
            assert ("avx512_vnni" in USABLE) == (needed <= set(flags))
        if library._path("avx2").is_file():
            assert ("avx2" in USABLE) == ({"avx2", "fma"} <= set(flags))


@needs_kernels
def test_the_detector_knows_no_other_names():
    supports = library._cpu(library._path("cpu")).sweet_cpu_supports
    assert supports(b"portable") == 1
    assert [supports(name) for name in (b"", b"AVX2", b"avx", b"neon", None)] == [0] * 5


@needs_kernels
@pytest.mark.parametrize("isa", USABLE)
def test_the_integer_product_is_exact(isa):
    random = np.random.default_rng(0)
    loaded = library.load(isa)
    for m, n, k, values in op_cases():
        a = random.integers(0, 256, (m, k), dtype=np.uint8)
        w = random.integers(-128, 128, (n, k), dtype=np.int8)
        if values != "RANDOM":
            a[:] = 0 if values == "ZERO" else 255
        if values in ("LARGEST", "POSITIVE"):
            w[:] = -128 if values == "LARGEST" else 127
        elif values == "ALTERNATING":
            w[:] = np.where(np.arange(k) // 2 % 2, -128, 127)
        c = np.full((m, n), 7, np.int32)
        loaded.call("sweet_op_gemm_int32", m, n, k, a.ctypes.data, w.ctypes.data, c.ctypes.data)
        np.testing.assert_array_equal(c, a.astype(np.int32) @ w.T.astype(np.int32), err_msg=f"{isa} {m, n, k, values}")


@needs_kernels
@pytest.mark.parametrize("isa", USABLE)
def test_failures_come_with_the_reason(isa):
    loaded = library.load(isa)
    with pytest.raises(SweetError, match=r"^sweet_model_new: the model: the hidden size is 0, not from 1 to 65536"):
        loaded.call("sweet_model_new", ctypes.byref(interface.CDescription()), 1, -1)


# ---------------------------------------------------------------------------------------------------- the interface


def test_every_function_is_declared():
    functions = set(re.findall(r"^SWEET_API [^(]*?(\w+)\(", HEADER, re.MULTILINE))
    assert functions == set(interface.FUNCTIONS)
    for name, (_, arguments) in interface.FUNCTIONS.items():
        declared = re.search(rf"\b{name}\(([^)]*)\)", HEADER).group(1)
        assert len(arguments) == len([part for part in declared.split(",") if part.strip()]), name


def test_activations_are_numbered_alike():
    enumeration = re.search(r"enum sweet_activation \{([^}]*)\}", HEADER).group(1)
    assert {
        name.strip().lower().removeprefix("sweet_"): int(number)
        for name, number in (pair.split("=") for pair in enumeration.split(","))
    } == interface.ACTIVATIONS


@needs_compiler
def test_structures_are_laid_out_alike(tmp_path):
    structures = interface.STRUCTURES
    assert set(structures) == set(re.findall(r"^struct (\w+) \{", HEADER, re.MULTILINE))
    lines, expected = [], []
    for name, structure in structures.items():
        lines.append(f"sizeof({name})")
        expected.append(ctypes.sizeof(structure))
        for field, _ in structure._fields_:
            lines += [f"offsetof({name}, {field.rstrip('_')})", f"sizeof({name}::{field.rstrip('_')})"]
            expected += [getattr(structure, field).offset, getattr(structure, field).size]
    source = tmp_path / "layout.cpp"
    printed = "\n".join(f'    std::printf("%zu\\n", {line});' for line in lines)
    source.write_text(
        f'#include <cstddef>\n#include <cstdio>\n#include "api.h"\nint main() {{\n{printed}\n    return 0;\n}}\n'
    )
    finished = run(compile_program(source, tmp_path / "layout"))
    found = dict(zip(lines, map(int, finished.stdout.split()), strict=True))
    assert found == dict(zip(lines, expected, strict=True))


@needs_kernels
def test_loading_imports_neither_torch_nor_numpy():
    script = (
        "import sys; from itrex_sweet.runtime.native import cores, library; library.load(); cores.default_threads()\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


# ---------------------------------------------------------------------------------------------------- threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_one_allowed_core_is_one_thread():
    allowed = os.sched_getaffinity(0)
    assert 1 <= cores.default_threads() <= len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores.default_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (8.0, 4), (2.0, 2), (1.5, 1), (0.2, 1)])
def test_threads_keep_to_the_quota(monkeypatch, quota, threads):
    monkeypatch.setattr(cores, "physical_cores", lambda: 4)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores.default_threads() == threads


@pytest.mark.parametrize(
    ("told", "threads"),
    [("1", 1), ("3", 3), ("2,1", 2), (" 2 ", 2), ("100", 4)]
    + [(told, 4) for told in ("", "0", "-1", "two", "1.5", "9" * 20, "²")],
)
def test_openmp_s_variable_is_heeded_where_torch_is_not_loaded(monkeypatch, told, threads):
    monkeypatch.setattr(cores, "physical_cores", lambda: 4)
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert cores.default_threads() == threads


def test_torch_s_number_is_heeded_where_it_is_less(monkeypatch):
    monkeypatch.setattr(cores, "physical_cores", lambda: 4)
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what torch was set to since counts
    for told, threads in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(torch, "get_num_threads", lambda told=told: told)
        assert cores.default_threads() == threads


@pytest.mark.parametrize("threads", [0, -1, True, False, 2.5, 2.0, "2", None, [2], float("nan"), 100_000, 2**40])
def test_what_is_no_number_of_threads(threads):
    with pytest.raises(ConfigError, match=r"^threads="):
        cores.checked_threads(threads)


def test_numbers_of_threads():
    assert [cores.checked_threads(number) for number in (1, 2, 64, np.int64(3))] == [1, 2, 64, 3]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_hyperthreads_share_a_core(monkeypatch, tmp_path):
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    assert cores.physical_cores(tmp_path) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 9})
    assert cores.physical_cores(tmp_path) == 2, "cpu9 is not told about: a core of its own"


# ---------------------------------------------------------------------------------------------------- what is told


def test_info_lists_every_instruction_set_and_the_one_taken(monkeypatch):
    from itrex_sweet.commands.info import environment

    told = environment()["native engine"]
    taken = told.pop("would be taken")
    assert told == {isa: reason or "usable" for isa, reason in library.available().items()}
    assert taken == USABLE[0] if USABLE else taken.startswith("none: ")
    monkeypatch.setenv(library.ENVIRONMENT, "neon")
    assert environment()["native engine"]["would be taken"].startswith(f"none: {library.ENVIRONMENT}=neon is unknown")


# ---------------------------------------------------------------------------------------------------- building


def test_without_a_compiler_nothing_is_built_and_it_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    (tmp_path / "libsweet_avx2.so").touch()  # of earlier sources
    os.utime(tmp_path / "libsweet_avx2.so", (0, 0))
    results = build_kernels.build(tmp_path)
    assert all("no C++ compiler" in result.missing for result in results) and not list(tmp_path.iterdir())
    assert "libsweet_avx2.so was not built: no C++ compiler was found (CXX='/nowhere/c++')" in capsys.readouterr().err
    with pytest.raises(build_kernels.BuildError, match=r"libsweet_cpu\.so was not built"):
        build_kernels.build(tmp_path, required=True)


@needs_compiler
def test_flags_that_the_compiler_does_not_know(monkeypatch, tmp_path):
    monkeypatch.setitem(build_kernels.ISAS, "amx", ("-mnothing-of-the-kind",))
    detector, amx = build_kernels.build(tmp_path, ("cpu", "amx"))
    assert detector.missing is None and [path.name for path in tmp_path.iterdir()] == ["libsweet_cpu.so"]
    assert "does not support its flags" in amx.missing and "-mnothing-of-the-kind" in amx.missing


@needs_compiler
def test_what_is_older_than_its_sources_is_built_anew(tmp_path):
    build_kernels.build(tmp_path, ["cpu"])
    built = tmp_path / "libsweet_cpu.so"
    first = built.stat().st_mtime_ns
    build_kernels.build(tmp_path, ["cpu"])
    assert built.stat().st_mtime_ns == first
    os.utime(built, (0, 0))
    build_kernels.build(tmp_path, ["cpu"])
    assert built.stat().st_mtime_ns >= first


def test_the_mode_is_checked(monkeypatch):
    monkeypatch.setenv(build_kernels.MODE, "perhaps")
    with pytest.raises(build_kernels.BuildError, match="'required' or 'none'"):
        build_kernels.mode()


# ---------------------------------------------------------------------------------------------------- a stale library


@needs_compiler
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            ("kSweetInterface = 3", "kSweetInterface = 2"),
            "version 2 of the engine's interface and this package needs 3",
        ),
        (("    float eps;", "    float eps, more[2];"), "sweet_norm of 48 bytes and this package has 40"),
        (("sweet_interface()", "sweet_another()"), "undefined symbol: sweet_interface"),
    ],
)
def test_a_library_of_another_interface_is_refused(tmp_path, changed, message):
    # The engine's answers about itself alone, from a changed header.
    header = HEADER.replace(*changed)
    assert header != HEADER
    (tmp_path / "api.h").write_text(header, encoding="utf-8")
    engine = (build_kernels.SOURCES / "engine.cpp").read_text(encoding="utf-8")
    about = re.search(r"^int32_t sweet_interface\(\).*?^\}\n", engine, re.MULTILINE | re.DOTALL).group()
    stubs = "".join(f"SWEET_API void {name}() {{}}\n" for name in interface.FUNCTIONS if f"{name}(" not in about)
    own = re.sub(
        r"^SWEET_API (?!int32_t sweet_(interface|another)|int64_t sweet_size_of)[^;]*;", "", header, flags=re.MULTILINE
    )
    (tmp_path / "api.h").write_text(own, encoding="utf-8")
    if "another" in changed[1]:
        about = about.replace("sweet_interface()", "sweet_another()")
    (tmp_path / "stale.cpp").write_text(f'#include <cstring>\n#include <utility>\n#include "api.h"\n{about}{stubs}')
    target = tmp_path / "libsweet_portable.so"
    command = [*build_kernels.compiler(), "-std=c++17", "-shared", "-fPIC", "-I", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "stale.cpp"), "-o", str(target)], check=True, capture_output=True)
    with pytest.raises(BackendUnavailable, match=message) as refused:
        library.Library("portable", target)
    assert "build_kernels.py --force" in str(refused.value)
