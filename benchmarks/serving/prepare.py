"""Converts the plain models for the other servers, and names the files that the servers load.

    .venv-bench/bin/python benchmarks/serving/prepare.py --runs RUNS

RUNS are those of `benchmarks/decoupled/run.py`, with the artifacts of `benchmarks/decoupled/certified.py`: a plain
fine-tuning, and the same model with exits, which agrees with it on the labels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from record import RUNS

MAX_LENGTH = 512
MODELS = RUNS / "serving" / "models"
TASKS = ("sst2", "ag_news")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS / "decoupled")
    parser.add_argument("--folder", type=Path, default=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for task in TASKS:
        print(task, prepare(task, options.runs / f"{task}-0", options.folder / task, options.threads), flush=True)


def prepare(task: str, run: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Writes `files.json` into a folder: the artifact, the plain model, and the converted files."""
    from end_to_end.prepare import calibration_batch
    from end_to_end.rows import rows_of
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from peers import engine_class

    folder.mkdir(parents=True, exist_ok=True)
    calibration = calibration_batch(run, rows_of(task))
    files = {"artifact": str(run / "accelerated"), "plain": str(run / "plain")}
    for key, name, file in (
        ("onnxruntime", "ONNX Runtime INT8", "model.onnx"),
        ("onnxruntime float32", "ONNX Runtime fp32", "model.onnx"),
        ("openvino", "OpenVINO INT8", "model.xml"),
    ):
        files[key] = str(engine_class(name)(run / "plain", calibration, threads).folder / file)
    infinity = folder / "infinity"
    if not (infinity / "model_quantized.onnx").is_file():
        shutil.copytree(run / "plain", infinity, dirs_exist_ok=True)
        _fit_for_infinity(infinity)
        _export(run / "plain", infinity / "model.onnx")
        quantize_dynamic(
            str(infinity / "model.onnx"),
            str(infinity / "model_quantized.onnx"),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    files["infinity"] = str(infinity)
    (folder / "files.json").write_text(json.dumps(files, indent=1) + "\n", encoding="utf-8")
    return files


def _fit_for_infinity(folder: Path) -> None:
    """Writes names of labels, without which Infinity takes a model for a reranker, and a limit of 512 tokens."""
    from transformers import AutoConfig

    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    labels = len(AutoConfig.from_pretrained(folder).id2label)
    settings["id2label"] = {str(place): f"LABEL_{place}" for place in range(labels)}
    settings["label2id"] = {f"LABEL_{place}": place for place in range(labels)}
    path.write_text(json.dumps(settings), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["model_max_length"] = MAX_LENGTH
    settings.pop("max_length", None)
    path.write_text(json.dumps(settings), encoding="utf-8")


def _export(model: Path, path: Path) -> None:
    import torch
    from peers.huggingface import example_inputs, plain_model

    plain = plain_model(model, "eager")
    given = example_inputs(plain)
    torch.onnx.export(
        plain,
        tuple(given.values()),
        str(path),
        input_names=list(given),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch_size", 1: "sequence_length"} for name in given},
        opset_version=17,
        dynamo=False,
    )


def files_of(task: str, folder: Path = MODELS) -> dict[str, Path]:
    """Returns the files that `prepare` named.

    Raises:
        SystemExit: nothing was prepared.
    """
    path = folder / task / "files.json"
    if not path.is_file():
        raise SystemExit(f"{path} is missing; run benchmarks/serving/prepare.py first.")
    return {name: Path(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}


if __name__ == "__main__":
    main()
