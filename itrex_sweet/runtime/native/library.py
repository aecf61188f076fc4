"""Selection and loading of the engine's library for this processor."""

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
ISAS = ("amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512", "avx2", "portable")
# The environment variable that selects one of them.
ISA_VARIABLE = "ITREX_SWEET_ISA"

NOT_BUILT, NOT_SUPPORTED = "not built", "not supported by this processor"

REBUILD = (
    "The library does not match this version of itrex-sweet. Reinstall the package, or run "
    "`python build_kernels.py --force` in a source checkout."
)

INSTALL = (
    "Install a wheel of itrex-sweet for this platform, or install a C++ compiler and build it: "
    "pip install --force-reinstall --no-deps --no-binary itrex-sweet itrex-sweet."
)

_DIRECTORY = Path(__file__).resolve().parent / "lib"


class Library:
    """The engine compiled for one instruction set.

    The functions of `csrc/api.h` are attributes with declared types: `library.sweet_embed(...)`. They return the C
    result; `call` converts error codes to exceptions. Calls release the GIL.

    Args:
        isa: one of `ISAS`.
        path: file of the library.

    Raises:
        BackendUnavailable: the file is not a library, has another interface version, or was built for another
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
        self._check_interface()
        built_for = self.sweet_isa().decode()
        if built_for != isa:
            raise BackendUnavailable(f"{path.name} was built for {built_for}.")

    def __repr__(self) -> str:
        return f"Library({self.isa!r}, {str(self.path)!r})"

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function and checks its result.

        Returns:
            the C result.

        Raises:
            SweetError: the result is negative or a null pointer; contains the engine's message.
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

    def _check_interface(self) -> None:
        """Checks the interface version and the sizes of the structures, which another build may lay out differently."""
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
        """Returns the message of this thread's last failed call."""
        return (self.sweet_error() or b"").decode(errors="replace") or "no message from the engine"


def available() -> dict[str, str | None]:
    """Returns all instruction sets, best first → the reason why each is unavailable, or `None` if it is available."""
    return {isa: _unavailable_reason(isa) for isa in ISAS}


def load(isa: str | None = None) -> Library:
    """Loads the engine; cached per instruction set.

    Args:
        isa: one of `ISAS`; `None` for the value of the environment variable `ITREX_SWEET_ISA`, or if that is not set,
            the best one that is built and supported by this processor.

    Raises:
        BackendUnavailable: the selected instruction set is unknown, not built or not supported, or none is available.
            There is no fallback from an explicit selection.
    """
    requested = f"isa={isa!r}"
    if isa is None and os.environ.get(ISA_VARIABLE):
        isa = os.environ[ISA_VARIABLE]
        requested = f"{ISA_VARIABLE}={isa}"
    reasons = available()
    usable = [name for name, reason in reasons.items() if reason is None]
    if isa is None:
        if not usable:
            if set(reasons.values()) == {NOT_BUILT}:
                raise BackendUnavailable(f"The native engine is not part of this installation (not built). {INSTALL}")
            details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise BackendUnavailable(f"The native engine is not available for any instruction set. {details}.")
        return _open(usable[0])
    choice = f"Available: {', '.join(usable) or 'none'}."
    if isa not in ISAS:
        raise BackendUnavailable(f"{requested} is unknown; expected one of {', '.join(ISAS)}. {choice}")
    if reasons[isa] is not None:
        raise BackendUnavailable(f"{requested} is {reasons[isa]}. {choice}")
    return _open(isa)


def _path(name: str) -> Path:
    return _DIRECTORY / f"libsweet_{name}.so"


def _unavailable_reason(isa: str) -> str | None:
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
