"""ModernBERT end to end: training the exits alone, adapters, INT8, and its tensors."""

import numpy as np
import pytest
import torch

from itrex_sweet import SweetConfig, SweetQuantizer, open_artifact
from itrex_sweet.artifact import write_artifact
from itrex_sweet.errors import ArtifactError
from itrex_sweet.quantization import quantizer as quantizer_file
from itrex_sweet.quantization.packing import quantizable_layers
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.encoder import QuantizedLinear
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.training import SweetCallback, attach, attachment_of, save_artifact
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import WORDS, model_and_tensors, random_rows, tiny_tokenizer
from tests.tiny_models import tiny_batch, tiny_model
from tests.training.trainers import trained

EXITS = (1, 3, 4)


def texts(count: int) -> list[str]:
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, generator.integers(2, 14))) for _ in range(count)]


@pytest.mark.parametrize("family", ["modernbert", "modernbert-biases"])
def test_exits_are_trained_on_a_frozen_model(family, tmp_path):
    model = tiny_model(family, dropout=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    callback = SweetCallback(exits=EXITS, train="exits", learn_to_exit=True)
    model = trained(tmp_path / "run", callback, model).model
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    start, batch = tiny_model(family), tiny_batch()
    attach(start, SweetConfig(exits=EXITS, mode="decoupled", learn_to_exit=True))
    moved = [
        name
        for name, value in start.state_dict().items()
        if "sweet_exits" in name and not torch.equal(after[name], value)
    ]
    for exit_ in EXITS[:-1]:
        for part in ("layer.attn.Wqkv.weight", "layer.mlp.Wi.weight", "final_norm.weight", "norm.weight"):
            assert f"sweet_exits.{exit_}.{part}" in moved
    model.eval()
    with torch.no_grad():
        model(**batch)
    expected = torch.stack([attachment_of(model).exit_logits[exit_] for exit_ in EXITS], 1)
    backend = load_backend(save_artifact(model, tmp_path / "artifact"), "torch")
    rows = TokenBatch.from_padded(batch["input_ids"].numpy(), batch["attention_mask"].numpy())
    np.testing.assert_allclose(Executor(backend, None).logits_at_every_exit(rows), expected, atol=1e-4)


@pytest.mark.parametrize("recipe", ["static", "smooth", "dynamic"])
@pytest.mark.parametrize("mode", ["sweet", "decoupled"])
def test_int8_is_close_to_float(monkeypatch, tmp_path, recipe, mode):
    monkeypatch.setattr(quantizer_file, "observe", observe_with_hooks)
    _, config, tensors = model_and_tensors("modernbert-biases", EXITS, mode=mode)
    source = write_artifact(tmp_path / "float", config=config, tensors=tensors, tokenizer=tiny_tokenizer("roberta"))
    quantizer = SweetQuantizer.from_pretrained(source.directory)
    artifact = quantizer.quantize(texts(60), tmp_path / "int8", recipe, rows=60, max_moved=1.0, embeddings="float32")
    layers = quantizable_layers(artifact)
    assert len(layers) == 4 * (4 + (2 if mode == "decoupled" else 0))
    assert {path.rpartition(".")[2] for path in layers} == {"Wqkv", "Wo", "Wi"}
    backend = load_backend(open_artifact(artifact.directory), "torch")
    layer = backend.encoder.trunk[1]
    parts = (layer.query, layer.key, layer.value, layer.attention_output, layer.up, layer.gate, layer.down)
    assert all(isinstance(part, QuantizedLinear) for part in parts)
    rows = TokenBatch.from_rows(random_rows(np.random.default_rng(3), [12, 3, 9, 1, 7], vocabulary=24))
    found, expected = (
        Executor(each, None).logits_at_every_exit(rows) for each in (backend, load_backend(source, "torch"))
    )
    error = np.abs(found - expected)
    assert 0 < np.median(error) < 0.05 * expected.std()


@pytest.mark.parametrize("name", ["model.layers.1.attn.Wqkv.bias", "model.layers.1.attn_norm.bias", "head.dense.bias"])
def test_a_bias_that_the_config_excludes_is_refused(tmp_path, name):
    _, config, tensors = model_and_tensors("modernbert", EXITS)
    tensors[name] = torch.zeros(len(tensors[name.replace("bias", "weight")]))
    write_artifact(tmp_path, config=config, tensors=tensors)
    with pytest.raises(ArtifactError, match=f"{name}.*config says is not there"):
        load_backend(open_artifact(tmp_path), "torch")


def test_adapters_are_merged_into_private_layers(tmp_path):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["Wqkv", "Wi", "Wo"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_model("modernbert"), settings)
    attach(model, SweetConfig(exits=EXITS, mode="decoupled"))
    batch = tiny_batch()
    model.eval()
    with torch.no_grad():
        model(**batch)
    expected = torch.stack([attachment_of(model).exit_logits[exit_] for exit_ in EXITS], 1)
    backend = load_backend(save_artifact(model, tmp_path), "torch")
    rows = TokenBatch.from_padded(batch["input_ids"].numpy(), batch["attention_mask"].numpy())
    np.testing.assert_allclose(Executor(backend, None).logits_at_every_exit(rows), expected, atol=1e-4)
