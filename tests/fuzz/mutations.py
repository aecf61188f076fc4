"""Mutations of an artifact's files: JSON fields, tensors, headers and whole files, selected by a seed."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.mutation import NUMPY_TYPES, RawTensor, read_tensors, with_value, write_raw, write_tensors

ODD_VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e-45, 1e308, float("nan"), float("inf"), -float("inf")),
    *(2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**63, 10**9, 10**30, -(2**31)),
    *("", "x", "0", "1", "../other", "/etc/passwd", "bert", "gelu", "\ud83d", "\0", "LABEL_0", "x" * 10_000),
    *([], {}, [[]], [None], [0], [1, 2], [2, 1], ["a", "b"], {"a": 1}, {"0": 0}, {"AutoConfig": "evil.Evil"}),
]
ADDED_FIELDS: dict[str, Any] = {
    **{"auto_map": {"AutoConfig": "evil.Evil"}, "pruned_heads": {"0": [0]}, "num_labels": 7, "is_decoder": True},
    **{"attn_implementation": "evil/kernel", "torch_dtype": "float16", "dtype": "float64", "quantization_config": {}},
    **{"id2label": {"0": "a", "1": "b", "2": "c"}, "embedding_size": 16, "position_buckets": 4, "conv_kernel_size": 3},
    **{"calibration": {"candidates": [{}]}, "costs": {"processor": 1}, "quantization": {"recipe": 3}, "stages": ["x"]},
    **{"tokenizer_class": "EvilTokenizer", "vocab_file": "/etc/passwd", "fast_tokenizer_files": ["../x"]},
    **{"model_max_length": "x", "extra_special_tokens": ["\ud83d"], "chat_template": "{{ 1 / 0 }}", "cls_token": 3},
}
_VALUES = (0.0, -0.0, 1.0, -1.0, 0.5, 30.0, float("nan"), float("inf"), -float("inf"), 1e-45, 1e30, -1e9, 3e38, 300.0)

# A mutation changes files and returns a description. If it contains `extreme`, the backends need not agree.
Mutation = Callable[[Random, Path], str]


def json_field(rng: Random, directory: Path) -> str:
    paths = _json_files(directory)
    if not paths:
        return "nothing"
    path = rng.choice(paths)
    contents = _parsed(path)
    container, key, where = _random_entry(rng, contents)
    if container is None:
        return "nothing"
    old = container[key]
    action = rng.choice(("odd", "odd", "number", "remove", "wrap"))
    if action == "remove":
        del container[key]
    elif action == "number" and isinstance(old, (int, float)):
        container[key] = rng.choice((old + 1, old - 1, -old, old * 10, old * 2, float(old), str(old), [old]))
    elif action == "wrap":
        container[key] = rng.choice(([old], {"0": old}, [[old, old]], str(old)))
    else:
        container[key] = rng.choice(ODD_VALUES)
    path.write_text(json.dumps(contents))
    return f"{path.name}: {action} {where}: {_format(old)} → {_format(container.get(key)) if _is(container) else ''}"


def added_field(rng: Random, directory: Path) -> str:
    paths = _json_files(directory, "*config.json")
    if not paths:
        return "nothing"
    path = rng.choice(paths)
    contents = _parsed(path)
    name = rng.choice(list(ADDED_FIELDS))
    if not isinstance(contents, dict):
        return "nothing"
    contents[name] = ADDED_FIELDS[name]
    path.write_text(json.dumps(contents))
    return f"{path.name}: added {name}={_format(contents[name])}"


def json_text(rng: Random, directory: Path) -> str:
    paths = _json_files(directory)
    if not paths:
        return "nothing"
    path = rng.choice(paths)
    depth = rng.choice((40, 500, 10_000))
    text = rng.choice(
        (b'{"a":' * depth + b"1" + b"}" * depth, b"\xff\xfe{}", b"[1]", b"null", b"{", b"", b"1e999", b'"x"')
    )
    path.write_bytes(text)
    return f"{path.name}: text {text[:20]!r}"


def tensor_value(rng: Random, directory: Path) -> str:
    path, tensors, name = _tensor(rng, directory)
    tensor, value = tensors[name], rng.choice(_VALUES)
    if tensor.dtype not in NUMPY_TYPES or not tensor.data:
        return "nothing"
    if not tensor.dtype.startswith("F"):
        value = rng.choice((-1, 0, 127, -128, 255, 256, 300, 2**31 - 1, 2**62)) % 2 ** (
            8 * len(RawTensor.of(np.array(0), tensor.dtype).data)
        )
        tensors[name] = _with_integer(tensor, value, rng)
    else:
        tensors[name] = with_value(tensor, value, rng.randrange(1 << 20))
    write_tensors(path, tensors)
    return f"{name}: a value {value}{' (extreme)' if abs(value) > 100 else ''}"


def tensor_shape(rng: Random, directory: Path) -> str:
    path, tensors, name = _tensor(rng, directory)
    tensor = tensors[name]
    if tensor.dtype not in NUMPY_TYPES or not tensor.data:
        return "nothing"
    shape = [size for size in tensor.shape if isinstance(size, int)]
    axis = rng.randrange(len(shape)) if shape else 0
    new = rng.choice(("resize", "transpose", "flat", "more", "fewer"))
    if new == "resize" and shape:
        shape[axis] = rng.choice((1, 2, shape[axis] - 1 or 1, shape[axis] + 1, 2 * shape[axis], 16, 64))
    elif new == "transpose":
        shape.reverse()
    elif new == "flat":
        shape = [int(np.prod(shape))]
    elif new == "more":
        shape.insert(axis, 1)
    elif shape:
        shape.pop(axis)
    tensors[name] = tensor.reshaped(*shape)
    write_tensors(path, tensors)
    return f"{name}: shape {tensor.shape} → {shape}"


def tensor_dtype(rng: Random, directory: Path) -> str:
    path, tensors, name = _tensor(rng, directory)
    tensor, dtype = tensors[name], rng.choice((*NUMPY_TYPES, "BF16", "C64", "BOOL", "F8_E4M3", "evil"))
    if dtype in NUMPY_TYPES and tensor.dtype in NUMPY_TYPES and rng.random() < 0.7:
        tensors[name] = RawTensor.of(np.nan_to_num(tensor.values), dtype)
    else:
        tensors[name] = RawTensor(dtype, tensor.shape, tensor.data)
    write_tensors(path, tensors)
    return f"{name}: dtype {tensor.dtype} → {dtype}"


def tensor_names(rng: Random, directory: Path) -> str:
    path, tensors, name = _tensor(rng, directory)
    other = rng.choice(list(tensors))
    action = rng.choice(("remove", "rename", "swap", "copy", "all alike"))
    if action == "remove":
        tensors.pop(name)
    elif action == "rename":
        tensors[name + rng.choice((".weight", "_scale", ".bias", "x", "\0"))] = tensors.pop(name)
    elif action == "swap":
        tensors[name], tensors[other] = tensors[other], tensors[name]
    elif action == "copy":
        tensors[name] = tensors[other]
    else:  # all tensors of a module
        part = name.rpartition(".")[0]
        for each in [each for each in tensors if each.startswith(part) and tensors[each].dtype in NUMPY_TYPES]:
            shape = [max(1, size // 2) for size in tensors[each].shape]
            tensors[each] = tensors[each].reshaped(*shape)
    write_tensors(path, tensors)
    return f"{name}: {action} {other if action in ('swap', 'copy') else ''}"


def header(rng: Random, directory: Path) -> str:
    path = rng.choice(_weights(directory))
    contents = path.read_bytes()
    size = int.from_bytes(contents[:8], "little")
    try:
        parsed = json.loads(contents[8 : 8 + size])
    except ValueError:
        return "nothing"
    action = rng.choice(("field", "field", "misaligned", "size"))
    if action == "size":
        path.write_bytes(
            rng.choice((0, size - 1, size + 8, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little") + contents[8:]
        )
        return f"{path.name}: size of its header"
    where = ""
    if action == "field":
        container, key, where = _random_entry(rng, parsed)
        if container is None:
            return "nothing"
        number = container[key]
        near = (number + 1, number - 1, number + 4, -number) if isinstance(number, int) else ()
        container[key] = rng.choice((*ODD_VALUES, *near, *near, *near))
    write_raw(path, json.dumps(parsed), contents[8 + size :], rng.randrange(8) if action == "misaligned" else 0)
    return f"{path.name}: header {action} {where}"


def file_bytes(rng: Random, directory: Path) -> str:
    path = rng.choice(_files(directory))
    contents = bytearray(path.read_bytes())
    action = rng.choice(("truncate", "extend", "flip", "zeros", "twice", "empty", "noise"))
    offset = rng.randrange(len(contents) + 1)
    if action == "truncate":
        contents = contents[:offset]
    elif action == "extend":
        contents += rng.randbytes(rng.randrange(1, 64))
    elif action == "flip" and contents:
        for _ in range(rng.randrange(1, 9)):
            contents[rng.randrange(len(contents))] ^= 1 << rng.randrange(8)
    elif action == "zeros":
        contents[offset : offset + 64] = bytes(min(64, len(contents) - offset))
    elif action == "twice":
        contents = contents * 2
    elif action == "empty":
        contents = bytearray()
    else:
        contents[offset : offset + 16] = rng.randbytes(min(16, len(contents) - offset))
    path.write_bytes(contents)
    extreme = " (extreme)" if path.suffix == ".safetensors" else ""
    return f"{path.name}: {action} at {offset}{extreme}"


def whole_file(rng: Random, directory: Path) -> str:
    path, other = (rng.choice(_files(directory)) for _ in range(2))
    action = rng.choice(
        ("pipe", "folder", "loop", "device", "dangling", "socket", "remove", "copy", "swap", "unreadable")
    )
    contents = other.read_bytes()
    if action == "swap":
        other.write_bytes(path.read_bytes())
        path.write_bytes(contents)
        return f"{path.name}: swap with {other.name}"
    path.unlink()
    if action == "pipe":
        os.mkfifo(path)
    elif action == "folder":
        path.mkdir()
    elif action == "loop":
        path.symlink_to(path)
    elif action == "device":
        path.symlink_to(rng.choice(("/dev/zero", "/dev/tty", "/proc/self/mem")))
    elif action == "dangling":
        path.symlink_to(directory / "nothing")
    elif action == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(path))
    elif action == "copy":
        path.write_bytes(contents)
    elif action == "unreadable":
        path.write_bytes(contents)
        path.chmod(0)
    return f"{path.name}: {action} {other.name if action == 'copy' else ''}"


def more_files(rng: Random, directory: Path) -> str:
    names = (
        *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "spiece.model"),
        *("tokenizer.1.0.json", "model.safetensors.index.json", "model_int8.safetensors", "adapter_model.safetensors"),
        *("pytorch_model.bin", "evil.py", "chat_template.jinja", "fingerprints.safetensors", "generation_config.json"),
        *("adapter_config.json", ".sweet-committed", "exit_1", "README.md"),
    )
    path = directory / rng.choice(names)
    if path.exists():
        return "nothing"
    source = rng.choice((None, *_files(directory)))
    path.write_bytes(
        rng.choice((b"", b"{}", b"[]", b"\x80\x04]", b"a\nb\n")) if source is None else source.read_bytes()
    )
    return f"{path.name}: added, of {None if source is None else source.name}"


MUTATIONS: tuple[Mutation, ...] = (
    *(json_field,) * 6,
    *(added_field, json_text),
    *(tensor_value,) * 3,
    *(tensor_shape,) * 3,
    *(tensor_dtype, tensor_names, header, header, file_bytes, file_bytes, whole_file, more_files),
)


def mutate(seed: int, directory: Path) -> str:
    """Applies one mutation, which depends only on the seed and the contents of the folder."""
    rng = Random(seed)
    return rng.choice(MUTATIONS)(rng, directory)


# ---------------------------------------------------------------------------------------------------- places


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size < 1 << 24)


def _json_files(directory: Path, pattern: str = "*.json") -> list[Path]:
    """Returns the JSON files, without pipes and devices, which would block."""
    return sorted(path for path in directory.rglob(pattern) if path.is_file())


def _weights(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("model*.safetensors") if path.is_file())


def _tensor(rng: Random, directory: Path) -> tuple[Path, dict[str, RawTensor], str]:
    path = rng.choice(_weights(directory))
    tensors = read_tensors(path)
    return path, tensors, rng.choice(sorted(tensors))


def _with_integer(tensor: RawTensor, value: int, rng: Random) -> RawTensor:
    values = tensor.values.reshape(-1)
    values[rng.randrange(len(values))] = np.array(value, np.int64).astype(values.dtype)
    return RawTensor(tensor.dtype, tensor.shape, values.tobytes())


def _parsed(path: Path) -> Any:
    return json.loads(path.read_text())


def _random_entry(rng: Random, contents: Any) -> tuple[Any, Any, str]:
    """Returns a random container in parsed JSON, one of its keys, and the path to it; outer ones are more likely."""
    container, key, path = None, None, []
    here = contents
    while isinstance(here, (dict, list)) and here and (container is None or rng.random() < 0.6):
        container = here
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        path.append(str(key)[:20])
        here = container[key]
    return container, key, ".".join(path)


def _is(container: Any) -> bool:
    return isinstance(container, dict)


def _format(value: Any) -> str:
    return ascii(value)[:40]


def copy_artifact(source: Path, target: Path) -> Path:
    """Copies an artifact."""
    return Path(shutil.copytree(source, target))
