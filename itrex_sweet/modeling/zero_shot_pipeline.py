"""Transformers' zero-shot-classification pipeline for early-exit models; importing it registers it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from transformers.pipelines import PIPELINE_REGISTRY, ZeroShotClassificationPipeline

from itrex_sweet.classifier.zero_shot import HYPOTHESIS_TEMPLATE
from itrex_sweet.errors import ConfigError
from itrex_sweet.modeling.model import SweetModelForSequenceClassification

_STOPPING = ("threshold", "policy", "quality", "max_exit", "deadline_ms")
_PARAMETERS = ("candidate_labels", "hypothesis_template", "multi_label", "batch_size", "max_length", *_STOPPING)
_TEXTS_AT_ONCE = 64


class SweetZeroShotClassificationPipeline(ZeroShotClassificationPipeline):
    """The pipeline of transformers, by `model.zero_shot`: all pairs of text and hypothesis are computed in batches, and
    each leaves at the exit that is confident enough.

    `pipeline("zero-shot-classification", model=model, tokenizer=model.tokenizer)` makes one. Beside the parent's
    parameters it takes `threshold`, `policy`, `quality`, `max_exit` and `deadline_ms`, at creation and at each call,
    and each result also has `exit_layers`.

    With a model of another class this makes the parent's pipeline, unchanged.

    Raises:
        ConfigError, InputError: as of `model.zero_shot`.
        TypeError: an unknown parameter.
    """

    def __new__(cls, *args: Any, model: Any = None, **kwargs: Any) -> Any:
        if model is not None and not isinstance(model, SweetModelForSequenceClassification):
            return ZeroShotClassificationPipeline(*args, model=model, **kwargs)
        return super().__new__(cls)

    def __init__(self, *args: Any, model: SweetModelForSequenceClassification, **kwargs: Any):
        if kwargs.get("device") is None:
            kwargs["device"] = "cpu"  # the parent takes the first GPU
        if kwargs.get("tokenizer") is None:
            kwargs["tokenizer"] = model.tokenizer
        kwargs.setdefault("task", "zero-shot-classification")
        self._given: dict[str, Any] = {name: kwargs.pop(name) for name in _PARAMETERS if name in kwargs}
        super().__init__(*args, model=model, **kwargs)

    def check_model_type(self, supported_models: Any) -> None:
        """Accepts the model: `__new__` has checked its class."""

    def __call__(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Classifies a text, a list of texts or another iterable of them.

        Returns:
            for one text a dictionary with `sequence`, `labels`, `scores` and `exit_layers`; for a list one each;
            else an iterator.
        """
        if args and ("candidate_labels" in kwargs or len(args) > 1):
            raise ValueError(f"Unable to understand extra arguments {args}")
        settings = {**self._given, **({"candidate_labels": args[0]} if args else {}), **kwargs}
        settings.pop("truncation", None)  # texts are always cut at the model's limit
        settings.pop("num_workers", None)
        unknown = sorted(settings.keys() - set(_PARAMETERS))
        if unknown:
            raise TypeError(
                f"the pipeline has no parameter {', '.join(unknown)}; its parameters are {', '.join(_PARAMETERS)}."
            )
        if settings.get("candidate_labels") is None:
            raise ConfigError("candidate_labels is missing: pipeline(texts, candidate_labels=[...]).")
        settings.setdefault("hypothesis_template", HYPOTHESIS_TEMPLATE)
        if isinstance(sequences, str):
            return self._answered([sequences], settings)[0]
        if isinstance(sequences, Iterator):
            return self._streamed(sequences, settings)
        return self._answered(list(sequences), settings)

    def _answered(self, texts: list[Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
        answers = self.model.zero_shot(texts, tokenizer=self.tokenizer, **settings)
        return [{"sequence": text, **answer} for text, answer in zip(texts, answers, strict=True)]

    def _streamed(self, texts: Iterable[Any], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        texts = iter(texts)
        while chunk := list(islice(texts, _TEXTS_AT_ONCE)):
            yield from self._answered(chunk, settings)


_tasks = PIPELINE_REGISTRY.supported_tasks
_tasks["zero-shot-classification"] = {
    **_tasks["zero-shot-classification"],
    "impl": SweetZeroShotClassificationPipeline,
}
