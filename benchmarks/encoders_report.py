"""Renders the comparison of encoders with other engines and with BERT as Markdown."""

from __future__ import annotations

from record import footer

OURS, BERT = "native int8", "BERT-base on native int8"


def tables(result: dict) -> str:
    """Renders one table per encoder: milliseconds per batch, and ratios to the best peer and to BERT."""
    settings = result["settings"]
    parts = [
        f"**Other encoders**, random weights, all layers in full, {settings['threads']} threads, milliseconds per "
        "batch (median). The best peer is the fastest of the other engines, whatever its precision; BERT-base runs "
        f"on the native engine in INT8. Sentences are the first {settings['rows']} of SST-2 validation."
    ]
    for shape, workloads in result["shapes"].items():
        names = list(workloads)
        engines = list(next(iter(workloads.values()))["milliseconds_per_batch"])
        lines = [f"| {shape} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        lines += [
            f"| {engine} | " + " | ".join(_time(workloads[name], engine) for name in names) + " |" for engine in engines
        ]
        lines.append("| best peer / native | " + " | ".join(_peer_ratio(workloads[name]) for name in names) + " |")
        lines.append(
            "| native / BERT-base | " + " | ".join(_ratio(workloads[name], OURS, BERT) for name in names) + " |"
        )
        parts.append("\n".join(lines))
    if result["left_out"]:
        parts.append(
            "Left out: " + "; ".join(f"{name} ({reason})" for name, reason in result["left_out"].items()) + "."
        )
    return "\n\n".join([*parts, footer(result)])


def _medians(workload: dict) -> dict[str, float]:
    return {name: each["median"] for name, each in workload["milliseconds_per_batch"].items()}


def _time(workload: dict, engine: str) -> str:
    times = _medians(workload)
    return f"{times[engine]:.1f}" if engine in times else ""


def _ratio(workload: dict, above: str, below: str) -> str:
    times = _medians(workload)
    return f"{times[above] / times[below]:.2f}" if below in times else ""


def _peer_ratio(workload: dict) -> str:
    times = _medians(workload)
    peers = {name: time for name, time in times.items() if name not in (OURS, BERT)}
    return f"{min(peers.values()) / times[OURS]:.2f} ({min(peers, key=peers.__getitem__)})" if peers else ""
