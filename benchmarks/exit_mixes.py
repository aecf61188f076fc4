"""Time saved by early exit beside the multiply-adds saved, for given shares of the rows at each exit.

    python benchmarks/exit_mixes.py

Runs the shape of BERT-base in INT8 on the sentences of SST-2 validation, one at a time and in batches of 32. The
thresholds of a mix are set so that its shares of the rows exit; the multiply-adds of every row are computed from the
shape.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from peers.sweet import Sweet
from record import DATA, check_idle_machine, measure, pretrained, provenance, read_task, write_result
from shapes import random_artifact, random_batch, without_exits
from transformers import AutoTokenizer

from itrex_sweet import criteria
from itrex_sweet.commands.bench import threads
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import BACKENDS
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization import TextReader

SHAPE = "BERT-base"
BATCH = 32
# shares of the rows that leave at each exit
MIXES = {
    "all at the first exit": (1.0, 0.0, 0.0, 0.0),
    "50/20/20/10 %": (0.5, 0.2, 0.2, 0.1),
    "25/25/25/25 %": (0.25, 0.25, 0.25, 0.25),
    "10/10/10/70 %": (0.1, 0.1, 0.1, 0.7),
    "none before the last": (0.0, 0.0, 0.0, 1.0),
}
FULL_DEPTH = "none before the last"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="native")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    check_idle_machine(3.0)
    with threads(options.threads):
        artifact = random_artifact(SHAPE)
        ours, plain = (Sweet(each.directory, options.backend) for each in (artifact, without_exits(artifact)))
        rows = sentences(artifact, options.rows)
        policies = {name: leaving(ours, rows, shares) for name, shares in MIXES.items()}
        work = work_of_rows(artifact.config, artifact.exits, rows.lengths)
        settings = {name: getattr(options, name) for name in ("backend", "threads", "repeats")}
        result: dict[str, Any] = {
            **provenance(),
            "settings": {**settings, "shape": SHAPE, "exits": list(artifact.exits)},
            "rows": len(rows),
            "batch": BATCH,
            "mean_tokens": round(float(rows.lengths.mean()), 1),
        }
        for title, size in (("one by one", 1), (f"batches of {BATCH}", BATCH)):
            result[title] = timed(ours, plain, rows, policies, work, size, options.repeats)
    print(write_result("exit_mixes", result))


def sentences(artifact: Any, count: int) -> TokenBatch:
    """Reads sentences of SST-2 validation, or generates random ones of 25 tokens if there is no research data."""
    if not (DATA / "sst2").is_dir():
        return random_batch(artifact, count, 25)
    tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=128)
    reader = TextReader(tokenizer, artifact.config["max_position_embeddings"], None)
    return reader.read(read_task("sst2", "validation", count)[0], None, "truncate").batch


def leaving(ours: Sweet, rows: TokenBatch, shares: tuple[float, ...]) -> Policy:
    """Returns a policy under which these shares of the rows exit, as far as the confidences allow."""
    logits = ours.model.executor.logits_at_every_exit(rows)
    policy = ours.model.policy
    thresholds, remaining = [], np.arange(len(rows))
    for place, share in enumerate(shares[:-1]):
        confidences, _ = criteria.confidence(policy, place, logits[remaining, place])
        count = round(share * len(rows))
        thresholds.append(0.9999999 if count == 0 else _between(np.sort(confidences)[::-1], count))
        remaining = remaining[~(confidences > thresholds[-1])]
    return policy.with_threshold(thresholds)


def _between(ordered: np.ndarray, count: int) -> float:
    """Returns a threshold that exactly the first `count` of sorted confidences exceed."""
    return 0.0 if count >= len(ordered) else (float(ordered[count - 1]) + float(ordered[count])) / 2


def work_of_rows(config: Any, exits: tuple[int, ...], lengths: np.ndarray) -> np.ndarray:
    """Computes the multiply-adds of each row for each exit: (rows, exits).

    A full layer takes 4 H² + 2 H I per token and 2 L H for attention. A probe takes the same linear layers and the
    head's H² for one token, and 2 A L H for attention (A heads, with queries of the width of the hidden states).
    """
    hidden, inner, heads = (config[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads"))
    linear = 4.0 * hidden**2 + 2.0 * hidden * inner
    layer = lengths * (linear + 2.0 * lengths * hidden)
    probe = linear + hidden**2 + 2.0 * heads * lengths * hidden
    return np.stack([(exit_ - 1) * layer + (place + 1) * probe for place, exit_ in enumerate(exits)], axis=1)


def timed(
    ours: Sweet,
    plain: Sweet,
    rows: TokenBatch,
    policies: dict[str, Policy],
    work: np.ndarray,
    size: int,
    repeats: int,
) -> dict[str, Any]:
    """Measures milliseconds per text, and the share of the possible speed-up that is realised."""
    single = [rows.select(np.array([row])) for row in range(len(rows))]
    contenders = {
        name: ours.batch_by_batch(single, policy) if size == 1 else ours.all_rows(rows, policy, size)
        for name, policy in policies.items()
    }
    full = plain.full_depth()
    contenders["without exits"] = plain.batch_by_batch(single, full) if size == 1 else plain.all_rows(rows, full, size)
    times = measure(contenders, repeats, len(rows))
    full_depth = times[FULL_DEPTH]["median"]
    mixes = {}
    for name, policy in policies.items():
        exits = ours.answers(rows, policy).exit_index
        share = float(work[np.arange(len(rows)), exits].sum() / work[:, -1].sum())
        speedup = full_depth / times[name]["median"]
        mixes[name] = {
            "left_percent": [round(100 * float((exits == place).mean()), 1) for place in range(work.shape[1])],
            "work": round(share, 4),
            "time": round(1 / speedup, 4),
            "realised": round(speedup * share, 4),
        }
    return {
        "milliseconds_per_text": times,
        "probing_against_without_exits": round(full_depth / times["without exits"]["median"], 4),
        "mixes": mixes,
    }


if __name__ == "__main__":
    main()
