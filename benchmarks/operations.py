"""Speed of the engine's linear layers on every instruction set of this machine, for the shapes of encoders.

    python benchmarks/operations.py

INT8 rates are reported beside the peak rate of the instruction set, measured in the same run. The result also lists the
instruction sets that are not supported here, with the reason.
"""

from __future__ import annotations

import argparse
import ctypes
from typing import Any

import numpy as np
from record import check_idle_machine, provenance, write_result

from itrex_sweet.runtime.native import library
from itrex_sweet.runtime.native.interface import CFloats, CLinear

LAYERS = {"384 → 1536": (384, 1536), "768 → 768": (768, 768), "768 → 3072": (768, 3072), "3072 → 768": (3072, 768)}
ROWS = (1, 8, 25, 128, 512)
INPUT_SCALE, ZERO_POINT = 0.05, 128  # times do not depend on these


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    check_idle_machine(3.0)
    result: dict[str, Any] = {
        **provenance(),
        "settings": {"threads": options.threads, "repeats": options.repeats},
        "instruction_sets": {},
    }
    for isa, reason in library.available().items():
        result["instruction_sets"][isa] = {"missing": reason} if reason else timed(isa, options)
        print(isa, reason or "timed", flush=True)
    print(write_result("operations", result))


def timed(isa: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures G multiply-adds per second: the peak, and by kind of layer, shape and rows."""
    loaded = library.load(isa)
    # Before and after: the scheduler may run both threads on one core at first.
    peaks = [loaded.call("sweet_op_peak", options.threads)]
    rates: dict[str, dict[str, dict[str, float]]] = {}
    for kind in ("int8", "float32", "bfloat16"):
        rates[kind] = {}
        for name, (in_, out) in LAYERS.items():
            layer, arrays = linear(kind, in_, out)
            rates[kind][name] = {}
            for rows in ROWS:
                repeats = options.repeats if rows > 25 else 10 * options.repeats
                ms = loaded.call("sweet_op_time", ctypes.byref(layer), rows, options.threads, repeats)
                rates[kind][name][str(rows)] = round(rows * in_ * out / ms / 1e6, 1)
            del arrays
    peaks.append(loaded.call("sweet_op_peak", options.threads))
    return {"limit": round(max(peaks) / 1e9, 1), "rates": rates}


def linear(kind: str, in_: int, out: int) -> tuple[CLinear, list[np.ndarray]]:
    """Creates a layer with random weights, and returns it with the arrays that it points at."""
    random = np.random.default_rng(0)
    bias = np.zeros(out, np.float32)
    if kind != "int8":
        weight = random.standard_normal((out, in_), dtype=np.float32)
        layer = CLinear(weight.ctypes.data, weight.size, bias=_floats(bias), in_=in_, out=out)
        layer.is_bfloat16 = kind == "bfloat16"
        return layer, [weight, bias]
    weight = random.integers(-127, 128, (out, in_), dtype=np.int8)
    scale = np.full(out, 0.01, np.float32)
    layer = CLinear(weight.ctypes.data, weight.size, _floats(scale), _floats(bias), in_=in_, out=out)
    layer.input_scale, layer.input_zero_point, layer.is_static = INPUT_SCALE, ZERO_POINT, 1
    return layer, [weight, scale, bias]


def _floats(array: np.ndarray) -> CFloats:
    return CFloats(array.ctypes.data, array.size)


if __name__ == "__main__":
    main()
