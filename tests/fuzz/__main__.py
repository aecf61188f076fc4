"""Fuzzes damaged artifacts, invalid calls and the tokenizer: `make fuzz ARGS='--artifacts 20000 --inputs 10000'`."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from pathlib import Path

from itrex_sweet.runtime.native import library
from tests.artifact_kinds import KINDS
from tests.fuzz import tokenization
from tests.fuzz.artifacts import ArtifactCase, run_artifact
from tests.fuzz.inputs import InputCase, Models, run_input
from tests.fuzz.workers import Limits, find_failures

TEXTS_PER_SEED = 20000  # of one random truncation side and of one setting of special tokens


def main() -> int:
    """Runs the fuzzer; returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=int, default=2000, help="number of damaged artifacts")
    parser.add_argument("--inputs", type=int, default=2000, help="number of invalid calls, each on every backend")
    parser.add_argument("--texts", type=int, default=20000, help="number of texts per kind of tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case; the others follow")
    parser.add_argument("--backends", nargs="+", default=["native", "torch"], help="backends to compare")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), help="kinds of artifacts")
    parser.add_argument("--artifact-case", metavar="CASE", help="run only this case, in the form that a finding prints")
    parser.add_argument("--input-case", metavar="CASE", help="run only this case, in the form that a finding prints")
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit per case")
    parser.add_argument("--memory", type=int, default=2048, help="memory limit per case in MiB")
    parser.add_argument("--library-dir", type=Path, help="directory of the native engine's libraries")
    args = parser.parse_args()
    if differences := tokenize(args.texts, args.seed):
        return differences
    if args.library_dir is not None:
        library._DIRECTORY = args.library_dir.resolve()
    seeds = functools.partial(range, args.seed)
    artifacts = [ArtifactCase.from_seed(seed, tuple(args.kinds)) for seed in seeds(args.seed + args.artifacts)]
    inputs = [InputCase.from_seed(seed) for seed in seeds(args.seed + args.inputs)]
    if args.artifact_case or args.input_case:
        artifacts = [ArtifactCase.parse(args.artifact_case)] if args.artifact_case else []
        inputs = [InputCase.parse(args.input_case)] if args.input_case else []
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        return fuzz(artifacts, inputs, Path(folder), tuple(args.backends), Limits(args.seconds, args.memory << 20))


def tokenize(texts: int, seed: int) -> int:
    """Compares the native tokenizer with the library on random texts and prints the differences; returns 1 if any."""
    if not texts:
        return 0
    found = 0
    for kind in tokenization.KINDS:
        outcomes = [
            tokenization.compare(kind, min(TEXTS_PER_SEED, texts - first), seed + first)
            for first in range(0, texts, TEXTS_PER_SEED)
        ]
        compared, left = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("texts", "left"))
        print(f"tokenizer {kind}: {compared} texts, {left} of them left to the library", flush=True)
        for difference in (outcome.difference for outcome in outcomes if outcome.difference):
            found = 1
            print(f"    {difference}", flush=True)
    return found


def fuzz(
    artifacts: list[ArtifactCase], inputs: list[InputCase], folder: Path, backends: tuple[str, ...], limits: Limits
) -> int:
    """Runs cases in a folder and prints the findings; returns 1 if there are any."""
    pristine = folder / "pristine"
    for kind, write in KINDS.items():
        write(pristine / kind)
    models = Models(pristine, backends)
    artifact_findings = find_failures(
        artifacts, lambda case, work: run_artifact(case, pristine, work, backends), folder, limits
    )
    input_findings = find_failures(inputs, lambda case, _: run_input(case, models), folder, limits)
    found = 0
    for option, part in (("--artifact-case", artifact_findings), ("--input-case", input_findings)):
        for finding in part:
            found += 1
            print(f"{option} {finding.case}\n    {finding.message}\n", flush=True)
    print(f"{len(artifacts)} artifacts and {len(inputs)} calls on {', '.join(backends)}: {found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
