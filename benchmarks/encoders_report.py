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
    limits = [limit for limit in result.get("limit_multiply_adds_per_second", ()) if limit is not None]
    if limits:
        parts[0] += (
            f" The limit is the time of the multiply-adds of the linear layers alone, at {max(limits) / 1e9:.0f} G per "
            "second, the rate of the processor on registers: no INT8 engine can exceed the ratio `best peer / limit`."
        )
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
        if limits:
            rate = result["linear_multiply_adds_per_token"][shape] / max(limits) * 1000
            times = {name: rate * workloads[name]["tokens_per_batch"] for name in names}
            lines.append("| limit | " + " | ".join(f"{times[name]:.1f}" for name in names) + " |")
            lines.append(
                "| best peer / limit | "
                + " | ".join(_ratio_to_best_peer(workloads[name], times[name]) for name in names)
                + " |"
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
    best = _best_peer(workload)
    return f"{_ratio_to_best_peer(workload, _medians(workload)[OURS])} ({best})" if best else ""


def _ratio_to_best_peer(workload: dict, milliseconds: float) -> str:
    best = _best_peer(workload)
    return f"{_medians(workload)[best] / milliseconds:.2f}" if best else ""


def _best_peer(workload: dict) -> str | None:
    times = _medians(workload)
    return min((name for name in times if name not in (OURS, BERT)), key=times.__getitem__, default=None)
