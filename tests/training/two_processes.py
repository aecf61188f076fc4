"""Runs distributed training in two processes."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch

from itrex_sweet.training import SweetCallback
from tests.training.trainers import EXITS, trained

_SECONDS = 120


def run_two_processes(work: Callable[[int, Path], None], folder: Path) -> None:
    """Calls `work(rank, folder)` in two processes, with the environment variables of torchrun.

    A fork server starts them, since this process has the threads of torch.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    processes = [context.Process(target=_run, args=(work, rank, port, folder)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(_SECONDS)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def train_with_and_without_exits(rank: int, folder: Path) -> None:
    """Saves the weights after training without and with exits: `plain-RANK.pt`, `ours-RANK.pt`."""
    for name, callback in (("plain", None), ("ours", SweetCallback(exits=EXITS))):
        settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "ddp_backend": "gloo"}
        trainer = trained(folder / name, callback, **settings)
        assert trainer.args.world_size == 2
        torch.save(trainer.model.state_dict(), folder / f"{name}-{rank}.pt")
    torch.distributed.destroy_process_group()


def _run(work: Callable[[int, Path], None], rank: int, port: int, folder: Path) -> None:
    environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {**environment, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    work(rank, folder)
