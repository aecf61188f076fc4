"""Classifies one text in a fresh process, whose time from start to end is the cold start.

    python benchmarks/end_to_end/cold.py KIND PATH TOKENIZER      # of an artifact, a model, or a pipeline

Every process imports only what it needs, as a small service would.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TEXT = "an unexpectedly moving and well acted film"
KINDS = ("ours", "openvino", "onnxruntime", "torch", "sklearn")
REPEATS = 3


def seconds(kind: str, path: Path, tokenizer: Path, pair: bool) -> float:
    """Returns the median seconds from the start of a process to its end, with the files in the page cache."""
    command = [sys.executable, __file__, kind, str(path), str(tokenizer), *(["pair"] if pair else [])]
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> None:
    kind, path, tokenizer, *pair = sys.argv[1:]
    text: Any = (TEXT, TEXT) if pair else TEXT
    print(globals()[f"_{kind}"](Path(path), Path(tokenizer), text))


def _ours(folder: Path, _: Path, text: Any) -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    import itrex_sweet

    return itrex_sweet.load(folder).predict([text])


def _arrays(tokenizer: Path, text: Any) -> Any:
    import numpy as np
    from tokenizers import Tokenizer

    row = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode_batch_fast([text])[0]
    return [np.array([each]) for each in (row.ids, row.attention_mask, row.type_ids)]


def _openvino(folder: Path, tokenizer: Path, text: Any) -> Any:
    import openvino

    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return next(iter(compiled(_arrays(tokenizer, text)[: len(compiled.inputs)]).values())).argmax()


def _onnxruntime(folder: Path, tokenizer: Path, text: Any) -> Any:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    named = dict(zip(("input_ids", "attention_mask", "token_type_ids"), _arrays(tokenizer, text), strict=True))
    types = {port.name: np.int32 if "int32" in port.type else np.int64 for port in session.get_inputs()}
    return session.run(None, {name: named[name].astype(kind) for name, kind in types.items()})[0].argmax()


def _torch(folder: Path, tokenizer: Path, text: Any) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids, mask, types = map(torch.from_numpy, _arrays(tokenizer, text))
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits.argmax()


def _sklearn(path: Path, _: Path, text: Any) -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import joblib

    return joblib.load(path).predict([text])


if __name__ == "__main__":
    main()
