"""Write an artifact's per-exit subgraphs as files for other runtimes.

Writes one file per subgraph (embed, probe_1, advance_1_4, ...), each compared with the model, and subgraphs.json,
which describes how to run them: inputs and outputs of every file, exits, policy, labels. The format openvino adds the
model at full depth, openvino_model.xml, for optimum-intel's OVModelForSequenceClassification.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from itrex_sweet.commands import options
from itrex_sweet.export.layout import DEFAULT_FORMAT, DESCRIPTION_FILE, FORMATS

SUMMARY = "write an artifact's subgraphs as ONNX, OpenVINO or TorchScript"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet export`."""
    parser.add_argument("directory", metavar="DIR", help="an artifact, or its name on the Hub")
    parser.add_argument("--format", choices=FORMATS, default=DEFAULT_FORMAT, help="(default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the files")
    options.add_threads(parser)
    parser.add_argument("--json", action="store_true", help=f"print the content of {DESCRIPTION_FILE}")


def run(args: argparse.Namespace) -> int:
    """Exports the subgraphs and prints the paths of the files."""
    from itrex_sweet.export.subgraphs import export_subgraphs
    from itrex_sweet.hub import fetch
    from itrex_sweet.runtime.torch_threads import computing_with

    with computing_with(args.threads):
        described = export_subgraphs(fetch(args.directory), args.output, format=args.format)
    if args.json:
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return 0
    subgraphs = [described["subgraphs"][step["run"]] for step in described["chain"]]
    subgraphs += filter(None, [described.get("full_depth")])
    for part in subgraphs:
        print(f"{args.output / part['file']}  {(part['bytes'] + part.get('weights_bytes', 0)) / 1e6:.1f} MB")
    print(f"{args.output / DESCRIPTION_FILE}")
    return 0
