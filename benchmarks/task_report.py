"""Renders the results of multi-label classification and regression as Markdown."""

from __future__ import annotations

from record import footer

_PERCENT = ("exact_match", "micro_f1", "macro_f1")


def guarantee(result: dict) -> str:
    """Renders the metrics of every exit, and how often guarantees fail."""
    settings = result["settings"]
    exits = ["| data | exit | metrics | agrees with full depth |", "|---|---|---|---|"]
    cells = [
        "| data | loss of | ε | δ | exceeded (95 % interval) | certified | layers | mean loss | metrics |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in result["tasks"].items():
        rows = zip(found["exits"], found["metrics_per_exit"], found["agreement_per_exit"], strict=True)
        exits += [f"| {name} | {exit_} | {metrics(each)} | {100 * share:.1f} % |" for exit_, each, share in rows]
        for cell in found["cells"]:
            low, high = (100 * end for end in cell["interval"])
            cells.append(
                f"| {name} | {cell['loss']} | {100 * cell['epsilon']:g} % | {cell['delta']:g} "
                f"| {100 * cell['exceeded']:.1f} % ({low:.1f}–{high:.1f}) "
                f"| {100 * cell['certified_beyond_full_depth']:.0f} % "
                f"| {cell['layers']:.2f} of {cell['full_layers']:g} | {100 * cell['mean_loss']:.2f} % "
                f"| {metrics(cell['metrics'])} |"
            )
    tolerances = ", ".join(
        f"{each['tolerance']:g} for {name}" for name, each in result["tasks"].items() if each["tolerance"] is not None
    )
    intro = (
        f"**Multi-label classification and regression**: {settings['draws']} draws of {settings['rows']} calibration "
        f"rows from {settings['population']} held-out rows, MiniLM with decoupled exits in float32, a threshold per "
        "exit. A row is lost in agreement if its set of labels differs from that at full depth, or its value by more "
        f"than the tolerance ({tolerances or 'none here'}). First, metrics and agreement if all rows leave at an exit; "
        "then, means over the draws of the true loss, layers and metrics of the certified policy."
    )
    return "\n".join([intro, "", *exits, "", *cells, "", footer(result)])


def metrics(values: dict[str, float]) -> str:
    """Returns names and values, fractions in percent."""
    shown = (
        f"{name.replace('_', ' ')} {100 * value:.1f} %" if name in _PERCENT else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in values.items()
    )
    return ", ".join(shown)
