"""Sizes and options of a model, derived from its config."""

from __future__ import annotations

from typing import Any

from itrex_sweet.families import Family
from itrex_sweet.families.rotary import LayerPositions, layer_positions


class Architecture:
    """Sizes and options of one model.

    Args:
        config: transformers' object.
        family: of that config.
    """

    def __init__(self, config: Any, family: Family):
        self.config, self.family = config, family
        self.hidden: int = config.hidden_size
        self.depth: int = config.num_hidden_layers
        self.heads: int = config.num_attention_heads
        self.inner: int = getattr(config, family.inner_size)

    @property
    def head_size(self) -> int:
        """Hidden size of an attention head."""
        return self.hidden // self.heads

    @property
    def key_value_size(self) -> int:
        """Size of the keys and values of a token, over all heads."""
        return self.key_value_heads * self.head_size

    @property
    def key_value_heads(self) -> int:
        """Number of heads of keys and values."""
        key = self.family.key_value_heads
        return self.heads if key is None else getattr(self.config, key, None) or self.heads

    def has_bias(self, kind: str) -> bool:
        """Returns whether parts of a kind, see `Family.biases`, have a bias."""
        given = self.family.biases.get(kind, True)
        return given if isinstance(given, bool) else bool(getattr(self.config, given))

    def has_attention_norm(self, index: int) -> bool:
        """Returns whether a layer has a norm at its attention."""
        return index > 0 or self.family.first_attention_norm

    @property
    def layer_positions(self) -> tuple[LayerPositions, ...] | None:
        """Rotary positions and window of each layer; `None` if positions are not rotary."""
        if self.family.attention != "rotary":
            return None
        return layer_positions(self.config, self.family.local_layers, self.family.theta)

    # ------------------------------------------------------------------ embeddings

    @property
    def embedding_size(self) -> int:
        """Width of the embedding tables; if it differs from the hidden size, a projection follows."""
        may_differ = any(name.startswith("projection") for name in self.family.embeddings)
        return (getattr(self.config, "embedding_size", None) or self.hidden) if may_differ else self.hidden

    @property
    def positions(self) -> int:
        """Rows of the table of absolute positions; 0 if there is none."""
        if "positions" not in self.family.embeddings:
            return 0
        is_added = self.family.attention != "disentangled" or self.config.position_biased_input
        return self.config.max_position_embeddings if is_added else 0

    @property
    def token_types(self) -> int:
        """Rows of the table of token types; 0 if there is none."""
        return self.config.type_vocab_size if "token_types" in self.family.embeddings else 0

    # ------------------------------------------------------------------ relative positions

    @property
    def bias_buckets(self) -> int:
        """Number of distances with a bias of their own, see `Family.attention`; 0 without."""
        return self.config.relative_attention_num_buckets if self.family.attention == "biased" else 0

    @property
    def is_relative(self) -> bool:
        """True if attention scores have relative-position terms."""
        return self.family.attention == "disentangled" and bool(getattr(self.config, "relative_attention", False))

    @property
    def shares_position_weights(self) -> bool:
        """True if positions are projected by the key and query layers of the content."""
        return bool(getattr(self.config, "share_att_key", False))

    @property
    def position_terms(self) -> list[str]:
        """Relative-position terms of the scores: `"c2p"`, `"p2c"`, both or none."""
        terms = getattr(self.config, "pos_att_type", None) or []
        return [term for term in terms if term in ("c2p", "p2c")]

    @property
    def score_terms(self) -> int:
        """Number of terms of a score: content, and DeBERTa's relative-position terms (He et al. 2021, equation 4)."""
        return 1 + len(self.position_terms) if self.family.attention == "disentangled" else 1

    @property
    def max_distance(self) -> int:
        """Maximum distance between positions; greater distances count as this one."""
        configured = self.config.max_relative_positions
        return configured if configured >= 1 else self.config.max_position_embeddings

    @property
    def log_buckets(self) -> int:
        """Number of log buckets per direction, in which distant positions share one; 0 if each distance has its own."""
        configured = getattr(self.config, "position_buckets", None) or 0
        return max(configured, 0) if "table_norm" in self.family.relative else 0

    @property
    def buckets(self) -> int:
        """Number of buckets of relative positions per direction."""
        return self.log_buckets or self.max_distance

    @property
    def norms_table(self) -> bool:
        """True if the table of relative positions has a layer norm."""
        norms = (getattr(self.config, "norm_rel_ebd", None) or "none").lower().split("|")
        return "table_norm" in self.family.relative and "layer_norm" in [norm.strip() for norm in norms]

    @property
    def convolution_width(self) -> int:
        """Width of the convolution beside the first layer; 0 if there is none."""
        width = getattr(self.config, "conv_kernel_size", 0) or 0
        return width if "convolution" in self.family.relative else 0

    @property
    def convolution_groups(self) -> int:
        """Groups of that convolution."""
        return getattr(self.config, "conv_groups", None) or 1
