"""A Ray cluster of several nodes on this machine, with small object stores, whose processes can be killed."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.processes import MARK, marked

_NODE = dict(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)


class LocalCluster:
    """A head without CPUs for actors, and nodes with one CPU each.

    Args:
        cluster: `ray.cluster_utils.Cluster`.
        mark: value of `MARK` in the environment of its processes.
    """

    def __init__(self, cluster: Any, mark: str):
        self._cluster, self._mark = cluster, mark
        self._nodes: list[Any] = []

    def add_node(self) -> None:
        """Adds a node."""
        self._nodes.append(self._cluster.add_node(**_NODE))

    def kill_node(self) -> None:
        """Kills the oldest node and its workers by SIGKILL."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def worker_pids(self, title: str) -> list[int]:
        """Returns the workers of Ray whose process title contains a text, such as the name of an actor's class."""
        found = []
        for pid in marked(self._mark):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::") and title.encode() in command:
                found.append(pid)
        return found

    def kill_worker(self, title: str) -> bool:
        """Kills one worker by SIGKILL; returns whether there was one."""
        pids = self.worker_pids(title)
        if pids:
            os.kill(pids[0], signal.SIGKILL)
        return bool(pids)


@contextmanager
def local_cluster(nodes: int) -> Iterator[LocalCluster]:
    """Starts a cluster and connects this process to it."""
    import ray
    from ray.cluster_utils import Cluster

    mark, before = uuid.uuid4().hex, os.environ.get(MARK)
    os.environ[MARK] = mark
    # Hooks at exit cannot be installed by threads, which add nodes in the soak test.
    cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "num_cpus": 0}, shutdown_at_exit=False)
    try:
        local = LocalCluster(cluster, mark)
        for _ in range(nodes):
            local.add_node()
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield local
    finally:
        ray.shutdown()
        cluster.shutdown()
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before
