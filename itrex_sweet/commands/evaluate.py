"""Evaluate artifacts on labelled texts: a table per exit and the speed–accuracy curve.

Several artifacts are timed alternately and drawn in one picture. Milliseconds are wall-clock time per text, without
tokenization.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options
from itrex_sweet.data import Rows, read_rows
from itrex_sweet.defaults import DEFAULT_REPEATS, DEFAULT_TIMED_ROWS, METRIC_NAMES
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.tasks import REGRESSION, SINGLE_LABEL

if TYPE_CHECKING:
    from itrex_sweet.artifact import Artifact
    from itrex_sweet.evaluation import Evaluation, Report

SUMMARY = "print tables per exit and speed–accuracy curves of artifacts"

EVALUATION_FILE, PICTURE_FILE = "evaluation.json", "curve.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet evaluate`."""
    parser.add_argument("directories", nargs="+", metavar="DIR", help="artifacts, or their names on the Hub")
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="labelled texts: .csv, .tsv, .jsonl (.gz), .parquet, or a datasets name",
    )
    options.add_named_dataset(parser)
    parser.add_argument("--limit", type=options.positive, metavar="N", help="read only the first N rows")
    options.add_columns(parser)
    options.add_running(parser)
    parser.add_argument("--max-length", type=options.positive, metavar="N", help="maximum number of tokens per text")
    parser.add_argument(
        "--metric", choices=METRIC_NAMES,
        help="(default: accuracy; for multi-label models exact_match, for regression pearson)",
    )  # fmt: skip
    options.add_against(parser)
    group = parser.add_argument_group("timing")
    group.add_argument(
        "--timed-rows",
        type=options.count,
        metavar="N",
        help=f"number of rows to time, 0 for no timing (default: up to {DEFAULT_TIMED_ROWS}, fewer for slow models)",
    )
    group.add_argument(
        "--repeats",
        type=options.positive,
        default=DEFAULT_REPEATS,
        metavar="N",
        help="runs, of which the median is reported (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"write {EVALUATION_FILE} and {PICTURE_FILE} to this folder",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluates artifacts, prints the results and writes them."""
    from itrex_sweet.artifact import open_artifact
    from itrex_sweet.evaluation.evaluation import evaluate_models
    from itrex_sweet.evaluation.plot import plot_curves, require_matplotlib
    from itrex_sweet.evaluation.reference import open_reference
    from itrex_sweet.hub import fetch
    from itrex_sweet.metrics import METRICS
    from itrex_sweet.modeling import SweetModelForSequenceClassification

    if args.output is not None:
        require_matplotlib()
        make_folder(args.output)
    reference = None if args.against is None else open_reference(args.against)
    folders = {name: fetch(name) for name in args.directories}
    artifacts = {name: open_artifact(folder, weights=False) for name, folder in folders.items()}
    names, task = _same_labels(artifacts), next(iter(artifacts.values())).task.name
    rows = labelled_rows(args, args.data, args.split, None if task == REGRESSION else names, task)
    models = {
        shown: SweetModelForSequenceClassification.from_pretrained(
            folders[name],
            backend=args.backend,
            dtype=args.dtype,
            threshold=args.threshold,
            batch_size=args.batch_size,
            threads=args.threads,
        )
        for shown, name in _short_names(args.directories).items()
    }
    evaluations = evaluate_models(
        models,
        rows.texts,
        rows.labels or [],
        timed_rows=args.timed_rows,
        repeats=args.repeats,
        max_length=args.max_length,
        metric=None if args.metric is None else METRICS[args.metric],
        metric_name=args.metric,
        reference=reference,
        source=rows.source,
    )
    if args.output is not None:
        write_json(args.output / EVALUATION_FILE, [evaluation.to_dict() for evaluation in evaluations])
        curves = {evaluation.name: evaluation.curve for evaluation in evaluations}
        reports = {evaluation.name: evaluation.report for evaluation in evaluations}
        title = f"{Path(rows.source).name}, {len(rows)} rows"
        plot_curves(curves, args.output / PICTURE_FILE, title, reports)
    if args.json:
        print(json.dumps([evaluation.to_dict() for evaluation in evaluations], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(shown(evaluation) for evaluation in evaluations))
        for evaluation in evaluations:
            if args.threshold is None and evaluation.guarantee is not None:
                print(f"\n{evaluation.name}: {evaluation.guarantee.sentence()}")
    return 0


def shown(evaluation: Evaluation) -> str:
    """Returns both tables of an evaluation as text."""
    from itrex_sweet.evaluation.tables import score

    report, curve = evaluation.report, evaluation.curve
    thresholds = ", ".join(f"{value:g}" for value in report.policy.thresholds) or "none"
    lines = [
        f"{evaluation.name}: {report.rows} rows, thresholds {thresholds}",
        "",
        report.table(),
        "",
        *_labels(report),
        f"One threshold for all exits; area under the curve {curve.area:.4f}",
        "",
        curve.table(),
    ]
    if evaluation.reference is not None:
        compared = score(evaluation.reference["metric"], report.metric_name)
        lines += ["", f"{evaluation.reference['name']} has {report.metric_name} {compared} on the same rows."]
    if report.unanswered:
        lines += ["", f"{report.unanswered} rows have logits that are not finite and count as wrong."]
    if evaluation.timing:
        timing = evaluation.timing
        lines += [
            "",
            f"ms/row: medians of {timing['repeats']} runs over {timing['rows']} rows in batches of "
            f"{timing['batch_size']}, without tokenization, on {evaluation.machine.describe()}.",
        ]
    return "\n".join(lines)


def _labels(report: Report) -> list[str]:
    """Returns the lines on the agreement of each label; none for a regression."""
    from itrex_sweet.evaluation.label_agreement import MAX_SHOWN, label_cells
    from itrex_sweet.evaluation.tables import plain_table

    if not report.labels:
        return []
    fewest = f", the {MAX_SHOWN} labels with the lowest" if len(report.labels) > MAX_SHOWN else ""
    heading = f"Agreement of the policy with the last exit, by the label of the last exit{fewest}"
    return [heading, "", plain_table(*label_cells(report.labels)), ""]


def labelled_rows(
    args: argparse.Namespace,
    source: str,
    split: str | None,
    names: tuple[str, ...] | None,
    task: str = SINGLE_LABEL,
) -> Rows:
    """Reads labelled texts with the options of the command line.

    Args:
        source: a file or a name for `datasets.load_dataset`.
        split: split of such a data set.
        names: label names by id; `None` to take the labels of a new model from the data.
        task: of the model.
    """
    return read_rows(
        source,
        split,
        args.text_column,
        args.pair_column,
        args.label_column,
        args.limit,
        task=task,
        label_names=names,
        label_meanings=args.label_names,
        require_labels=True,
        new_classes=names is None,
        dataset_config=args.dataset_config,
    )


def make_folder(path: Path) -> None:
    """Creates a folder and checks that it is writable.

    Raises:
        ArtifactError: it cannot be created or written.
    """
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ArtifactError(f"cannot write into {path} ({error}).") from error


def write_json(path: Path, contents: Any) -> None:
    """Writes a JSON file.

    Raises:
        ArtifactError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"cannot write {path} ({error}).") from error


def _short_names(directories: list[str]) -> dict[str, str]:
    """Returns folders by a short name: the last part of the path, or the whole path if the last parts are equal."""
    last = {name: Path(name).resolve().name for name in directories}
    unique = len(set(last.values())) == len(last)
    return {last[name] if unique else name: name for name in last}


def _same_labels(artifacts: dict[str, Artifact]) -> tuple[str, ...]:
    """Returns the label names, by id, of all artifacts.

    Raises:
        ConfigError: artifacts have different labels.
    """
    labels = {name: artifact.label_names for name, artifact in artifacts.items()}
    if len(set(labels.values())) > 1:
        listed = "; ".join(f"{name}: {', '.join(found)}" for name, found in labels.items())
        raise ConfigError(f"the artifacts have different labels and cannot be compared. {listed}")
    return next(iter(labels.values()))
