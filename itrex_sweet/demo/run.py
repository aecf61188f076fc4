"""Runs all steps on pretrained weights: generate a corpus, train, quantize, calibrate, predict, evaluate, and
accelerate a model without exits."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itrex_sweet.demo.corpus import LABELS, LEVELS, Review, make_corpus
from itrex_sweet.demo.weights import pretrained_directory
from itrex_sweet.errors import ArtifactError, SweetError
from itrex_sweet.evaluation.tables import percent
from itrex_sweet.supervision import supervised

if TYPE_CHECKING:
    from itrex_sweet.evaluation.evaluation import Evaluation

EXITS = (1, 2, 3, 4, 6)
MAX_DROP = 0.02  # of accuracy or agreement against full depth, with 95 % confidence
EXAMPLES_PER_LEVEL = 2
_SIZES = {"train": 1000, "calibration": 2600, "test": 800, "traffic": 2500}
_QUICK_SIZES = {"train": 640, "calibration": 1200, "test": 200, "traffic": 2000}
_QUANTIZATION_SHARE = 1 / 7  # of the calibration reviews; the others choose the thresholds


def run_demo(output: Path, quick: bool = False) -> None:
    """Runs the demo and writes data, models, tables, curves and examples to a folder.

    Args:
        output: created if missing; files of an earlier demo are replaced.
        quick: train on fewer reviews, for one epoch.

    Raises:
        SweetError: the pretrained weights or matplotlib are not installed, or a step failed.
        ArtifactError: the folder cannot be written.
    """
    from itrex_sweet.evaluation.plot import require_matplotlib
    from itrex_sweet.training.training_data import grouped_by_length

    start = time.perf_counter()
    weights = pretrained_directory()
    require_matplotlib()
    corpus = make_corpus(**(_QUICK_SIZES if quick else _SIZES))
    files = _write_corpus(corpus, output)
    model, int8, plain, fast = (output / name for name in ("model", "model-int8", "plain", "fast"))

    _heading(f"1. Train with exits after {', '.join(map(str, EXITS))} of 6 layers: {len(corpus['train'])} reviews")
    _run("train", "--model", weights, "--train-file", files["train"], "--exits", ",".join(map(str, EXITS)),
         "--learning-rate", "1e-4", "--num-train-epochs", "1" if quick else "2", "--max-length", "64",
         *(f"--{name}={value}" for name, value in grouped_by_length().items()), "--output", model)  # fmt: skip

    _heading("2. Quantize to INT8")
    _run("quantize", model, "--calibration", files["quantization"], "--output", int8)

    _heading("3. Calibrate: choose thresholds with a guarantee, on other reviews, by time measured on this machine")
    if _run("calibrate", int8, "--data", files["calibration"], "--max-accuracy-drop", str(MAX_DROP),
            "--plot", output / "calibration.png", may_fail=True) is None:  # fmt: skip
        print("The thresholds stay unchanged, without a guarantee.")

    _heading("4. Predict in a new process")
    _answer_examples(int8, corpus["test"], output)

    _heading(f"5. Evaluate on {len(corpus['test'])} reviews that no earlier step used")
    _measure({"float32": model, "INT8": int8}, corpus["test"], output)

    _heading(f"6. Accelerate a model without exits, with {len(corpus['traffic'])} reviews without labels")
    print("The model of step 1 without its exits, equal to plain fine-tuning, stands for a deployed model.")
    _write_plain(model, plain)
    if _run("accelerate", plain, "--traffic", files["traffic"], "--output", fast, "--epochs", "1" if quick else "2",
            "--learning-rate", "1e-4", "--max-agreement-drop", str(MAX_DROP), may_fail=True) is None:  # fmt: skip
        print("The model was not accelerated, for the reason above.")
    print(
        f"\n{output}: data/, model/ and model-int8/ (with their cards, README.md), examples.jsonl, evaluation.json, "
        "curve.png, calibration.png, plain/, and fast/ with a card and curve.png"
    )
    print(f"{time.perf_counter() - start:.0f} s in all")


def _write_corpus(corpus: dict[str, list[Review]], output: Path) -> dict[str, Path]:
    first = round(_QUANTIZATION_SHARE * len(corpus["calibration"]))
    parts = {
        "train": corpus["train"],
        "quantization": corpus["calibration"][:first],
        "calibration": corpus["calibration"][first:],
        "test": corpus["test"],
    }
    rows = {
        name: [{"text": review.text, "label": LABELS[review.label], "level": review.level} for review in reviews]
        for name, reviews in parts.items()
    }
    rows["traffic"] = [{"text": review.text} for review in corpus["traffic"]]
    files = {name: output / "data" / f"{name}.jsonl" for name in rows}
    try:
        (output / "data").mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"cannot write into {output} ({error}).") from error
    return files


def _write_plain(source: Path, directory: Path) -> None:
    """Writes the model of an artifact as transformers saves it, without exits."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # no warning about the weights of the exits, which are left out on purpose
    model = AutoModelForSequenceClassification.from_pretrained(source, trust_remote_code=False)
    del model.config.sweet
    try:
        model.save_pretrained(directory)
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(directory)
    except OSError as error:
        raise ArtifactError(f"cannot write into {directory} ({error}).") from error


def _answer_examples(directory: Path, reviews: Sequence[Review], output: Path) -> None:
    """Predicts the first reviews of every level with `itrex-sweet predict`, and prints label and exit of each."""
    chosen = [
        review
        for level in LEVELS
        for review in [review for review in reviews if review.level == level][:EXAMPLES_PER_LEVEL]
    ]
    texts = "".join(review.text + "\n" for review in chosen)
    answers = [json.loads(line) for line in _run("predict", directory, text=texts).splitlines()]
    lines = []
    for review, answer in zip(chosen, answers, strict=True):
        verdict = "right" if answer["label"] == LABELS[review.label] else "WRONG"
        print(
            f"{review.level:<11}exit {answer['exit_layer']}  {answer['label']:<9}{answer['score']:.2f} {verdict}  "
            f"{review.text}"
        )
        lines.append(json.dumps({"text": review.text, "level": review.level, "gold": LABELS[review.label], **answer}))
    (output / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measure(directories: Mapping[str, Path], reviews: Sequence[Review], output: Path) -> None:
    """Prints tables per exit and per level, and writes curves and model cards."""
    from itrex_sweet.artifact import INT8, write_card
    from itrex_sweet.artifact.fingerprints import Fingerprints
    from itrex_sweet.evaluation.evaluation import evaluate_models
    from itrex_sweet.evaluation.model_card import render_card
    from itrex_sweet.evaluation.plot import plot_curves
    from itrex_sweet.modeling import SweetModelForSequenceClassification

    models = {
        name: SweetModelForSequenceClassification.from_pretrained(directory) for name, directory in directories.items()
    }
    texts, labels = [review.text for review in reviews], [review.label for review in reviews]
    evaluations = evaluate_models(models, texts, labels, timed_points=6)
    for evaluation, model in zip(evaluations, models.values(), strict=True):
        print(f"{evaluation.name}, {model.backend.name} backend\n\n{evaluation.report.table()}\n")
        print(f"{evaluation.curve.table()}\n")
        _print_outcome(evaluation)
        _print_levels(model.predict(texts), reviews)
        print()
        card = render_card(model.artifact, evaluation, title="Review sentiment", data="the demo's test reviews")
        write_card(model.artifact, card, Fingerprints.of(model.read(texts).rows()))
    if any(model.artifact.precision == INT8 and model.backend.name == "torch" for model in models.values()):
        print("The native engine is not available here. The torch backend computes INT8 exactly, but slowly.")
    contents = json.dumps([evaluation.to_dict() for evaluation in evaluations], indent=2)
    (output / "evaluation.json").write_text(contents + "\n", encoding="utf-8")
    curves = {evaluation.name: evaluation.curve for evaluation in evaluations}
    reports = {evaluation.name: evaluation.report for evaluation in evaluations}
    plot_curves(curves, output / "curve.png", "Reviews of graded difficulty", reports)


def _print_outcome(evaluation: Evaluation) -> None:
    """Prints speed-up and accuracy of the stored policy."""
    report = evaluation.report
    full = report.exits[-1]
    print(
        f"{evaluation.name}, stored policy: {full.milliseconds / report.milliseconds:.1f} times faster than full depth "
        f"({report.milliseconds:.2f} and {full.milliseconds:.2f} ms per text), {report.mean_layers:.2f} of "
        f"{full.layers_run} layers, accuracy {percent(report.metric)} and {percent(full.metric)}."
    )
    if evaluation.guarantee is not None:
        print(f"It was {evaluation.guarantee.sentence()}")
    print()


def _print_levels(answers: Sequence[dict], reviews: Sequence[Review]) -> None:
    print(f"{'level':<11}{'accuracy':>9}" + "".join(f"{f'exit {exit_}':>9}" for exit_ in EXITS))
    for level in LEVELS:
        of_level = [(answer, review) for answer, review in zip(answers, reviews, strict=True) if review.level == level]
        right = np.mean([answer["label"] == LABELS[review.label] for answer, review in of_level])
        shares = [np.mean([answer["exit_layer"] == exit_ for answer, _ in of_level]) for exit_ in EXITS]
        print(f"{level:<11}{right:>9.1%}" + "".join(f"{share:>9.1%}" for share in shares))


def _heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def _run(verb: str, *arguments: str | Path, text: str | None = None, may_fail: bool = False) -> str | None:
    """Prints a command line and runs it in a child process.

    Args:
        text: its standard input.
        may_fail: return `None` if it fails.

    Returns:
        Its standard output, if `text` is given.

    Raises:
        SweetError: it failed.
    """
    words = [verb, *map(str, arguments)]
    print("$ " + ("… | " if text is not None else "") + shlex.join(["itrex-sweet", *words]), flush=True)
    command = [sys.executable, "-m", "itrex_sweet.cli", *words]
    pipe = None if text is None else subprocess.PIPE
    with supervised(command, stdin=pipe, stdout=pipe, text=True) as process:
        printed = process.communicate(text)[0]
    if process.returncode and may_fail:
        return None
    if process.returncode:
        raise SweetError(f"itrex-sweet {verb} failed with exit status {process.returncode}; its messages are above.")
    return printed or ""
