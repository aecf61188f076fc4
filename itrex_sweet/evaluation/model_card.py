"""Renders the model card (README.md) of an artifact: usage, results, quantization, calibration and training."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from itrex_sweet.artifact import CASCADE, INT8, Artifact
from itrex_sweet.artifact.layout import CARD_FILE
from itrex_sweet.evaluation.evaluation import Evaluation
from itrex_sweet.evaluation.front_matter import front_matter
from itrex_sweet.evaluation.label_agreement import MAX_SHOWN, LabelAgreement, describe_lost, label_cells, lost_labels
from itrex_sweet.evaluation.report import Report
from itrex_sweet.evaluation.tables import figure, markdown_table, percent, score
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION

_CALIBRATION = "## Calibration"
_CALIBRATION_SECTION = re.compile(r"^## Calibration\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_STORED = re.compile(r"It is stored with the thresholds .*?, by exit\.", re.DOTALL)


def render_card(
    artifact: Artifact,
    evaluation: Evaluation | None = None,
    *,
    title: str | None = None,
    data: str | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
) -> str:
    """Returns the text of a model card, with Hugging Face's front matter.

    Args:
        artifact: to describe.
        evaluation: results; without it, the card has none.
        title: heading; the folder's name if absent.
        data: description of the evaluation data.
        base_model: name on the hub of the model that was fine-tuned.
        dataset: name on the hub of the training data.
    """
    kind = "Cascade of independent models" if artifact.architecture == CASCADE else "Early-exit text classifier"
    metric = None if evaluation is None else evaluation.report.metric_name
    parts = [
        front_matter(artifact, metric, base_model, dataset),
        f"# {title or artifact.directory.name}",
        f"{kind} ({artifact.config.get('model_type', 'unknown')}, {artifact.exits[-1]} layers) that "
        f"may answer after {_join(artifact.exits)} layers: each text leaves at the first exit that is "
        f"confident enough.{_describe_private_exits(artifact)}{_describe_labels(artifact)}",
        "## Use",
        _usage(artifact),
    ]
    if evaluation is not None:
        parts += _results(artifact, evaluation, data)
    if artifact.quantization:
        parts += _quantization(artifact)
    if artifact.calibration:
        parts += [_CALIBRATION, _calibration(artifact)]
    parts += ["## Training", _provenance(artifact.provenance)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _describe_labels(artifact: Artifact) -> str:
    labels = artifact.label_names
    if artifact.task.name == REGRESSION:
        return " It predicts a number (regression)."
    several = ", any number of which apply to a text" if artifact.task.name == MULTI_LABEL else ""
    return f" {len(labels)} labels{several}: {', '.join(labels)}."


def _describe_private_exits(artifact: Artifact) -> str:
    if not artifact.private_exits:
        return ""
    return (
        f" Exits {_join(artifact.private_exits)} have private copies of their last layers; the model's own layers are "
        "trained only for its last exit."
    )


def card_after_calibration(artifact: Artifact) -> str:
    """Returns the card in an artifact's folder with its calibration section updated; a new card if there is none."""
    if CARD_FILE not in artifact.files:
        return render_card(artifact)
    card = artifact.read_file(CARD_FILE).decode("utf-8", errors="replace")
    card = _STORED.sub(lambda _: _stored(artifact.policy), card, count=1)
    section = f"{_CALIBRATION}\n\n{_calibration(artifact)}"
    if "## Results" in card:
        section += "\n\nResults of the stored policy above may be from before this calibration."
    section += "\n\n"
    if _CALIBRATION_SECTION.search(card):
        return _CALIBRATION_SECTION.sub(lambda _: section, card, count=1)
    before, training, after = card.partition("## Training\n")
    return f"{before.rstrip()}\n\n{section}{training}{after}".rstrip() + "\n"


def _usage(artifact: Artifact) -> str:
    name, policy = artifact.directory.name, artifact.policy
    also = "" if artifact.architecture == CASCADE or artifact.precision == INT8 else (
        "\n\nThe folder also loads as the plain model, which always runs to its last layer: "
        f'`AutoModelForSequenceClassification.from_pretrained("{name}")`.'
    )  # fmt: skip
    return (
        "```python\n"
        "from itrex_sweet import SweetModelForSequenceClassification\n\n"
        f'model = SweetModelForSequenceClassification.from_pretrained("{name}")\n'
        'model.predict(["..."])  # label, score and exit_layer of each text\n'
        'model.predict(["..."], threshold=0.95)  # more conservative; 1.0 never leaves early\n'
        "```\n\n"
        f"{_stored(policy)}" + also
    )


def _stored(policy: Policy) -> str:
    return (
        f"It is stored with the thresholds {_join(f'{value:g}' for value in policy.thresholds)} "
        f"({policy.criterion.replace('_', ' ')}) and the temperatures "
        f"{_join(f'{value:g}' for value in policy.temperatures)}, by exit."
    )


def _calibration(artifact: Artifact) -> str:
    """Describes the guarantee of the stored policy and the calibration rows."""
    facts = artifact.calibration
    budget, against = facts.get("budget") or {}, facts.get("against")
    rows = (
        f"{facts.get('rows_choosing')} rows of {facts.get('source')} were used to fit temperatures and find candidates,"
        f" {facts.get('rows_testing')} others to test them ({facts.get('bound') or 'no test'}), on the "
        f"{facts.get('backend')} backend, {facts.get('created')}."
    )
    lost = _lost([LabelAgreement.from_dict(each) for each in facts.get("labels") or ()])
    drop = next((budget[name] for name in budget if name.endswith("_drop")), None)
    if drop is None:
        limits = _cell(dict(budget))
        guarantee = f"The stored policy is the most accurate one within {limits}, without a statistical guarantee."
        return "\n\n".join([f"{guarantee} {rows}", *lost])
    full_depth = "the same model at full depth"
    target = "accuracy" if "max_accuracy_drop" in budget else budget.get("metric", "agreement")
    if artifact.policy.tolerance is not None and "max_metric_drop" not in budget:
        target += f" within {artifact.policy.tolerance:g}"
    guarantee = (
        f"With {100 * budget['confidence']:g} % confidence the stored policy loses at most {100 * drop:g} % of "
        f"{target} against {full_depth if against is None else against['name']}."
    )
    if against is not None:
        scored = f", {target} {percent(against['score'])} on the testing rows" if "score" in against else ""
        guarantee += f" That is another model ({against['kind']}, SHA-256 {against['sha256'][:12]}{scored})."
    for name, values in (facts.get("metrics") or {}).items():
        shown = (score(values[key], name) for key in ("policy", "full"))
        rows += " On the testing rows {} is {}, at full depth {}.".format(name.replace("_", " "), *shown)
    return "\n\n".join([f"{guarantee} {rows}", *lost])


def _lost(agreements: Sequence[LabelAgreement]) -> list[str]:
    """Returns a sentence that names the labels whose answers change far more often than others, if there are any."""
    lost = lost_labels(agreements)
    return [f"**Far more answers of some labels change than of others: {describe_lost(lost)}.**"] if lost else []


def _results(artifact: Artifact, evaluation: Evaluation, data: str | None) -> list[str]:
    report, curve, timing = evaluation.report, evaluation.curve, evaluation.timing
    on_data = f" of {data}" if data else ""
    summary = (
        f"On {report.rows} rows{on_data}, the stored policy has {report.metric_name} "
        f"{score(report.metric, report.metric_name)}"
        f" with {figure(report.mean_layers)} layers per text; the last exit alone has "
        f"{score(report.exits[-1].metric, report.metric_name)} with {report.exits[-1].layers_run}."
    )
    if report.unanswered:
        summary += f" {report.unanswered} rows have non-finite logits and count as incorrect."
    parts = [
        "## Results",
        summary,
        "Per exit: the metric if all texts leave there, the share of texts that leave there under the policy with "
        "their metric, and the time if all texts leave there:",
        markdown_table(*report.cells()),
        *_labels(report),
        f"Over one threshold for all exits (area under the curve {curve.area:.4f}):",
        markdown_table(*curve.cells()),
    ]
    versions = ", ".join(f"{package} {version}" for package, version in evaluation.versions.items())
    measured = f"Measured {evaluation.created} with {versions} on {evaluation.machine.describe()}."
    if timing:
        measured += (
            " Milliseconds are wall-clock time per text without tokenization, medians of "
            f"{timing['repeats']} runs over {timing['rows']} texts in batches of {timing['batch_size']}."
        )
    return [*parts, measured]


def _labels(report: Report) -> list[str]:
    """Describes the agreement of early exit with full depth, label by label."""
    if not report.labels:
        return []
    told = sum(each.rows > 0 for each in report.labels)
    which = "each label" if told <= MAX_SHOWN else f"the {MAX_SHOWN} of {told} labels with the lowest agreement"
    return [
        f"Of the rows that the last exit gives {which}, the share that gets it under the policy too:",
        markdown_table(*label_cells(report.labels)),
        *_lost(report.labels),
    ]


def quantization_cells(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and rows of the table that compares exits before and after quantization."""
    temperatures, errors = facts["temperatures"], facts.get("expected_calibration_error")
    headings = ["exit", "float32", "INT8", "temperature before", "after"]
    columns = [
        [str(exit_) for exit_ in facts["exits"]],
        [score(value, facts["metric"]) for value in facts["before"]],
        [score(value, facts["metric"]) for value in facts["after"]],
        [figure(value) for value in temperatures["before"]],
        [figure(value) for value in temperatures["after"]],
    ]
    if errors is not None:
        headings += ["calibration error before", "after"]
        columns += [[percent(value) for value in errors[name]] for name in ("old temperatures", "fitted")]
    return headings, [list(row) for row in zip(*columns, strict=True)]


def _quantization(artifact: Artifact) -> list[str]:
    facts = artifact.quantization
    rows, compressor = facts["calibration"], facts["neural_compressor"]
    kept = f"; also {_join(facts['float_layers'])}" if facts["float_layers"] else ""
    versions = ", ".join(f"{package} {version}" for package, version in compressor["versions"].items())
    embeddings = (
        " Word embeddings are in int8, with a scale per token." if artifact.embeddings_precision == INT8 else ""
    )
    changed = facts.get("changed_answers")  # absent in artifacts of older releases
    answers = "" if changed is None else f" and {percent(changed)} have another answer at the last exit"
    return [
        "## Quantization",
        f"INT8 by the recipe `{facts['recipe']}`: {facts['integer_layers']} linear layers with weights in int8, a "
        f"scale per output channel, and inputs in uint8, a scale {facts['activations']}.{embeddings} In float: "
        f"{facts['in_float']}{kept}.",
        f"Ranges were observed by Neural Compressor ({versions}) on {rows['rows_observed']} rows; {facts['metric']} "
        f"per exit and temperatures come from {rows['rows_judged']} "
        f"{'other rows' if rows['judged_on_other_rows'] else 'of the same rows'}, of which "
        f"{percent(facts['rows_at_another_exit'])} leave at another exit than before{answers}:",
        markdown_table(*quantization_cells(facts)),
    ]


def _provenance(provenance: Mapping[str, Any]) -> str:
    facts = {key: value for key, value in provenance.items() if key != "versions"}
    facts.update({f"{package} version": value for package, value in provenance.get("versions", {}).items()})
    return markdown_table(
        ["setting", "value"],
        [[key.replace("_", " "), _cell(value)] for key, value in facts.items()],
        words=True,
    )


def _cell(value: Any) -> str:
    return _plain(value).replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> str:
    """Returns a JSON value as text: `1, 2, 4` for a list, `rows 83, exits (1 0.9, 2 0.95)` for a mapping."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        parts = ((key.replace("_", " "), each) for key, each in value.items())
        return ", ".join(
            f"{key} ({_plain(each)})" if _is_nested(each) else f"{key} {_plain(each)}" for key, each in parts
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(f"({_plain(each)})" if _is_nested(each) else _plain(each) for each in value) or "none"
    return json.dumps(value, ensure_ascii=False)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def _join(items: Any) -> str:
    shown: Sequence[str] = [str(item) for item in items]
    if len(shown) < 2:
        return "".join(shown) or "none"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
