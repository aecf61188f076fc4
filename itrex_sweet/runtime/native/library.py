"""Choosing and loading the engine's library for this processor."""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import c_char_p, c_double, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.native.interface import FUNCTIONS, INTERFACE, STRUCTURES

# Instruction sets, best first.
ISAS = ("amx", "avx512_bf16", "avx512_vnni", "avx2", "portable")
# The environment variable that forces one of them.
ENVIRONMENT = "ITREX_SWEET_ISA"

NOT_BUILT, NOT_SUPPORTED = "not built", "not supported by this processor"

REBUILD = (
    "It does not belong to this version of itrex-sweet: install the package again, or in a checkout run "
    "`python build_kernels.py --force`."
)

_DIRECTORY = Path(__file__).resolve().parent / "lib"


class Library:
    """The engine built for one instruction set.

    The functions of `csrc/api.h` are its attributes, with types declared: `library.sweet_embed(...)`. They return what
    C returns; `call` turns codes of failure into exceptions. Other threads of Python run while one is called.

    Args:
        isa: one of `ISAS`.
        path: the library's file.

    Raises:
        BackendUnavailable: the file is no library, was built from other sources than this file's, or for another
            instruction set.
    """

    def __init__(self, isa: str, path: Path):
        self.isa = isa
        self.path = path
        try:
            handle = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
            for name, (result, arguments) in FUNCTIONS.items():
                function = getattr(handle, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        except (OSError, AttributeError) as error:
            raise BackendUnavailable(f"{path.name} cannot be loaded: {error}. {REBUILD}") from error
        self._refuse_another_interface()
        built_for = self.sweet_isa().decode()
        if built_for != isa:
            raise BackendUnavailable(f"{path.name} was built for {built_for}.")

    def __repr__(self) -> str:
        return f"Library({self.isa!r}, {str(self.path)!r})"

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function, and checks what it returns.

        Returns:
            Its result: an address, a size or a duration; 0 where it only reports success.

        Raises:
            SweetError: it failed: a negative code or a null pointer; the message is the engine's.
        """
        result = getattr(self, function)(*arguments)
        kind = FUNCTIONS[function][0]
        if (kind is c_void_p and not result) or (kind in (c_int32, c_int64, c_double) and result < 0):
            raise SweetError(f"{function}: {self.error()}")
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Library:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.isa,)

    def _refuse_another_interface(self) -> None:
        """A library that is older or newer than the package would read other structures than it is given."""
        if self.sweet_interface() != INTERFACE:
            raise BackendUnavailable(
                f"{self.path.name} has version {self.sweet_interface()} of the engine's interface and this package "
                f"needs {INTERFACE}. {REBUILD}"
            )
        for name, structure in STRUCTURES.items():
            size, expected = self.sweet_size_of(name.encode()), ctypes.sizeof(structure)
            if size != expected:
                raise BackendUnavailable(
                    f"{self.path.name} was built with {name} of {size} bytes and this package has {expected}. {REBUILD}"
                )

    def error(self) -> str:
        """What went wrong in the last call of this thread that failed."""
        return (self.sweet_error() or b"").decode(errors="replace") or "the engine gave no reason"


def available() -> dict[str, str | None]:
    """Instruction set, best first → why it cannot be used here, or `None` if it can."""
    return {isa: _missing(isa) for isa in ISAS}


def load(isa: str | None = None) -> Library:
    """Loads the engine, once per instruction set.

    Args:
        isa: one of `ISAS`; `None` for the one that the environment variable `ITREX_SWEET_ISA` names, or where that is
            not set or empty, the best that is built and that this processor supports.

    Raises:
        BackendUnavailable: the one named is unknown, not built or not supported here, or none is usable; no other is
            put in its place.
    """
    asked = f"isa={isa!r}"
    if isa is None and os.environ.get(ENVIRONMENT):
        isa = os.environ[ENVIRONMENT]
        asked = f"{ENVIRONMENT}={isa}"
    reasons = available()
    usable = [name for name, reason in reasons.items() if reason is None]
    if isa is None:
        if not usable:
            told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise BackendUnavailable(f"The native engine has no instruction set to run on. {told}.")
        return _open(usable[0])
    choice = f"Usable here: {', '.join(usable) or 'none'}."
    if isa not in ISAS:
        raise BackendUnavailable(f"{asked} is unknown; there are {', '.join(ISAS)}. {choice}")
    if reasons[isa] is not None:
        raise BackendUnavailable(f"{asked} is {reasons[isa]}. {choice}")
    return _open(isa)


def _path(name: str) -> Path:
    return _DIRECTORY / f"libsweet_{name}.so"


def _missing(isa: str) -> str | None:
    if not _path(isa).is_file() or not _path("cpu").is_file():
        return NOT_BUILT
    return None if _cpu(_path("cpu")).sweet_cpu_supports(isa.encode()) else NOT_SUPPORTED


@functools.cache
def _cpu(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        raise BackendUnavailable(f"{path.name} cannot be loaded: {error}") from error
    library.sweet_cpu_supports.restype, library.sweet_cpu_supports.argtypes = c_int32, (c_char_p,)
    return library


def _open(isa: str) -> Library:
    return _open_file(isa, _path(isa))


@functools.cache
def _open_file(isa: str, path: Path) -> Library:
    return Library(isa, path)
