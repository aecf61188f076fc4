"""Tests of base and large shapes with random weights: probes equal full layers."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    ModernBertConfig,
    RobertaConfig,
    RoFormerConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from itrex_sweet import SweetModelForSequenceClassification, attach, save_artifact
from itrex_sweet.config import default_exits

LARGE = dict(hidden_size=1024, num_hidden_layers=3, num_attention_heads=16, intermediate_size=4096)
V3 = dict(
    relative_attention=True,
    pos_att_type=["p2c", "c2p"],
    position_buckets=256,
    share_att_key=True,
    norm_rel_ebd="layer_norm|none",
    position_biased_input=False,
    max_relative_positions=-1,
    type_vocab_size=0,
)
MODERN = dict(vocab_size=1000, pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2)


def modern(hidden: int, layers: int, heads: int, inner: int, local_theta: float, **changes: object) -> ModernBertConfig:
    """Returns a config of ModernBERT's code, pooled by the mean as the published checkpoints."""
    sizes = dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner)
    thetas = dict(global_rope_theta=160000.0, local_rope_theta=local_theta)
    return ModernBertConfig(**{**MODERN, **sizes, **thetas, "classifier_pooling": "mean", **changes})


SHAPES = {  # vocabularies, and most depths, are cut: they have no part in the shape of a layer
    "bert-base, 4 layers": BertConfig(vocab_size=1000, num_hidden_layers=4),
    "roberta-large, 3 layers": RobertaConfig(vocab_size=1000, max_position_embeddings=514, **LARGE),
    "deberta-v3-base, 4 layers": DebertaV2Config(
        vocab_size=1000, hidden_size=768, num_hidden_layers=4, num_attention_heads=12, intermediate_size=3072, **V3
    ),
    "modernbert-base, 4 layers": modern(768, 4, 12, 1152, 10000.0),
    "roformer-base, 4 layers": RoFormerConfig(vocab_size=1000, num_hidden_layers=4),
    "ettin-17m": modern(256, 7, 4, 384, 160000.0),
    "granite-small, 4 layers": modern(384, 4, 12, 1536, 10000.0, classifier_pooling="cls", hidden_activation="silu"),
}
if "eurobert" in CONFIG_MAPPING:
    EURO = dict(vocab_size=1000, pad_token_id=0, bos_token_id=1, eos_token_id=2, rope_theta=250000.0)
    SHAPES |= {
        "eurobert-210m, 4 layers": CONFIG_MAPPING["eurobert"](num_hidden_layers=4, **EURO),
        "eurobert-610m, 3 layers": CONFIG_MAPPING["eurobert"](
            hidden_size=1152,
            num_hidden_layers=3,
            num_attention_heads=18,
            num_key_value_heads=6,
            intermediate_size=4096,
            **EURO,
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_full_shape_trains_saves_and_predicts(shape, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(SHAPES[shape])
    attachment = attach(model)
    depth = model.config.num_hidden_layers
    assert attachment.exits == default_exits(depth)
    ids = torch.randint(5, 1000, (3, 150))  # longer than twice the window of a local layer
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    model(**inputs, labels=torch.tensor([0, 1, 0])).loss.backward()
    assert all(parameter.grad is not None for _, parameter in attachment.head_parameters())
    with torch.inference_mode():
        expected = model.eval()(**inputs).logits
    save_artifact(model, tmp_path)
    early = SweetModelForSequenceClassification.from_pretrained(tmp_path, threshold=1.0)
    answer = early(input_ids=ids)
    np.testing.assert_allclose(answer.logits, expected, atol=1e-4)
    by_exit = early.executor.logits_at_every_exit(_packed(early, ids))
    for place, exit_ in enumerate(attachment.exits):
        np.testing.assert_allclose(by_exit[:, place], attachment.exit_logits[exit_], atol=1e-4)
    assert set(answer.exit_layer.tolist()) == {depth}


def _packed(early, ids):
    from itrex_sweet.runtime.ragged import TokenBatch

    return TokenBatch.from_padded(ids.numpy(), padding_idx=early.backend.padding_idx)
