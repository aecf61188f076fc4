"""The ctypes declarations match the C header, and libraries with another interface are rejected."""

import ctypes
import re
import subprocess

import pytest

import build_kernels
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.native import interface, library
from tests.native.programs import compile_program, needs_compiler, run

HEADER = (build_kernels.SOURCES / "api.h").read_text(encoding="utf-8")


def test_functions_match_the_header():
    functions = set(re.findall(r"^SWEET_API [^(]*?(\w+)\(", HEADER, re.MULTILINE))
    assert functions == set(interface.FUNCTIONS)
    for name, (_, arguments) in interface.FUNCTIONS.items():
        declared = re.search(rf"\b{name}\(([^)]*)\)", HEADER).group(1)
        assert len(arguments) == len([part for part in declared.split(",") if part.strip()]), name


def test_activations_match_the_header():
    enumeration = re.search(r"enum sweet_activation \{([^}]*)\}", HEADER).group(1)
    assert {
        name.strip().lower().removeprefix("sweet_"): int(number)
        for name, number in (pair.split("=") for pair in enumeration.split(","))
    } == interface.ACTIVATIONS


@needs_compiler
def test_structure_layouts_match_the_header(tmp_path):
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


@needs_compiler
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            (f"kSweetInterface = {interface.INTERFACE}", "kSweetInterface = 2"),
            f"version 2 of the engine's interface and this package needs {interface.INTERFACE}",
        ),
        (("    float eps;", "    float eps, more[2];"), "sweet_norm of 56 bytes and this package has 48"),
        (("sweet_interface()", "sweet_another()"), "undefined symbol: sweet_interface"),
    ],
)
def test_library_with_another_interface_is_rejected(tmp_path, changed, message):
    # A library with a changed header and only the functions that are called before the check.
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
