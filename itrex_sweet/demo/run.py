"""The whole path on real weights: write a corpus, train, quantize, calibrate, answer, measure; and accelerate a model
that has no exits."""

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
GIVEN_UP = 0.02  # of accuracy or agreement at most, against full depth, for leaving early; with 95 % confidence
EXAMPLES_PER_LEVEL = 2
_SIZES = {"train": 2400, "calibration": 4200, "test": 1000, "traffic": 4500}
_QUICK_SIZES = {"train": 640, "calibration": 1200, "test": 200, "traffic": 2000}
_QUANTIZED_ON = 1 / 7  # of the calibration reviews; the others calibrate


def run_demo(output: Path, quick: bool = False) -> None:
    """Runs the demo and leaves data, models, tables, curve and examples in a folder.

    Args:
        output: made if missing; files of an earlier demo there are replaced.
        quick: fewer reviews, and one epoch.

    Raises:
        SweetError: the pretrained weights or matplotlib are not installed, or a step failed.
        ArtifactError: the folder cannot be written.
    """
    from itrex_sweet.evaluation.plot import require_matplotlib

    start = time.perf_counter()
    weights = pretrained_directory()
    require_matplotlib()
    corpus = make_corpus(**(_QUICK_SIZES if quick else _SIZES))
    files = _write_corpus(corpus, output)
    model, int8, plain, fast = (output / name for name in ("model", "model-int8", "plain", "fast"))

    _heading(f"1. Train with exits after {', '.join(map(str, EXITS))} of 6 layers: {len(corpus['train'])} reviews")
    _run("train", "--model", weights, "--train-file", files["train"], "--exits", ",".join(map(str, EXITS)),
         "--learning-rate", "1e-4", "--num-train-epochs", "1" if quick else "2", "--max-length", "64",
         "--output", model)  # fmt: skip

    _heading("2. Quantize to INT8")
    _run("quantize", model, "--calibration", files["quantization"], "--output", int8)

    _heading("3. Calibrate: thresholds that keep a promise, on other reviews, in time measured here")
    for directory in (model, int8):
        picture = output / f"calibration-{directory.name}.png"
        kept = _run("calibrate", directory, "--data", files["calibration"], "--max-accuracy-drop",
                    str(GIVEN_UP), "--plot", picture, may_fail=True)  # fmt: skip
        if kept is None:
            print("So the thresholds stay what they were, without a promise.")

    _heading("4. Answer in a new process")
    _answer_examples(int8, corpus["test"], output)

    _heading(f"5. Measure on {len(corpus['test'])} reviews that had no part in all this")
    _measure({"float32": model, "INT8": int8}, corpus["test"], output)

    _heading(f"6. The same for a model without exits, with {len(corpus['traffic'])} reviews without labels")
    print("The model of step 1 without its exits is what plain fine-tuning leaves; take it for one that is deployed.")
    _write_plain(model, plain)
    if _run("accelerate", plain, "--traffic", files["traffic"], "--output", fast, "--epochs", "1" if quick else "2",
            "--learning-rate", "1e-4", "--max-agreement-drop", str(GIVEN_UP), may_fail=True) is None:  # fmt: skip
        print("So nothing came of it; the reason stands above.")
    print(
        f"\n{output}: data/, model/ and model-int8/ (with their cards, README.md), examples.jsonl, evaluation.json, "
        "curve.png, calibration-model.png, calibration-model-int8.png, plain/, and fast/ with a card and curve.png"
    )
    print(f"{time.perf_counter() - start:.0f} s in all")


def _write_corpus(corpus: dict[str, list[Review]], output: Path) -> dict[str, Path]:
    first = round(_QUANTIZED_ON * len(corpus["calibration"]))
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

    logging.set_verbosity_error()  # that exits are left behind is no news
    model = AutoModelForSequenceClassification.from_pretrained(source, trust_remote_code=False)
    del model.config.sweet
    try:
        model.save_pretrained(directory)
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(directory)
    except OSError as error:
        raise ArtifactError(f"cannot write into {directory} ({error}).") from error


def _answer_examples(directory: Path, reviews: Sequence[Review], output: Path) -> None:
    """The first reviews of every level, answered by `itrex-sweet predict`, with the exit they took."""
    chosen = [
        review
        for level in LEVELS
        for review in [review for review in reviews if review.level == level][:EXAMPLES_PER_LEVEL]
    ]
    texts = "".join(review.text + "\n" for review in chosen)
    answers = [json.loads(line) for line in _run("predict", directory, text=texts).splitlines()]
    lines = []
    for review, answer in zip(chosen, answers, strict=True):
        right = "right" if answer["label"] == LABELS[review.label] else "WRONG"
        print(
            f"{review.level:<11}exit {answer['exit_layer']}  {answer['label']:<9}{answer['score']:.2f} {right}  "
            f"{review.text}"
        )
        lines.append(json.dumps({"text": review.text, "level": review.level, "gold": LABELS[review.label], **answer}))
    (output / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measure(directories: Mapping[str, Path], reviews: Sequence[Review], output: Path) -> None:
    """Per-exit tables, curves and model cards, and where the levels of difficulty leave."""
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
    evaluations = evaluate_models(models, texts, labels)
    for evaluation, model in zip(evaluations, models.values(), strict=True):
        print(f"{evaluation.name}, {model.backend.name} backend\n\n{evaluation.report.table()}\n")
        print(f"{evaluation.curve.table()}\n")
        _print_outcome(evaluation)
        _print_levels(model.predict(texts), reviews)
        print()
        card = render_card(model.artifact, evaluation, title="Review sentiment", data="the demo's test reviews")
        write_card(model.artifact, card, Fingerprints.of(model.read(texts).rows()))
    if any(model.artifact.precision == INT8 and model.backend.name == "torch" for model in models.values()):
        print("The native engine was not built here, and the torch backend computes INT8 exactly, but slowly.")
    contents = json.dumps([evaluation.to_dict() for evaluation in evaluations], indent=2)
    (output / "evaluation.json").write_text(contents + "\n", encoding="utf-8")
    curves = {evaluation.name: evaluation.curve for evaluation in evaluations}
    reports = {evaluation.name: evaluation.report for evaluation in evaluations}
    plot_curves(curves, output / "curve.png", "Reviews of graded difficulty", reports)


def _print_outcome(evaluation: Evaluation) -> None:
    """Prints the gain and the loss of the stored policy, from the numbers of the table."""
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
    """Runs a verb of the command line in a process of its own, shown as a person would type it.

    Returns:
        what it printed, if it was given `text` on standard input; `None` if it failed and may.
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
        raise SweetError(f"itrex-sweet {verb} ended with {process.returncode}; what it said stands above.")
    return printed or ""
