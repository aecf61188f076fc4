"""Compares encoders other than BERT with common inference engines, and with BERT of the same size on the native engine.

    python benchmarks/encoders.py --shapes DeBERTa-v3-base

Weights are random, and the vocabulary is BERT's, which time does not depend on. All layers run in full. Runs are
interleaved and warm, with equal threads, without tokenization and padding. `--prepare` converts the models only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import ENGINES, REFERENCE
from peers.comparison import agreement, sweet_op_peak
from peers.contenders import BATCH, close, load_engines, peer_contenders, print_medians
from peers.sweet import Sweet
from record import DATA, RUNS, check_idle_machine, measure, pretrained, provenance, read_task, write_result
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    PretrainedConfig,
)

from itrex_sweet import SweetConfig, attach, save_artifact
from itrex_sweet.artifact import open_artifact, write_artifact
from itrex_sweet.commands.bench import threads
from itrex_sweet.quantization.observation import observe
from itrex_sweet.quantization.packing import pack, word_embeddings
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization import TextReader

BASE = dict(num_hidden_layers=12, hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_labels=2)
VOCABULARY = 30522
BASELINE = "BERT-base"
PAUSE = 0.25  # seconds; threads of some libraries spin for 0.2
DENSE = {"8 x 128": (8, 128), "1 x 128": (1, 128), "1 x 32": (1, 32)}
SENTENCES = "SST-2, batches of 32"
LONG = {"1 x 2048": (1, 2048), "1 x 8192": (1, 8192)}  # of encoders with so many positions
OURS_ONLY = "1 x 8192"  # takes other engines a minute
PEERS = ("torch fp32", "torch bf16", "torch.compile bf16", "OpenVINO INT8", "ONNX Runtime fp32", "ONNX Runtime INT8")


def deberta_v3() -> PretrainedConfig:
    """Returns the config of microsoft/deberta-v3-base, with BERT's vocabulary."""
    return DebertaV2Config(
        **BASE,
        vocab_size=VOCABULARY,
        type_vocab_size=0,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=256,
        max_relative_positions=-1,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
        pad_token_id=0,
    )


def bert() -> PretrainedConfig:
    """Returns the config of google-bert/bert-base-uncased."""
    from transformers import BertConfig

    return BertConfig(**BASE, vocab_size=VOCABULARY)


def modernbert() -> PretrainedConfig:
    """Returns the config of answerdotai/ModernBERT-base, with BERT's vocabulary."""
    from transformers import ModernBertConfig

    tokens = dict(pad_token_id=0, cls_token_id=101, bos_token_id=101, sep_token_id=102, eos_token_id=102)
    return ModernBertConfig(
        **{**BASE, "num_hidden_layers": 22, "intermediate_size": 1152},
        **tokens,
        vocab_size=VOCABULARY,
        max_position_embeddings=8192,
    )


def eurobert() -> PretrainedConfig:
    """Returns the config of EuroBERT/EuroBERT-210m, with BERT's vocabulary."""
    from transformers import EuroBertConfig

    tokens = dict(pad_token_id=0, bos_token_id=101, eos_token_id=102, mask_token_id=103)
    rope = {"rope_type": "default", "rope_theta": 250000.0}
    return EuroBertConfig(**BASE, **tokens, vocab_size=VOCABULARY, max_position_embeddings=8192, rope_parameters=rope)


def mpnet() -> PretrainedConfig:
    """Returns the config of microsoft/mpnet-base, with BERT's vocabulary."""
    from transformers import MPNetConfig

    return MPNetConfig(**BASE, vocab_size=VOCABULARY, max_position_embeddings=514, layer_norm_eps=1e-5)


def nomic_bert() -> PretrainedConfig:
    """Returns the config of nomic-ai/nomic-embed-text-v1.5 without scaled positions, with BERT's vocabulary."""
    rope = {"rope_type": "default", "rope_theta": 1000.0}
    return AutoConfig.for_model("nomic_bert", **BASE, vocab_size=VOCABULARY, rope_parameters=rope)


def gte() -> PretrainedConfig:
    """Returns the config of Alibaba-NLP/gte-multilingual-base, with BERT's vocabulary."""
    rope = {"rope_type": "default", "rope_theta": 20000.0}
    return AutoConfig.for_model("gte", **BASE, vocab_size=VOCABULARY, pad_token_id=0, rope_parameters=rope)


def roformer() -> PretrainedConfig:
    """Returns the config of junnyu/roformer_chinese_base, with BERT's vocabulary."""
    return AutoConfig.for_model("roformer", **BASE, vocab_size=VOCABULARY)


SHAPES = {
    BASELINE: bert,
    "DeBERTa-v3-base": deberta_v3,
    "ModernBERT-base": modernbert,
    "EuroBERT-210m": eurobert,
    "MPNet-base": mpnet,
    "NomicBERT": nomic_bert,
    "GTE-base": gte,
    "RoFormer-base": roformer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=[name for name in SHAPES if name != BASELINE], required=True)
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=PEERS)
    parser.add_argument("--rows", type=int, default=4 * BATCH, help="sentences of SST-2")
    parser.add_argument("--calibration", type=int, default=32, help="calibration rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--name", default="encoders", help="name of the result")
    parser.add_argument("--prepare", action="store_true", help="only convert the models, which is cached")
    parser.add_argument("--busy", action="store_true", help="skip the check that the machine is idle")
    options = parser.parse_args()
    with threads(options.threads):
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Measures every shape, and writes the result after each."""
    if not (options.busy or options.prepare):
        check_idle_machine(3.0)
    names = ("threads", "repeats", "rows", "calibration", "busy")
    settings = {name: getattr(options, name) for name in names}
    result: dict[str, Any] = {**provenance(), "settings": settings, "engines": {}, "left_out": {}, "shapes": {}}
    workloads = workload_batches(options)
    baseline = Sweet(random_artifact(BASELINE, workloads["calibration"][0]), "native")
    result["limit_multiply_adds_per_second"] = limits = [sweet_op_peak(options.threads)]
    for shape in options.shapes:
        result.setdefault("linear_multiply_adds_per_token", {})[shape] = linear_multiply_adds(shape)
        ours = Sweet(random_artifact(shape, workloads["calibration"][0]), "native")
        engines = load_engines(RUNS / "encoders" / shape / "float32", workloads["calibration"][0], options, result)
        if not options.prepare:
            result["shapes"][shape] = {
                name: measure_workload(name, batches, engines, ours, baseline, options)
                for name, batches in workloads.items()
                if name != "calibration"
                and (name not in LONG or ours.model.config.max_position_embeddings >= LONG[name][1])
            }
            limits.append(sweet_op_peak(options.threads))
            print(write_result(options.name, result))
        close(engines)


def measure_workload(
    name: str,
    batches: list[TokenBatch],
    engines: dict[str, Any],
    ours: Sweet,
    baseline: Sweet,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measures milliseconds per batch of all engines."""
    engines = {} if name == OURS_ONLY else engines
    contenders = peer_contenders(engines, name, batches)
    contenders[ours.name] = ours.batch_by_batch(batches, ours.full_depth())
    if name not in LONG:
        contenders[f"{BASELINE} on {baseline.name}"] = baseline.batch_by_batch(batches, baseline.full_depth())
    times = measure(contenders, options.repeats, len(batches), PAUSE)
    print_medians(name, times)
    answers = {}
    if REFERENCE in engines:
        reference, rows = engines[REFERENCE].answers(name), TokenBatch.concatenate(batches)
        answers = {engine: agreement(reference, engines[engine].answers(name)) for engine in engines}
        answers[ours.name] = agreement(reference, ours.answers(rows, ours.full_depth()).logits)
    return {
        "milliseconds_per_batch": times,
        "tokens_per_batch": sum(int(batch.lengths.sum()) for batch in batches) / len(batches),
        "answers": answers,
        "choices": contenders.choices,
    }


def linear_multiply_adds(shape: str) -> int:
    """Returns the multiply-adds per token of the linear layers, without the pooler."""
    with torch.device("meta"):
        encoder = AutoModelForSequenceClassification.from_config(SHAPES[shape]()).base_model
    linear = [module for module in encoder.modules() if isinstance(module, torch.nn.Linear)]
    pooler = getattr(encoder, "pooler", None)
    inside = set() if pooler is None else set(pooler.modules())
    return sum(module.weight.numel() for module in linear if module not in inside)


def workload_batches(options: argparse.Namespace) -> dict[str, list[TokenBatch]]:
    """Returns the batches of every workload, and the calibration rows."""
    random = np.random.default_rng(0)
    batches = {
        name: [TokenBatch.from_rows(random.integers(1000, VOCABULARY, shape).tolist())]
        for name, shape in {**DENSE, **LONG}.items()
    }
    if (DATA / "sst2").is_dir():
        reader = TextReader(AutoTokenizer.from_pretrained(pretrained(), model_max_length=128), 512, None)
        rows = reader.read(read_task("sst2", "validation", options.rows)[0], None, "truncate").batch
        batches[SENTENCES] = [
            rows.select(np.arange(start, min(start + BATCH, len(rows)))) for start in range(0, len(rows), BATCH)
        ]
    calibration = random.integers(1000, VOCABULARY, (options.calibration, 64)).tolist()
    return {**batches, "calibration": [TokenBatch.from_rows(calibration)]}


def random_artifact(shape: str, calibration: TokenBatch) -> Path:
    """Returns an INT8 artifact with one exit and random weights, cached; the float model is beside it."""
    folder = RUNS / "encoders" / shape
    if not (folder / "int8" / "sweet_config.json").is_file():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(SHAPES[shape]())
        attach(model, SweetConfig(exits=(model.config.num_hidden_layers,)))
        source = save_artifact(model, folder / "float32")
        observed = observe(source, calibration, "static")
        write_artifact(
            folder / "int8",
            config=model.config,
            tensors=pack(source.tensors(), observed.linears, tables=[word_embeddings(source)]),
            quantization={"recipe": "static", "calibration": "random rows"},
        )
    return open_artifact(folder / "int8").directory


if __name__ == "__main__":
    main()
