"""Selection and loading of the engine's library, and its functions on this processor."""

import ctypes
import re
import subprocess
import sys

import numpy as np
import pytest

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.native import interface, library
from tests.native.programs import KERNELS, needs_kernels, op_cases

AVAILABLE = [isa for isa, reason in library.available().items() if reason is None]


@pytest.fixture(autouse=True)
def _no_isa_variable(monkeypatch):
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)


@pytest.fixture
def fake_libraries(monkeypatch, tmp_path):
    """Returns a function that sets the libraries that are built, as empty files, and the supported instruction sets."""

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


# ---------------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("built", "supported", "selected"),
    [
        (library.ISAS, library.ISAS, "amx"),
        (library.ISAS, ("portable", "avx2", "avx512_vnni", "avx512_bf16"), "avx512_bf16"),
        (library.ISAS, ("portable", "avx2", "avx512_vnni"), "avx512_vnni"),
        (library.ISAS, ("portable", "avx2", "avx512"), "avx512"),
        (library.ISAS, ("portable", "avx2", "avx_vnni"), "avx_vnni"),
        (library.ISAS, ("portable", "avx2"), "avx2"),
        (library.ISAS, ("portable",), "portable"),
        (("portable", "avx2"), library.ISAS, "avx2"),
    ],
)
def test_best_available_instruction_set_is_selected(fake_libraries, built, supported, selected):
    fake_libraries(built, supported)
    assert library.load() == selected


def test_available_gives_the_reason_for_each_instruction_set(fake_libraries):
    fake_libraries(("portable", "amx"), ("portable", "avx2"))
    assert library.available() == {
        "amx": "not supported by this processor",
        "avx512_bf16": "not built",
        "avx512_vnni": "not built",
        "avx_vnni": "not built",
        "avx512": "not built",
        "avx2": "not built",
        "portable": None,
    }
    assert tuple(library.available()) == library.ISAS


def test_argument_overrides_environment_variable(fake_libraries, monkeypatch):
    fake_libraries(library.ISAS, library.ISAS)
    assert library.load("avx2") == "avx2"
    monkeypatch.setenv(library.ISA_VARIABLE, "portable")
    assert library.load() == "portable"
    assert library.load("avx2") == "avx2", "the argument has precedence"
    monkeypatch.setenv(library.ISA_VARIABLE, "")
    assert library.load() == "amx"


@pytest.mark.parametrize(
    ("isa", "message"),
    [
        ("amx", "amx' is not supported by this processor. Available: portable"),
        ("avx2", "avx2' is not built"),
        ("neon", "neon' is unknown; expected one of amx, avx512_bf16, avx512_vnni, avx_vnni, avx512, avx2, portable"),
        ("", "isa='' is unknown"),
    ],
)
def test_unavailable_explicit_selection_raises(fake_libraries, monkeypatch, isa, message):
    fake_libraries(("portable", "amx"), ("portable", "avx2"))
    with pytest.raises(BackendUnavailable, match=message):
        library.load(isa)
    if isa:
        monkeypatch.setenv(library.ISA_VARIABLE, isa)
        with pytest.raises(BackendUnavailable, match=f"{library.ISA_VARIABLE}={message.replace(chr(39), '', 1)}"):
            library.load()


def test_no_available_instruction_set_raises(fake_libraries):
    fake_libraries((), library.ISAS)
    with pytest.raises(BackendUnavailable, match=r"not part of this installation .not built"):
        library.load()


@needs_kernels
def test_invalid_library_file_raises(tmp_path):
    (tmp_path / "libsweet_avx2.so").write_text("nothing")
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        library.Library("avx2", tmp_path / "libsweet_avx2.so")
    with pytest.raises(BackendUnavailable, match="was built for portable"):
        library.Library("avx2", library._path("portable"))
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        library.Library("portable", library._path("cpu"))


# ---------------------------------------------------------------------------------------------------- this processor


@needs_kernels
def test_selection_matches_the_processor_flags():
    loaded = library.load()
    assert loaded.isa == AVAILABLE[0] and loaded is library.load(AVAILABLE[0]), "loaded once"
    assert "portable" in AVAILABLE
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
        flags = flags.group(1).split() if flags else ()
        avx512 = {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
        needed = {
            "avx512_vnni": {*avx512, "avx512_vnni"},
            "avx_vnni": {"avx2", "fma", "avx_vnni"},
            "avx512": avx512,
            "avx2": {"avx2", "fma"},
        }
        for isa in needed.keys() & KERNELS:
            assert (isa in AVAILABLE) == (needed[isa] <= set(flags)), isa


@needs_kernels
def test_detector_rejects_unknown_names():
    supports = library._cpu(library._path("cpu")).sweet_cpu_supports
    assert supports(b"portable") == 1
    assert [supports(name) for name in (b"", b"AVX2", b"avx", b"neon", None)] == [0] * 5


@needs_kernels
@pytest.mark.parametrize("isa", AVAILABLE)
def test_int8_product_is_exact(isa):
    random = np.random.default_rng(0)
    loaded = library.load(isa)
    for m, n, k, values in op_cases():
        a = random.integers(0, 256, (m, k), dtype=np.uint8)
        w = random.integers(-128, 128, (n, k), dtype=np.int8)
        if values != "RANDOM":
            a[:] = 0 if values == "ZERO" else 255
        if values in ("MINIMUM", "MAXIMUM"):
            w[:] = -128 if values == "MINIMUM" else 127
        elif values == "ALTERNATING":
            w[:] = np.where(np.arange(k) // 2 % 2, -128, 127)
        c = np.full((m, n), 7, np.int32)
        loaded.call("sweet_op_gemm_int32", m, n, k, a.ctypes.data, w.ctypes.data, c.ctypes.data)
        np.testing.assert_array_equal(c, a.astype(np.int32) @ w.T.astype(np.int32), err_msg=f"{isa} {m, n, k, values}")


@needs_kernels
@pytest.mark.parametrize("isa", AVAILABLE)
def test_failed_call_raises_the_engine_s_message(isa):
    loaded = library.load(isa)
    with pytest.raises(SweetError, match=r"^sweet_model_new: the model: the hidden size is 0; expected 1 to 65536"):
        loaded.call("sweet_model_new", ctypes.byref(interface.CDescription()))


@needs_kernels
def test_loading_imports_neither_torch_nor_numpy():
    script = (
        "import sys; from itrex_sweet.runtime.native import cores, library; library.load(); cores.default_threads()\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


# ---------------------------------------------------------------------------------------------------- itrex-sweet info


def test_info_lists_instruction_sets_and_the_selected_one(monkeypatch):
    from itrex_sweet.commands.info import environment

    told = environment()["native engine"]
    taken = told.pop("would be taken")
    assert told == {isa: reason or "usable" for isa, reason in library.available().items()}
    assert taken == AVAILABLE[0] if AVAILABLE else taken.startswith("none: ")
    monkeypatch.setenv(library.ISA_VARIABLE, "neon")
    assert environment()["native engine"]["would be taken"].startswith(f"none: {library.ISA_VARIABLE}=neon is unknown")
