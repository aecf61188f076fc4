"""Time and memory of a training step with exits, beside plain fine-tuning.

    python benchmarks/training_cost.py        # on an idle machine; prints the expected duration
    python benchmarks/training_cost.py --shapes BERT-base --ways decoupled        # keeps the stored figures of MiniLM-6

Random weights in the shapes of BERT-base and MiniLM, batches of random tokens, bfloat16 autocast, fused AdamW,
gradients clipped as the Trainer or the callback clips them. Steps of all methods are interleaved. Memory is the peak
resident size of a separate process minus its size before the first step.
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
from record import RESULTS, check_idle_machine, measure, provenance, write_result
from shapes import EXITS, SHAPES
from transformers import BertConfig, BertForSequenceClassification

from itrex_sweet.config import SweetConfig
from itrex_sweet.training import attach, clip_by_group
from itrex_sweet.training.exit_optimization import ExitLearningRate
from itrex_sweet.training.teacher import Teacher

PLAIN, FULL_GRAPH, TEACHER = "plain fine-tuning", "sweet, graph kept whole", "cut_first, and a teacher"
EVERY_LAYER, EXITS_ONLY = "decoupled, every layer", "decoupled, exits alone"
WAYS: dict[str, dict[str, Any] | None] = {
    PLAIN: None,
    "decoupled": dict(mode="decoupled"),
    EVERY_LAYER: dict(mode="decoupled"),
    EXITS_ONLY: dict(mode="decoupled", train="exits"),
    "sweet": dict(mode="sweet"),
    FULL_GRAPH: dict(mode="sweet"),
    "joint": dict(mode="joint"),
    "cut_first": dict(mode="sweet", gradient_scale="cut_first"),
    TEACHER: dict(mode="sweet", gradient_scale="cut_first", distillation=0.7),
}
BATCHES = 4  # different batches, used in turn
MINUTES = {"BERT-base": 2.6, "MiniLM-6": 0.8}  # with the defaults, on two cores of AMD Zen 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="plain fine-tuning is added")
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
    check_idle_machine(3.0)
    settings = {name: getattr(options, name) for name in ("rows", "tokens", "threads", "repeats")}
    path = RESULTS / "training_cost.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    others = stored["shapes"] if stored.get("settings") == settings else {}
    result: dict[str, Any] = {**provenance(), "settings": settings, "shapes": others}
    ways = [way for way in WAYS if way == PLAIN or way in options.ways]
    for shape in options.shapes:
        steps = {way: make_step(shape, way, options) for way in ways}
        times = measure(steps, options.repeats, 1)
        del steps
        result["shapes"][shape] = {
            way: {"milliseconds": times[way], "megabytes": memory_of(shape, way, options)} for way in ways
        }
        plain = result["shapes"][shape][PLAIN]
        for way, figures in result["shapes"][shape].items():
            time = figures["milliseconds"]["median"] / plain["milliseconds"]["median"]
            memory = figures["megabytes"] / plain["megabytes"]
            print(f"{shape:>10} {way:<28} time {time:5.2f}  memory {memory:5.2f}", flush=True)
    print(write_result("training_cost", result))


def make_step(shape: str, way: str, options: argparse.Namespace) -> Callable[[], None]:
    """Returns a function that runs one training step."""
    torch.manual_seed(0)
    config = BertConfig(num_labels=2, **SHAPES[shape])
    model = BertForSequenceClassification(config).train()
    attachment = None
    if WAYS[way] is not None:
        exits = tuple(range(1, config.num_hidden_layers + 1)) if way == EVERY_LAYER else EXITS[shape]
        attachment = attach(model, SweetConfig(exits=exits, **WAYS[way]))
        if way == FULL_GRAPH:
            attachment.loss_observer = lambda losses: None
        if way == TEACHER:
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
            attachment.teacher = Teacher(attachment.teacher.model)  # clears the cache, as in the first epoch

    return step


def memory_here(shape: str, way: str, options: argparse.Namespace) -> float:
    """Measures the peak megabytes of three steps in this process."""
    step = make_step(shape, way, options)
    before = _resident("VmRSS")
    for _ in range(3):
        step()
    return round(_resident("VmHWM") - before, 1)


def _resident(field: str) -> float:
    """Returns the current (`VmRSS`) or peak (`VmHWM`) megabytes of this process, without its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def memory_of(shape: str, way: str, options: argparse.Namespace) -> float:
    """Runs `memory_here` in a separate process."""
    settings = [f"--{name}={getattr(options, name)}" for name in ("rows", "tokens", "threads")]
    command = [sys.executable, __file__, *settings, "--memory-of", shape, way]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
