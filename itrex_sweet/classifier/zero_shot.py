"""Zero-shot classification with an NLI model: each candidate label is a hypothesis about the text (Yin et al. 2019,
arXiv 1909.00161)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.classifier.predictions import calibrated_logits, exit_layers
from itrex_sweet.classifier.predictor import Predictor
from itrex_sweet.defaults import TRUNCATE
from itrex_sweet.errors import ConfigError, InputError, NonFiniteLogitsError
from itrex_sweet.policy import Policy
from itrex_sweet.probabilities import softmax
from itrex_sweet.runtime.request import Threshold
from itrex_sweet.runtime.shutdown import finish_before_exit
from itrex_sweet.tasks import SINGLE_LABEL
from itrex_sweet.tokenization.inputs import listed

HYPOTHESIS_TEMPLATE = "This example is {}."  # the default of transformers
_ENTAILED, _CONTRADICTED = ("entail",), ("contradict", "not")  # beginnings of label names


class ZeroShot(Predictor):
    """The zero-shot part of `Classifier`."""

    @finish_before_exit
    def zero_shot(
        self,
        texts: Iterable[str],
        candidate_labels: Sequence[str] | str,
        *,
        hypothesis_template: str = HYPOTHESIS_TEMPLATE,
        multi_label: bool = False,
        threshold: Threshold | None = None,
        policy: Policy | None = None,
        quality: float | None = None,
        max_exit: int | None = None,
        deadline_ms: float | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        tokenizer: Any = None,
    ) -> list[dict[str, Any]]:
        """Classifies texts into labels that the model was not trained on, by a model for natural language inference.

        Each text is paired with one hypothesis per label; scores are those of transformers' pipeline
        `"zero-shot-classification"`. Each pair leaves at the first exit that is confident enough whether the hypothesis
        is entailed: with the criterion `"max_probability"` the confidence is `max(p, 1 - p)` of the probability of
        entailment. A calibration's guarantee is about the labels of pairs, and not about this decision.

        Args:
            texts: a list of strings, or another ordered iterable of them; may be empty.
            candidate_labels: different names, or one string of names separated by commas.
            hypothesis_template: a text with `{}` in the place of the label.
            multi_label: whether labels are independent of one another. If not, the scores of a text sum to 1.
            threshold, policy, quality, max_exit, deadline_ms, batch_size, max_length: as of `predict`, for the pairs.
            tokenizer: replaces that of the model.

        Returns:
            One dictionary per text, in order: `labels` by descending score, their `scores`, and `exit_layers`, the exit
            that answered each pair, as a number of layers.

        Raises:
            ConfigError: the model has no label whose name begins with "entail" (and for `multi_label`, or one candidate
                label, "contradict" or "not"), or an option is wrong.
            InputError: a text that is no string or cannot be read, or candidate labels that are no different names.
            NonFiniteLogitsError: logits are NaN or infinite.
        """
        names = checked_candidates(candidate_labels)
        hypotheses = [hypothesis(hypothesis_template, name) for name in names]
        independent = multi_label or len(names) == 1
        entailed = self._label_named(*_ENTAILED)
        compared = [self._label_named(*_CONTRADICTED), entailed] if independent else [entailed]
        request = self._request(threshold, policy, quality, max_exit, deadline_ms)
        if request.policy.criterion == "max_probability":
            request = dataclasses.replace(request, policy=dataclasses.replace(request.policy, target_label=entailed))
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size, minimum=1)
        texts = _checked_texts(texts)
        pairs = [(text, each) for text in texts for each in hypotheses]
        reading = self._read(pairs, max_length, TRUNCATE, tokenizer)
        for row, reason in reading.errors.items():
            raise InputError(f"row {row // len(names)}: {reason}", (row // len(names),))
        answers = self._answers(reading.batch, request, batch_size)
        logits = calibrated_logits(answers, request.policy).reshape(len(texts), len(names), self.backend.num_labels)
        scores = softmax(logits[..., compared])[..., -1] if independent else softmax(logits[..., entailed])
        broken = np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist()
        if broken:
            raise NonFiniteLogitsError(f"the model's logits are not finite for rows {broken}.", tuple(broken), [])
        layers = exit_layers(self.artifact, answers).reshape(scores.shape)
        orders = np.argsort(-scores, axis=1, kind="stable")
        return [
            {
                "labels": [names[place] for place in order],
                "scores": score[order].tolist(),
                "exit_layers": layer[order].tolist(),
            }
            for order, score, layer in zip(orders, scores, layers, strict=True)
        ]

    def _label_named(self, *beginnings: str) -> int:
        """Returns the id of the first label whose name begins with one of these."""
        names = [str(name) for name in self._label_names()]
        found = [place for place, name in enumerate(names) if name.lower().startswith(beginnings)]
        if not found or self.artifact.task.name != SINGLE_LABEL:
            raise ConfigError(
                "zero-shot classification needs a model for natural language inference, with a label whose name begins "
                f"with {' or '.join(map(repr, beginnings))} in id2label of config.json; this one has "
                f"{', '.join(names[:10])}."
            )
        return found[0]


def checked_candidates(candidate_labels: Any) -> list[str]:
    """Returns candidate labels as a list.

    Raises:
        InputError: no label, one twice, or one that is not a string.
    """
    if isinstance(candidate_labels, str):
        candidate_labels = [name.strip() for name in candidate_labels.split(",") if name.strip()]
    names = list(candidate_labels) if isinstance(candidate_labels, Iterable) else []
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"candidate label {name!r}: a label is a string that is not empty.")
    if not names or len(set(names)) < len(names):
        raise InputError(f"candidate_labels={candidate_labels!r}: a sequence of different names is needed.")
    return names


def hypothesis(template: Any, name: str) -> str:
    """Returns the hypothesis for a label.

    Raises:
        ConfigError: the template has no place for it.
    """
    try:
        text = template.format(name)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise ConfigError(f"hypothesis_template={template!r} cannot be filled in: {error!r}.") from error
    if text == template:
        raise ConfigError(f"hypothesis_template={template!r}: it needs {{}} in the place of the label.")
    return text


def _checked_texts(texts: Any) -> list[str]:
    texts = listed(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"row {row}: {type(text).__name__}; zero-shot classification takes strings.", (row,))
    return texts
