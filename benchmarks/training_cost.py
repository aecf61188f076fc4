"""What training exits costs beside plain fine-tuning: time of a step, and memory.

    python benchmarks/training_cost.py        # on an idle machine; says first how long it takes

Random weights in the shapes of BERT-base and MiniLM, batches of random tokens, bfloat16 autocast, fused AdamW,
gradients clipped as the Trainer or the callback clips them. Steps of all ways take turns; memory is the most a process
of its own held, over what it held before its first step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import measure, provenance, refuse_busy_machine, write_result
from shapes import EXITS, SHAPES
from transformers import BertConfig, BertForSequenceClassification

from itrex_sweet.config import SweetConfig
from itrex_sweet.training import attach, clip_by_group
from itrex_sweet.training.exit_optimization import ExitLearningRate
from itrex_sweet.training.teacher import Teacher

PLAIN, WHOLE, TAUGHT = "plain fine-tuning", "sweet, graph kept whole", "cut_first, and a teacher"
EVERY, ALONE = "decoupled, every layer", "decoupled, exits alone"
WAYS: dict[str, dict[str, Any] | None] = {
    PLAIN: None,
    "decoupled": dict(mode="decoupled"),
    EVERY: dict(mode="decoupled"),
    ALONE: dict(mode="decoupled", train="exits"),
    "sweet": dict(mode="sweet"),
    WHOLE: dict(mode="sweet"),
    "joint": dict(mode="joint"),
    "cut_first": dict(mode="sweet", gradient_scale="cut_first"),
    TAUGHT: dict(mode="sweet", gradient_scale="cut_first", distillation=0.7),
}
BATCHES = 4  # of different tokens, in turns
MINUTES = {"BERT-base": 2.6, "MiniLM-6": 0.8}  # with the defaults, on two cores of AMD Zen 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-of", nargs=2, metavar=("SHAPE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(memory_here(*options.memory_of, options)))
        return
    print(f"Some {sum(MINUTES[shape] for shape in options.shapes):.0f} minutes with the defaults.", flush=True)
    refuse_busy_machine(3.0)
    settings = {name: getattr(options, name) for name in ("rows", "tokens", "threads", "repeats")}
    result: dict[str, Any] = {**provenance(), "settings": settings, "shapes": {}}
    for shape in options.shapes:
        steps = {way: make_step(shape, way, options) for way in WAYS}
        times = measure(steps, options.repeats, 1)
        del steps
        result["shapes"][shape] = {
            way: {"milliseconds": times[way], "megabytes": memory_of(shape, way, options)} for way in WAYS
        }
        plain = result["shapes"][shape][PLAIN]
        for way, figures in result["shapes"][shape].items():
            time = figures["milliseconds"]["median"] / plain["milliseconds"]["median"]
            memory = figures["megabytes"] / plain["megabytes"]
            print(f"{shape:>10} {way:<28} time {time:5.2f}  memory {memory:5.2f}", flush=True)
    print(write_result("training_cost", result))


def make_step(shape: str, way: str, options: argparse.Namespace) -> Callable[[], None]:
    """One step of training."""
    torch.manual_seed(0)
    config = BertConfig(num_labels=2, **SHAPES[shape])
    model = BertForSequenceClassification(config).train()
    attachment = None
    if WAYS[way] is not None:
        exits = tuple(range(1, config.num_hidden_layers + 1)) if way == EVERY else EXITS[shape]
        attachment = attach(model, SweetConfig(exits=exits, **WAYS[way]))
        if way == WHOLE:
            attachment.loss_observer = lambda losses: None
        if way == TAUGHT:
            attachment.teacher = Teacher(BertForSequenceClassification(BertConfig(num_labels=2, **SHAPES[shape])))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    shape_of_batch = (options.rows, options.tokens)
    batches = [
        {
            "input_ids": torch.randint(1000, 30000, shape_of_batch),
            "attention_mask": torch.ones(shape_of_batch, dtype=torch.int64),
            "labels": torch.randint(0, 2, shape_of_batch[:1]),
        }
        for _ in range(BATCHES)
    ]

    def step() -> None:
        batches.append(batches.pop(0))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batches[0]).loss
        loss.backward()
        if attachment is None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        else:
            clip_by_group(attachment.clipping_groups(), 1.0)
            rate = ExitLearningRate(attachment.config.exit_lr_multiplier)
            rate.before_step(parameter for _, parameter in attachment.head_parameters())
        optimizer.step()
        if attachment is not None:
            rate.after_step()
        optimizer.zero_grad()
        if attachment is not None and attachment.teacher is not None:
            attachment.teacher = Teacher(attachment.teacher.model)  # forgets: as dear as an epoch that is the first

    return step


def memory_here(shape: str, way: str, options: argparse.Namespace) -> float:
    """Megabytes that three steps took in this process at most."""
    step = make_step(shape, way, options)
    before = _resident("VmRSS")
    for _ in range(3):
        step()
    return round(_resident("VmHWM") - before, 1)


def _resident(what: str) -> float:
    """Megabytes now (`VmRSS`) or at most (`VmHWM`) of this process; what `getrusage` says includes its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def memory_of(shape: str, way: str, options: argparse.Namespace) -> float:
    """As `memory_here`, in a process of its own."""
    settings = [f"--{name}={getattr(options, name)}" for name in ("rows", "tokens", "threads")]
    command = [sys.executable, __file__, *settings, "--memory-of", shape, way]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
