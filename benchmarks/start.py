"""Start-up: seconds from the start of a process to its first answer, memory, and size of the environment.

    python benchmarks/start.py ARTIFACT ARTIFACT_INT8

compares, each in fresh processes that take turns:

* `itrex_sweet.load` in an environment with NumPy, safetensors and tokenizers alone, on both artifacts;
* the same in this, full environment;
* `SweetModelForSequenceClassification.from_pretrained` in this environment;
* ONNX Runtime and tokenizers, on the plain model of ARTIFACT in dynamic INT8, in an environment with these two alone.

The environments are made by `python -m venv` and pip in `benchmarks/runs/start`. The page cache is warm. The result is
written to `benchmarks/results/start.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from record import ROOT, RUNS, check_idle_machine, provenance, write_result

TEXT = "the film is a good way to spend an evening"
FOLDER = RUNS / "start"
PACKAGES = {"light": ("numpy", "safetensors", "tokenizers"), "onnxruntime": ("onnxruntime", "tokenizers")}
NOT_NEEDED = ("pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils-precedence", "wheel")

_REPORT = """
facts = dict(line.split(":", 1) for line in open("/proc/self/status") if line.startswith(("VmRSS", "VmHWM")))
print(json.dumps({name: int(value.split()[0]) / 1024 for name, value in facts.items()}), flush=True)
"""
LOAD = (
    """
import json, sys
import itrex_sweet
classifier = itrex_sweet.load(sys.argv[1], threads=int(sys.argv[2]))
print(classifier.predict([sys.argv[3]])[0]["label"], flush=True)
"""
    + _REPORT
)
TRANSFORMERS = (
    """
import json, sys
from itrex_sweet import SweetModelForSequenceClassification
model = SweetModelForSequenceClassification.from_pretrained(sys.argv[1], threads=int(sys.argv[2]))
print(model.predict([sys.argv[3]])[0]["label"], flush=True)
"""
    + _REPORT
)
ONNX = (
    """
import json, sys
import numpy as np
import onnxruntime
from tokenizers import Tokenizer
folder, threads, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
encoding = tokenizer.encode(text)
values = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
types = {port.name: np.int32 if "int32" in port.type else np.int64 for port in session.get_inputs()}
logits = session.run(None, {name: np.array([values[name]], types[name]) for name in types})[0]
print(int(logits.argmax()), flush=True)
"""
    + _REPORT
)


@dataclass(frozen=True)
class Contender:
    """One way to a first answer.

    Args:
        python: interpreter of its environment.
        script: prints the answer, then its memory as JSON.
        folder: that it loads.
        environment: name of the environment.
    """

    python: Path
    script: str
    folder: Path
    environment: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="float32 artifact of BERT's family")
    parser.add_argument("int8", type=Path, help="INT8 artifact of the same model")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    light, onnxruntime, full = environment("light"), environment("onnxruntime"), Path(sys.executable)
    onnx = onnx_folder(args.artifact, args.threads)
    contenders = {
        "itrex_sweet.load, INT8": Contender(light, LOAD, args.int8, "light"),
        "itrex_sweet.load, float32": Contender(light, LOAD, args.artifact, "light"),
        "itrex_sweet.load, INT8, full environment": Contender(full, LOAD, args.int8, "full"),
        "from_pretrained, INT8": Contender(full, TRANSFORMERS, args.int8, "full"),
        "from_pretrained, float32": Contender(full, TRANSFORMERS, args.artifact, "full"),
        "ONNX Runtime, dynamic INT8": Contender(onnxruntime, ONNX, onnx, "onnxruntime"),
    }
    check_idle_machine()
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for repeat in range(args.repeats + 1):
        for name, contender in contenders.items():
            facts = run(contender, args.threads)
            if repeat > 0:  # the first warms the page cache
                measured[name].append(facts)
    package = megabytes([ROOT / "itrex_sweet"])
    sizes = {"light": size_of(light) + package, "full": size_of(full) + package, "onnxruntime": size_of(onnxruntime)}
    result = {
        **provenance(),
        "settings": {"repeats": args.repeats, "threads": args.threads, "text": TEXT, "packages": PACKAGES},
        "environments": {name: {"megabytes": round(size, 1)} for name, size in sizes.items()},
        "contenders": {
            name: {
                "environment": contenders[name].environment,
                "weights_megabytes": round(weights(contenders[name].folder), 1),
                **{key: round(float(np.median([row[key] for row in rows])), 3) for key in rows[0]},
                "seconds_quartiles": [
                    round(float(value), 3) for value in np.percentile([row["seconds"] for row in rows], (25, 75))
                ],
            }
            for name, rows in measured.items()
        },
    }
    print(json.dumps({name: result[name] for name in ("environments", "contenders")}, indent=1))
    write_result("start", result)


def run(contender: Contender, threads: int) -> dict[str, float]:
    """Starts a process and measures it.

    Returns:
        `seconds` from its start to its first answer, `resident_megabytes` after it, and `peak_megabytes`.
    """
    command = [str(contender.python), "-c", contender.script, str(contender.folder), str(threads), TEXT]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables, text=True) as process:
        answer = process.stdout.readline()
        seconds = time.perf_counter() - start
        facts, errors = process.stdout.read(), process.stderr.read()
    if process.returncode or not answer.strip():
        raise SystemExit(f"{contender.folder} in {contender.environment}: {errors}")
    memory = json.loads(facts)
    return {"seconds": seconds, "resident_megabytes": memory["VmRSS"], "peak_megabytes": memory["VmHWM"]}


def environment(name: str) -> Path:
    """Makes an environment with `PACKAGES[name]`, if it is not there; returns its interpreter."""
    python = FOLDER / name / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)
    return python


def onnx_folder(artifact: Path, threads: int) -> Path:
    """Converts the plain model of an artifact to dynamic INT8; returns the folder, with `tokenizer.json` beside it."""
    from peers.onnxruntime_int8 import FILE, OnnxRuntimeInt8

    folder = FOLDER / "onnx"
    folder.mkdir(parents=True, exist_ok=True)
    engine = OnnxRuntimeInt8(artifact, None, threads)
    (folder / "model.onnx").write_bytes((engine.folder / FILE).read_bytes())
    (folder / "tokenizer.json").write_bytes((artifact / "tokenizer.json").read_bytes())
    return folder


def weights(folder: Path) -> float:
    """Returns the megabytes of a model's weights on disk."""
    names = [*folder.glob("model*.safetensors"), *folder.glob("*.onnx")]
    return sum(path.stat().st_size for path in names) / 2**20


def size_of(python: Path) -> float:
    """Returns the megabytes of the packages of an environment, without pip and setuptools."""
    script = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True).stdout.strip())
    return megabytes(path for path in site.iterdir() if not path.name.startswith(NOT_NEEDED))


def megabytes(paths: Any) -> float:
    """Returns the size of files and folders on disk, byte code apart."""
    total = 0
    for path in paths:
        files = path.rglob("*") if path.is_dir() else [path]
        total += sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")
    return total / 2**20


if __name__ == "__main__":
    main()
