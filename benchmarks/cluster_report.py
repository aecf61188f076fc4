"""Renders the result of `cluster.py`."""

from __future__ import annotations

from record import footer


def table(result: dict) -> str:
    """Returns a table of rows per second in one process and on the cluster."""
    lines = [
        "| | one process, 2 threads: rows/s | cluster, same cores: rows/s | cost | start of cluster | equal answers |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, part in result["parts"].items():
        one, cluster = part["one process"], part["cluster"]
        lines.append(
            f"| {name} | {one['rows_per_second']:,} | {cluster['rows_per_second']:,} | {100 * part['cost']:+.1f} % | "
            f"{cluster['start_seconds']:.1f} s | {'yes' if part['equal_answers'] else 'no'} |"
        )
    method = (
        f"Ray Data with {result['actors']} actors of one thread, `predict --ray` with {result['workers']} workers of "
        "one thread. MiniLM-6 in INT8 with random weights, sentences of SST-2, reading and writing of the files "
        "included. Cost is the time per row above that of one process, from the difference of a long and a short run, "
        "so that the start is not in it."
    )
    return "\n".join([*lines, "", method, "", footer(result, f", Ray {result['ray']}")])
