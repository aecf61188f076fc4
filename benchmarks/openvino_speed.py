"""Speed of the `openvino` backend beside the native engine, and beside one OpenVINO model of all layers.

    python benchmarks/openvino_speed.py --int8 ARTIFACT

Sentences of SST-2 validation, in batches of 32 in their order and one by one. The model of all layers is that of
`itrex-sweet export --format openvino`, with the same INT8 layers, on batches padded to their longest row. The runs are
interleaved in one process, warm, with equal threads; medians.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from peers.base import Engine, padded
from peers.contenders import accuracy_percent, peer_contenders, print_medians, split_batches
from peers.sweet import Sweet
from record import check_idle_machine, measure, provenance, read_task, write_result

from itrex_sweet.commands.bench import threads
from itrex_sweet.export.openvino import FULL_DEPTH_FILE
from itrex_sweet.export.subgraphs import export_subgraphs
from itrex_sweet.runtime.dense.openvino import compile_on_cpu
from itrex_sweet.runtime.ragged import TokenBatch

BACKENDS = ("native", "openvino")
ALL_LAYERS = "OpenVINO model of all layers"


class ExportedModel(Engine):
    """The exported model at full depth."""

    name = ALL_LAYERS

    def __init__(self, folder: Path, calibration: TokenBatch, threads: int):
        import openvino

        super().__init__(folder, calibration, threads)
        compiled = compile_on_cpu(openvino.Core().read_model(folder / FULL_DEPTH_FILE), threads)
        self._names = [port.any_name for port in compiled.inputs]
        self._request = compiled.create_infer_request()

    def inputs(self, batch: TokenBatch) -> list[np.ndarray]:
        """Returns the arrays in the order of the model's inputs."""
        named = dict(zip(("input_ids", "attention_mask", "token_type_ids"), padded(batch), strict=True))
        return [named[name] for name in self._names]

    def forward(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Computes logits."""
        return self._request.infer(inputs, share_inputs=True)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--int8", type=Path, required=True, help="INT8 artifact trained on SST-2, static or smooth")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=872, help="sentences of SST-2 validation")
    parser.add_argument("--busy", action="store_true", help="skip the check that the machine is idle")
    options = parser.parse_args()
    if not options.busy:
        check_idle_machine()
    with threads(options.threads):
        print(write_result("openvino_speed", compare(options)))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measures milliseconds per text and accuracy."""
    ours = [Sweet(options.int8, backend) for backend in BACKENDS]
    texts, labels = read_task("sst2", "validation", options.rows)
    rows, truth = ours[0].model.read(texts), np.asarray(labels)
    with tempfile.TemporaryDirectory() as folder:
        export_subgraphs(options.int8, folder, format="openvino")
        exported = ExportedModel(Path(folder), rows, options.threads)
    result: dict[str, Any] = {
        **provenance(),
        "openvino": metadata.version("openvino"),
        "settings": {name: getattr(options, name) for name in ("threads", "repeats", "rows", "busy")},
        "exits": list(ours[0].model.artifact.exits),
        "thresholds": list(ours[0].model.policy.thresholds),
        "mean_tokens": round(float(rows.lengths.mean()), 1),
        "milliseconds_per_text": {},
    }
    batches = split_batches(rows)
    for name in ("natural", "one by one"):
        contenders = peer_contenders({ALL_LAYERS: exported}, name, batches[name])
        for each in ours:
            for title, policy in (("stored policy", each.model.policy), ("full depth", each.full_depth())):
                contenders[f"{each.name}, {title}"] = each.batch_by_batch(batches[name], policy)
        times = measure(contenders, options.repeats, len(rows))
        result["milliseconds_per_text"][name] = times
        print_medians(name, times)
    answers = {each.name: each.answers(rows, each.model.policy) for each in ours}
    result["mean_layers"] = {each.name: round(each.mean_layers(answers[each.name]), 3) for each in ours}
    logits = {ALL_LAYERS: exported.answers("natural")}
    logits |= {f"{each.name}, full depth": each.answers(rows, each.full_depth()).logits for each in ours}
    logits |= {f"{name}, stored policy": found.logits for name, found in answers.items()}
    result["accuracy"] = {name: accuracy_percent(each, truth) for name, each in logits.items()}
    native, openvino = (answers[each.name].logits.argmax(-1) for each in ours)
    result["same_label_as_native"] = round(float((native == openvino).mean()), 4)
    return result


if __name__ == "__main__":
    main()
