"""`SweetQuantizer`: a float32 artifact in, an INT8 artifact out."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itrex_sweet.arguments import real_number, whole_number
from itrex_sweet.artifact import CASCADE, INT8, Artifact, write_artifact, write_card
from itrex_sweet.artifact.fingerprints import QUANTIZATION
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.errors import ConfigError
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.progress import progress_bar
from itrex_sweet.extras import require_installed
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.quantization.calibration_rows import CalibrationRows, read_calibration_rows, warn_about_seen_rows
from itrex_sweet.quantization.comparison import ExitComparison, Limits
from itrex_sweet.quantization.observation import Observations, observe
from itrex_sweet.quantization.packing import quantizable_layers
from itrex_sweet.quantization.recipe_search import RECIPES, Candidate, Search
from itrex_sweet.runtime.torch_threads import on_own_threads

logger = logging.getLogger(__name__)

AUTO = "auto"
DEFAULT_ROWS = 200

_IN_FLOAT = "embeddings, layer norms, softmax, activations, heads; in a probe, the products with keys and values"


class SweetQuantizer:
    """Quantizes an early-exit classifier to INT8 with Neural Compressor.

    `SweetQuantizer.from_pretrained(DIR).quantize(calibration_dataset, save_directory=OTHER)`.
    """

    def __init__(self, model: SweetModelForSequenceClassification, threads: int | None = None):
        if not isinstance(model, SweetModelForSequenceClassification):
            raise ConfigError(
                f"model is of type {type(model).__name__}: a SweetModelForSequenceClassification is needed."
            )
        _refuse_what_cannot_be_quantized(model.artifact)
        self.model = model
        self.asked_threads = threads

    @classmethod
    def from_pretrained(
        cls, model_id: str | os.PathLike, *, threads: int | None = None, **options: Any
    ) -> SweetQuantizer:
        """Loads a float32 artifact from a folder or the hub.

        Args:
            model_id: a folder, or a repository on the hub.
            threads: to observe, quantize and compare with; as many as torch is set to if absent.
            options: as of `SweetModelForSequenceClassification.from_pretrained`.

        Raises:
            ArtifactError: not there, not an artifact, or corrupt.
            ConfigError: it is quantized already, a cascade, or a number of threads that is none.
        """
        options = {"backend": "torch", "threads": threads, **options}
        return cls(SweetModelForSequenceClassification.from_pretrained(model_id, **options), threads)

    @on_own_threads
    def quantize(
        self,
        calibration_dataset: Any,
        save_directory: str | os.PathLike,
        recipe: str = AUTO,
        *,
        rows: int = DEFAULT_ROWS,
        max_drop: float = Limits.drop,
        max_moved: float = Limits.moved,
        smoothing_alpha: float = 0.5,
        seed: int = 0,
        max_length: int | None = None,
        text_column: str | None = None,
        pair_column: str | None = None,
        label_column: str | None = "label",
        label_meanings: Sequence[str] | Mapping[str, str] | None = None,
        split: str | None = None,
        dataset_config: str | None = None,
    ) -> Artifact:
        """Observes ranges, quantizes, judges every exit, fits temperatures and thresholds anew, and writes.

        Of the rows given, `rows` are taken at random to observe activation ranges on, and up to 1000 of the others to
        compare with the float model and to fit temperatures on; where fewer than 100 others are left, the same rows
        serve both.

        Args:
            calibration_dataset: a file or `datasets` name, a `datasets.Dataset` with texts or with `input_ids`, or a
                list of texts or pairs. Neither trained on nor reported on. With labels, exits are judged by accuracy
                and temperatures fitted; without, by agreement with the float model.
            save_directory: of the INT8 artifact; replaced only once the new one is whole.
            recipe: `"static"` (one scale per tensor), `"smooth"` (SmoothQuant, then static), `"dynamic"` (one scale
                per row, at run time), or `"auto"` for the cheapest of these within the limits.
            rows: to observe ranges on.
            max_drop: what `"auto"` may lose of the score at any exit, as a share; 0.01 is one point.
            max_moved: what share of the rows `"auto"` may let leave at another exit than before.
            smoothing_alpha: how much of the difficulty moves from activations to weights (SmoothQuant's alpha).
            seed: of the choice of rows.
            max_length: tokens per row at most.
            text_column, pair_column, label_column, label_meanings, split, dataset_config: where texts and labels are,
                and what labels mean, as in `itrex_sweet.data.read_rows`.

        Returns:
            the INT8 artifact; its `quantization` holds the comparison.

        Raises:
            MissingExtraError: Neural Compressor is not installed.
            ConfigError: an unknown recipe, an impossible setting, or the model's own folder as the target.
            InputError: calibration rows that are too few or cannot be read.
            QuantizationError: weights or activations are not finite, or nothing is within the limits of `"auto"`.
            ArtifactError: the folder cannot be written; what it held before is untouched.
        """
        rows, seed = whole_number("rows", rows, 1), whole_number("seed", seed, 0)
        max_drop, max_moved = _share("max_drop", max_drop), _share("max_moved", max_moved)
        smoothing_alpha = _share("smoothing_alpha", smoothing_alpha)
        self._refuse(recipe, save_directory)
        require_installed("neural_compressor", "quantization")
        require_writable(Path(save_directory))
        source = self.model.artifact
        columns = dict(
            split=split,
            text_column=text_column,
            pair_column=pair_column,
            label_column=label_column,
            label_meanings=label_meanings,
            dataset_config=dataset_config,
        )
        chosen = read_calibration_rows(self.model, calibration_dataset, rows, seed, max_length=max_length, **columns)
        shared = warn_about_seen_rows(self.model, chosen)
        size = self.model.executor.batch_size
        judge = ExitComparison(source, chosen, size)

        def look(recipe: str) -> Observations:
            with progress_bar(recipe, len(chosen.observed), "row") as bar:
                return observe(
                    source,
                    chosen.observed,
                    recipe,
                    alpha=smoothing_alpha,
                    batch_size=size,
                    progress=functools.partial(_show, bar),
                )

        search = Search(judge, look)
        limits = Limits(max_drop, max_moved)
        candidate = search.cheapest_within(limits) if recipe == AUTO else search.candidate(recipe)
        if not candidate.verdict.within(limits):
            logger.warning(
                "%s costs more than recipe='auto' would allow:\n%s", recipe, judge.table([candidate.verdict])
            )
        facts = self._facts(recipe, chosen, judge, candidate)
        if shared:
            facts["shared_rows"] = {role: round(share, 4) for role, share in shared.items()}
        config = source.model_config()
        config.architectures = source.config.get("architectures")
        artifact = write_artifact(
            save_directory,
            config=config,
            tensors=candidate.tensors,
            policy=candidate.verdict.policy,
            tokenizer=self.model.tokenizer,
            provenance=_of_training(source),
            quantization=facts,
            fingerprints={**source.fingerprints(), QUANTIZATION: chosen.fingerprints()},
        )
        write_card(artifact, render_card(artifact))
        return artifact

    def _refuse(self, recipe: str, save_directory: str | os.PathLike) -> None:
        if recipe not in (*RECIPES, AUTO):
            raise ConfigError(f"recipe={recipe!r}: choose one of {', '.join((*RECIPES, AUTO))}.")
        if not isinstance(save_directory, (str, os.PathLike)) or "\0" in str(save_directory):
            raise ConfigError(f"save_directory={save_directory!r}: the path of a folder.")
        if Path(save_directory).resolve() == self.model.artifact.directory.resolve():
            raise ConfigError(
                f"{save_directory} holds the model that is quantized: write the INT8 artifact to another folder."
            )

    def _facts(self, recipe: str, rows: CalibrationRows, judge: ExitComparison, candidate: Candidate) -> dict[str, Any]:
        layers = quantizable_layers(self.model.artifact)
        kept = candidate.verdict.float_layers
        return {
            "recipe": candidate.verdict.recipe,
            "asked": recipe,
            "activations": "per row" if candidate.verdict.recipe == "dynamic" else "per tensor",
            "integer_layers": len(layers) - len(kept),
            "float_layers": list(kept),
            "in_float": _IN_FLOAT,
            "calibration": {
                "source": Path(rows.source).name,
                "rows_observed": len(rows.observed),
                "rows_judged": len(rows.judged),
                "judged_on_other_rows": rows.apart,
            },
            **judge.record(candidate.verdict),
            "neural_compressor": {
                "path": candidate.observations.path,
                "versions": dict(candidate.observations.versions),
            },
        }


def _share(name: str, value: Any) -> float:
    share = real_number(name, value)
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"{name}={value}: a share lies in [0, 1].")
    return share


def _show(bar: Any, stage: str, done: int, rows: int) -> None:
    """Moves a progress bar to where Neural Compressor is."""
    bar.set_description(stage, refresh=False)
    bar.total, bar.n = rows, done
    bar.refresh()


def _of_training(source: Artifact) -> dict[str, Any]:
    """Returns the provenance of the training, with its date and versions under keys of their own."""
    facts = dict(source.provenance)
    trained = {key: facts.pop(key) for key in ("created", "versions") if key in facts}
    return {**facts, **({"trained": trained} if trained else {})}


def _refuse_what_cannot_be_quantized(artifact: Artifact) -> None:
    if artifact.precision == INT8:
        raise ConfigError(
            f"{artifact.directory} is quantized already ({artifact.quantization.get('recipe')}): quantize the float32 "
            "artifact that it was made from."
        )
    if artifact.architecture == CASCADE:
        raise ConfigError(
            f"{artifact.directory} is a cascade of independent models; only early-exit artifacts are quantized."
        )
