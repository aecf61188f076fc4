"""Names and shapes of the tensors of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from itrex_sweet.artifact.architecture import Architecture

OF_LINEAR = ("weight_scale", "input_scale", "input_zero_point", "input_smoothing")
OF_TABLE = ("weight_scale",)


@dataclass(frozen=True)
class ExpectedTensor:
    """Name and shape of one tensor.

    Args:
        name: name in Hugging Face's state dict.
        shape: required shape.
        optional: whether the tensor may be absent.
        companions: names of the quantization parameters beside it if it is stored in INT8; empty if it may not be.
        forbidden: whether the config excludes the tensor.
    """

    name: str
    shape: tuple[int, ...]
    optional: bool = False
    companions: tuple[str, ...] = ()
    forbidden: bool = False


def expected_tensors(
    model: Architecture,
    exits: Sequence[int],
    shares_pooler: bool,
    private_exits: Collection[int],
    learns_to_exit: bool,
) -> Iterator[ExpectedTensor]:
    """Yields the tensors of a model lazily, so that a reader can stop at the first missing one.

    Args:
        exits: counts of layers.
        shares_pooler: whether all exits use the model's own pooler.
        private_exits: exits with a copy of their last layer.
        learns_to_exit: whether exits have a layer that predicts their correctness.
    """
    yield from _embeddings(model)
    yield from _relative(model)
    yield from sinusoids_of(model)
    for index in range(model.depth):
        yield from _layer(model, f"{model.family.layers_path}.{index}", index)
    hidden, labels = model.hidden, model.config.num_labels
    for exit_ in exits:
        dense, out = model.family.head_paths(exit_, model.depth, shares_pooler)
        yield ExpectedTensor(f"{dense}.weight", (hidden, hidden))
        yield _bias(dense, hidden, model.has_bias("head"))
        yield from _linear(out, labels, hidden)
        for norm in filter(None, model.family.norm_paths(exit_, model.depth)):
            yield from _norm(model, norm)
        if exit_ in private_exits:
            yield from _layer(model, model.family.private_layer_path(exit_), exit_ - 1)
        if learns_to_exit and exit_ != model.depth:
            yield from _linear(model.family.correctness_path(exit_), 1, hidden)


def unexpected_tables(model: Architecture) -> list[str]:
    """Returns names of the family's embedding tables and projections that a model with this config does not have."""
    embeddings = model.family.embeddings
    absent = []
    if not model.positions:
        absent.append("positions")
    if not model.token_types:
        absent.append("token_types")
    if model.embedding_size == model.hidden:
        absent += [name for name in embeddings if name.startswith("projection")]
    return [_in_backbone(model, embeddings[name], "weight") for name in absent if name in embeddings]


def unexpected_private_layers(model: Architecture, exits: Sequence[int], names: Iterable[str]) -> list[str]:
    """Returns the names that belong to private layers.

    Args:
        exits: exits without private layer.
    """
    paths = tuple(f"{model.family.private_layer_path(exit_)}." for exit_ in exits)
    return [name for name in names if name.startswith(paths)]


def _in_backbone(model: Architecture, path: str, part: str | None = None) -> str:
    return ".".join(filter(None, (model.family.backbone, path, part)))


def _embeddings(model: Architecture) -> Iterator[ExpectedTensor]:
    paths, size = model.family.embeddings, model.embedding_size
    for name, rows in (
        ("words", model.config.vocab_size),
        ("positions", model.positions),
        ("token_types", model.token_types),
    ):
        if rows:
            companions = OF_TABLE if name == "words" else ()
            yield ExpectedTensor(_in_backbone(model, paths[name], "weight"), (rows, size), companions=companions)
    before = "projection_before_norm" in paths and size != model.hidden
    after = "projection_after_norm" in paths and size != model.hidden
    if "norm" in paths:
        yield from _norm(model, _in_backbone(model, paths["norm"]), model.hidden if before else size)
    if before:
        yield from _linear(_in_backbone(model, paths["projection_before_norm"]), model.hidden, size, has_bias=False)
    if after:
        yield from _linear(_in_backbone(model, paths["projection_after_norm"]), model.hidden, size)


def _relative(model: Architecture) -> Iterator[ExpectedTensor]:
    paths: Mapping[str, str] = model.family.relative
    if model.is_relative:
        yield ExpectedTensor(_in_backbone(model, paths["table"], "weight"), (2 * model.buckets, model.hidden))
        if model.norms_table:
            yield from _norm(model, _in_backbone(model, paths["table_norm"]))
    if model.bias_buckets:
        yield ExpectedTensor(_in_backbone(model, paths["bias"], "weight"), (model.bias_buckets, model.heads))
    if width := model.convolution_width:
        path = _in_backbone(model, paths["convolution"])
        yield ExpectedTensor(f"{path}.weight", (model.hidden, model.hidden // model.convolution_groups, width))
        yield ExpectedTensor(f"{path}.bias", (model.hidden,))
        yield from _norm(model, _in_backbone(model, paths["convolution_norm"]))


def sinusoids_of(model: Architecture) -> Iterator[ExpectedTensor]:
    """Yields the table of sines and cosines of a family that has one, see `Family.sinusoids`."""
    if model.family.sinusoids is not None:
        shape = (model.config.max_position_embeddings, model.head_size)
        yield ExpectedTensor(_in_backbone(model, model.family.sinusoids, "weight"), shape, optional=True)


def _layer(model: Architecture, path: str, index: int) -> Iterator[ExpectedTensor]:
    hidden, inner = model.hidden, model.inner
    names = {name: f"{path}.{below}" for name, below in model.family.layer.items()}
    has_bias = model.has_bias("attention")
    if "query_bias" in names:
        yield ExpectedTensor(f"{names['query_key_value']}.weight", (3 * hidden, hidden), companions=OF_LINEAR)
        yield ExpectedTensor(f"{names['query_key_value']}.bias", (3 * hidden,), optional=True)
        yield ExpectedTensor(names["query_bias"], (hidden,))
        yield ExpectedTensor(names["value_bias"], (hidden,))
    elif "query_key_value" in names:
        yield from _projection(names["query_key_value"], 3 * hidden, hidden, has_bias)
    else:
        for name, size in (("query", hidden), ("key", model.key_value_size), ("value", model.key_value_size)):
            yield from _projection(names[name], size, hidden, has_bias)
    yield from _projection(names["attention_output"], hidden, hidden, has_bias)
    if model.has_attention_norm(index):
        yield from _norm(model, names["attention_norm"])
    if "up_gate" in names:
        yield from _projection(names["up_gate"], 2 * inner, hidden, model.has_bias("up"))
    else:
        for name in ("up", "gate"):
            if name in names:
                yield from _projection(names[name], inner, hidden, model.has_bias("up"))
    yield from _projection(names["down"], hidden, inner, model.has_bias("down"))
    yield from _norm(model, names["output_norm"])
    if model.is_relative and not model.shares_position_weights:
        fused = "query_key_value" in names  # DeBERTa, whose position keys have no bias
        if "c2p" in model.position_terms:
            below = model.family.relative["position_key"]
            yield from _linear(f"{path}.{below}", hidden, hidden, has_bias=not fused)
        if "p2c" in model.position_terms:
            yield from _linear(f"{path}.{model.family.relative['position_query']}", hidden, hidden)


def _linear(path: str, out: int, in_: int, has_bias: bool = True) -> Iterator[ExpectedTensor]:
    yield ExpectedTensor(f"{path}.weight", (out, in_))
    yield ExpectedTensor(f"{path}.bias", (out,), optional=not has_bias)


def _projection(path: str, out: int, in_: int, has_bias: bool) -> Iterator[ExpectedTensor]:
    yield ExpectedTensor(f"{path}.weight", (out, in_), companions=OF_LINEAR)
    yield _bias(path, out, has_bias)


def _norm(model: Architecture, path: str, size: int | None = None) -> Iterator[ExpectedTensor]:
    size = model.hidden if size is None else size
    yield ExpectedTensor(f"{path}.weight", (size,))
    yield _bias(path, size, model.has_bias("norm"))


def _bias(path: str, size: int, is_there: bool) -> ExpectedTensor:
    return ExpectedTensor(f"{path}.bias", (size,), optional=not is_there, forbidden=not is_there)
