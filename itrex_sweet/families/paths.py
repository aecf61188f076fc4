"""Paths of the parts of a layer and of the embeddings in the models of transformers, by their canonical names."""

BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
ROBERTA_PRELAYERNORM_LAYER = {
    **BERT_LAYER,
    "attention_norm": "attention.LayerNorm",
    "output_norm": "intermediate.LayerNorm",
}
_AFTER_ATTENTION = {name: path for name, path in BERT_LAYER.items() if name not in ("query", "key", "value")}
DEBERTA_LAYER = {
    "query_key_value": "attention.self.in_proj",
    "query_bias": "attention.self.q_bias",
    "value_bias": "attention.self.v_bias",
    **_AFTER_ATTENTION,
}
DEBERTA_V2_LAYER = {
    "query": "attention.self.query_proj",
    "key": "attention.self.key_proj",
    "value": "attention.self.value_proj",
    **_AFTER_ATTENTION,
}
MODERNBERT_LAYER = {
    "attention_norm": "attn_norm",
    "query_key_value": "attn.Wqkv",
    "attention_output": "attn.Wo",
    "output_norm": "mlp_norm",
    "up_gate": "mlp.Wi",  # rows of `up`, then of `gate`
    "down": "mlp.Wo",
}
XLM_ROBERTA_XL_LAYER = {
    **BERT_LAYER,
    "attention_norm": "attention.self_attn_layer_norm",
    "output_norm": "LayerNorm",
}
MEGATRON_BERT_LAYER = {**BERT_LAYER, "attention_norm": "attention.ln", "output_norm": "ln"}
ROTARY_LAYER = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_output": "self_attn.o_proj",
    "attention_norm": "post_attention_layernorm",
    "output_norm": "post_mlp_layernorm",
}
MPNET_LAYER = {
    **BERT_LAYER,
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "attention_output": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
}
# The activation follows `gate_proj`, so that is `up` in the terms of `runtime.encoder.Layer`.
GATED_LAYER = {**ROTARY_LAYER, "up": "mlp.gate_proj", "gate": "mlp.up_proj", "down": "mlp.down_proj"}
EUROBERT_LAYER = {
    **GATED_LAYER,
    "attention_norm": "input_layernorm",
    "output_norm": "post_attention_layernorm",
}
UNGATED_LAYER = {**ROTARY_LAYER, "up": "mlp.fc1", "down": "mlp.fc2"}
BERT_EMBEDDINGS = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
DISTILBERT_EMBEDDINGS = {name: path for name, path in BERT_EMBEDDINGS.items() if name != "token_types"}
ROTARY_EMBEDDINGS = {name: path for name, path in BERT_EMBEDDINGS.items() if name != "positions"}
EMBEDDINGS_WITHOUT_NORM = {name: path for name, path in BERT_EMBEDDINGS.items() if name != "norm"}
DEBERTA_EMBEDDINGS = {**BERT_EMBEDDINGS, "projection_before_norm": "embeddings.embed_proj"}
