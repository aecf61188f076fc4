"""The YAML front matter of a model card, read by the Hugging Face hub."""

from __future__ import annotations

import json
import re

from itrex_sweet.artifact import Artifact

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def front_matter(artifact: Artifact, metric: str | None, base_model: str | None, dataset: str | None) -> str:
    """Returns the front matter of a model card, between lines of dashes.

    Args:
        metric: name of the reported metric, if any.
        base_model, dataset: names on the hub; other values are ignored.
    """
    lines = ["---", "library_name: itrex-sweet", "pipeline_tag: text-classification", "tags:"]
    tags = [
        "text-classification",
        "early-exit",
        "adaptive-inference",
        "cpu",
        artifact.config.get("model_type"),
    ]
    lines += [f"- {_scalar(tag)}" for tag in tags if tag]
    if base_model and _HUB_NAME.fullmatch(base_model):
        lines.append(f"base_model: {_scalar(base_model)}")
    if dataset and _HUB_NAME.fullmatch(dataset):
        lines += ["datasets:", f"- {_scalar(dataset)}"]
    if metric is not None:
        lines += ["metrics:", f"- {_scalar(metric)}"]
    return "\n".join([*lines, "---"])


def _scalar(text: str) -> str:
    """Returns a YAML scalar; JSON strings are valid YAML."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", text) and text.lower() not in (
        "true",
        "false",
        "null",
        "yes",
        "no",
        "on",
        "off",
    )
    return text if plain else json.dumps(text, ensure_ascii=False)
