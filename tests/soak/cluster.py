"""Kills workers and nodes of a Ray cluster at random times while a folder is answered, and compares the answers.

    python -m tests.soak.cluster --rows 40000 --rounds 2

A cluster of three nodes runs on this machine. Each round answers a folder by three workers. Meanwhile workers are
killed by SIGKILL, nodes are killed and replaced, and twice the run itself is interrupted and continued. Each round has
to give the files of a run in one process, byte by byte. Then actors of Ray Data are killed in the same way.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from itrex_sweet.cluster import FolderSettings, SweetPredictor, predict_folder
from itrex_sweet.cluster.output_folder import OutputFolder
from tests.cluster.conftest import texts
from tests.cluster.ray_cluster import LocalCluster, local_cluster
from tests.cluster.test_folders import contents
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

NODES = 3


class Interrupted(BaseException):
    """Ends the writing process's run, as a signal would."""


def main() -> int:
    """Runs the rounds; returns 1 if answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, failed = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory() as temporary, local_cluster(NODES) as cluster:
        folder = Path(temporary)
        artifact = tiny_artifact(folder / "model", tokenizer=tiny_tokenizer()).directory
        (folder / "in").mkdir()
        given = texts(args.rows)
        for file in range(4):
            rows = [json.dumps({"text": text}) for text in given[file::4]]
            rows[file] = "broken"
            (folder / "in" / f"{file}.jsonl").write_text("\n".join(rows) + "\n")
        settings = FolderSettings(rows_per_part=50)
        predict_folder(artifact, [str(folder / "in")], folder / "one", settings)
        expected = contents(folder / "one")
        for number in range(args.rounds):
            with killing(cluster, "RayActor", rng, args.pause) as kills:
                totals = continued(folder, artifact, folder / f"many-{number}", settings, rng)
            is_same = contents(folder / f"many-{number}") == expected
            failed += not is_same
            print(f"folder, round {number}: {totals.rows} rows, {kills}, equal: {is_same}", flush=True)
        with killing(cluster, "MapWorker", rng, args.pause) as kills:
            rows = ray_data(artifact, given)
        is_same = rows == [*enumerate(answers(artifact, given))]
        failed += not is_same
        print(f"Ray Data: {len(rows)} rows, {kills}, equal: {is_same}", flush=True)
    return 1 if failed else 0


def continued(folder: Path, artifact: Path, output: Path, settings: FolderSettings, rng: random.Random):
    """Answers the folder; the run is ended twice after a random number of parts, and continued."""
    write = OutputFolder.write
    for left in (rng.randint(20, 100), rng.randint(20, 100), 1 << 60):
        written: list[str] = []

        def counted(self, part, given, left=left, written=written):
            if len(written) == left:
                raise Interrupted
            time.sleep(0.01)  # so that kills fall into the run
            write(self, part, given)
            written.append(part.name)

        OutputFolder.write = counted
        try:
            return predict_folder(artifact, [str(folder / "in")], output, settings, ray_workers=NODES)
        except Interrupted:
            continue
        finally:
            OutputFolder.write = write
    raise AssertionError("the last run is not interrupted")


def ray_data(artifact: Path, given: list[str]) -> list[tuple[int, tuple]]:
    """Returns number and answer of each row, from actors of Ray Data that are killed."""
    import ray

    blocks = len(given) // 200
    rows = [{"id": row, "text": text} for row, text in enumerate(given)]
    dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        Slow,
        fn_constructor_kwargs={"artifact": str(artifact)},
        compute=ray.data.ActorPoolStrategy(size=NODES),
        num_cpus=0.5,
        batch_size=200,
        batch_format="pyarrow",
    )
    return sorted((row["id"], (row["label"], row["score"], row["exit_layer"])) for row in dataset.take_all())


class Slow(SweetPredictor):
    """Waits after each batch, so that kills fall into the run."""

    def __call__(self, batch):
        time.sleep(0.2)
        return super().__call__(batch)


def answers(artifact: Path, given: list[str]) -> Iterator[tuple]:
    """Yields the answers of one process."""
    import itrex_sweet

    for row in itrex_sweet.load(artifact).predict(given):
        yield row["label"], row["score"], row["exit_layer"]


@contextmanager
def killing(cluster: LocalCluster, title: str, rng: random.Random, pause: float) -> Iterator[dict[str, int]]:
    """Kills workers, and nodes that it replaces, in turn, at random times; yields the numbers of kills."""
    kills, stop = {"workers": 0, "nodes": 0}, threading.Event()

    def kill_node() -> bool:
        if not cluster.worker_pids(title):
            return False
        cluster.kill_node()
        cluster.add_node()
        return True

    ways: list[tuple[str, Callable[[], bool]]] = [
        ("workers", lambda: cluster.kill_worker(title)),
        ("nodes", kill_node),
    ]

    def work() -> None:
        while not stop.wait(rng.expovariate(1 / pause)):
            name, kill = ways[sum(kills.values()) % len(ways)]
            kills[name] += kill()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield kills
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
