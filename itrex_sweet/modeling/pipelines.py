"""Transformers' text-classification pipeline for early-exit models; importing it registers it."""

from __future__ import annotations

from collections.abc import Mapping
from types import GeneratorType
from typing import Any

import torch
from transformers.pipelines import PIPELINE_REGISTRY, TextClassificationPipeline

from itrex_sweet.classifier.predictions import NOT_FINITE, checked_top_k, unanswered
from itrex_sweet.defaults import REFUSE, TRUNCATE
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from itrex_sweet.tokenization.inputs import listed

_STOPPING = ("threshold", "policy", "quality", "max_exit", "deadline_ms")
_TRUNCATION = {True: TRUNCATE, "longest_first": TRUNCATE, False: REFUSE, "do_not_truncate": REFUSE}
_FUNCTIONS = ("softmax", "sigmoid", "none")
_FUNCTION_OF_TASK = {SINGLE_LABEL: "softmax", MULTI_LABEL: "sigmoid", REGRESSION: "none"}


class SweetTextClassificationPipeline(TextClassificationPipeline):
    """The pipeline of transformers, with what early exits add: where a row left, and when it may.

    `pipeline("text-classification", model=model, tokenizer=model.tokenizer)` makes one. Its scores are those of
    `model.predict`. Beside the parent's parameters, at creation and at each call, it takes `predict`'s `threshold`,
    `policy`, `quality`, `max_exit` and `deadline_ms`, and each result also has `exit_layer`, `confidence` and
    `stopped_by`. Texts that are too long are cut at the model's limit, or at `max_length`; `truncation=False` makes
    them an error. A row whose logits are not finite has `error` in place of an answer.

    With a model of another class this makes the parent's pipeline, unchanged.

    Raises:
        InputError: what is no text, pair of texts or ordered collection of them.
        ConfigError: what a call says about stopping, length or `top_k` does not fit.
        TypeError: an unknown parameter.
    """

    def __new__(cls, model: Any = None, **kwargs: Any) -> Any:
        if model is not None and not isinstance(model, SweetModelForSequenceClassification):
            return TextClassificationPipeline(model=model, **kwargs)
        return super().__new__(cls)

    def __init__(self, model: SweetModelForSequenceClassification, **kwargs: Any):
        if kwargs.get("device") is None:
            kwargs["device"] = "cpu"  # the parent takes the first GPU
        if kwargs.get("tokenizer") is None:
            kwargs["tokenizer"] = model.tokenizer
        kwargs.setdefault("task", "text-classification")
        super().__init__(model=model, **kwargs)

    def check_model_type(self, supported_models: Any) -> None:
        """Accepts the model: `__new__` has looked at its class."""

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Classifies texts: what `model.predict` takes, one text or `{"text", "text_pair"}`, a generator or a dataset.

        Returns:
            as the parent: for one text a list of one result, for a list one each, else an iterator.
        """
        if not isinstance(inputs, (str, Mapping, GeneratorType, torch.utils.data.Dataset)):
            inputs = listed(inputs)
            if not inputs:
                return []
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, top_k: Any = "", **kwargs: Any) -> tuple[dict, dict, dict]:
        stopping = {name: kwargs.pop(name) for name in _STOPPING if name in kwargs}
        reading = {"max_length": kwargs.pop("max_length")} if "max_length" in kwargs else {}
        kwargs.pop("padding", None)  # batches are padded as they need it, and the model drops padding
        truncation = kwargs.pop("truncation", None)
        if truncation is not None:
            if not isinstance(truncation, (bool, str)) or truncation not in _TRUNCATION:
                raise ConfigError(f"truncation={truncation!r}: choose one of {', '.join(map(repr, _TRUNCATION))}.")
            reading["overlong"] = _TRUNCATION[truncation]
        if top_k != "":  # the parent's mark for absent
            top_k = None if (top_k := checked_top_k(top_k)) == "all" else top_k
        function = kwargs.get("function_to_apply")
        if isinstance(function, str) and function.lower() not in _FUNCTIONS:
            raise ConfigError(f"function_to_apply={function!r}: choose one of {', '.join(_FUNCTIONS)}.")
        unknown, _, shown = super()._sanitize_parameters(top_k=top_k, **kwargs)
        if unknown:
            known = ", ".join((*_STOPPING, "max_length", "truncation", "top_k", "function_to_apply"))
            raise TypeError(f"the pipeline has no parameter {', '.join(map(repr, unknown))}; it has {known}.")
        return reading, stopping, shown

    def preprocess(self, inputs: Any, max_length: int | None = None, overlong: str = TRUNCATE) -> dict[str, Any]:
        reading = self.model.reader_of(self.tokenizer).read([inputs], max_length, overlong)
        if reading.errors:
            raise InputError(f"{reading.errors[0]}.", (0,))
        ids = torch.from_numpy(reading.batch.input_ids)[None]
        types = torch.from_numpy(reading.batch.token_type_ids)[None]
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": torch.ones_like(ids)}

    def _forward(self, model_inputs: dict[str, torch.Tensor], **stopping: Any) -> Any:
        return self.model(**model_inputs, **stopping)

    def postprocess(self, model_outputs: Any, function_to_apply: Any = None, **kwargs: Any) -> Any:
        # `stopped_by` is text, which the parent class leaves as it is where it cuts batches into rows.
        why = model_outputs["stopped_by"]
        left = {
            "exit_layer": model_outputs["exit_layer"][0].item(),
            "confidence": model_outputs["confidence"][0].item(),
            "stopped_by": why if isinstance(why, str) else why[0],
        }
        if not torch.isfinite(model_outputs["logits"][0]).all():
            results = unanswered(NOT_FINITE)
            return results if kwargs.get("_legacy", True) else [results]
        # The parent infers another function from the config: softmax for a single label, a logistic function for one
        # without `problem_type`.
        function = function_to_apply or _FUNCTION_OF_TASK[self.model.artifact.task.name]
        results = super().postprocess(model_outputs, function_to_apply=function, **kwargs)
        return {**results, **left} if isinstance(results, dict) else [{**result, **left} for result in results]


# "sentiment-analysis" is an alias of this entry.
_tasks = PIPELINE_REGISTRY.supported_tasks
_tasks["text-classification"] = {**_tasks["text-classification"], "impl": SweetTextClassificationPipeline}
