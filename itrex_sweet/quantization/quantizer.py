"""`SweetQuantizer`: quantizes a float32 artifact to an INT8 artifact."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itrex_sweet.arguments import fraction, whole_number
from itrex_sweet.artifact import CASCADE, INT8, Artifact, write_artifact, write_card
from itrex_sweet.artifact.fingerprints import QUANTIZATION
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.data.columns import LABEL_COLUMN
from itrex_sweet.defaults import AUTO, DEFAULT_OBSERVED_ROWS, DEFAULT_SEED, EMBEDDINGS, RECIPES
from itrex_sweet.errors import ConfigError
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.progress import progress_bar
from itrex_sweet.extras import require_installed
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.quantization.calibration_rows import CalibrationRows, read_calibration_rows, warn_about_seen_rows
from itrex_sweet.quantization.comparison import ExitComparison, Limits
from itrex_sweet.quantization.observation import Observations, observe
from itrex_sweet.quantization.packing import quantizable_layers, word_embeddings
from itrex_sweet.quantization.recipe_search import Candidate, RecipeSearch
from itrex_sweet.runtime.torch_threads import on_own_threads

logger = logging.getLogger(__name__)


_IN_FLOAT = "layer norms, softmax, activations, heads; in a probe, the products with keys and values"


class SweetQuantizer:
    """Quantizes an early-exit classifier to INT8 with Neural Compressor.

    `SweetQuantizer.from_pretrained(DIR).quantize(calibration_dataset, save_directory=OTHER)`.
    """

    def __init__(self, model: SweetModelForSequenceClassification, threads: int | None = None):
        if not isinstance(model, SweetModelForSequenceClassification):
            raise ConfigError(f"model is of type {type(model).__name__}, expected SweetModelForSequenceClassification.")
        _check_quantizable(model.artifact)
        self.model = model
        self.asked_threads = threads

    @classmethod
    def from_pretrained(
        cls, model_id: str | os.PathLike, *, threads: int | None = None, **options: Any
    ) -> SweetQuantizer:
        """Loads a float32 artifact from a folder or the hub.

        Args:
            model_id: a folder, or a repository on the hub.
            threads: number of threads; torch's setting if absent.
            options: of `SweetModelForSequenceClassification.from_pretrained`.

        Raises:
            ArtifactError: the artifact is missing or corrupt.
            ConfigError: the artifact is already quantized or a cascade, or an invalid number of threads.
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
        embeddings: str = EMBEDDINGS[0],
        rows: int = DEFAULT_OBSERVED_ROWS,
        max_drop: float = Limits.drop,
        max_moved: float = Limits.moved,
        max_changed: float = Limits.changed,
        smoothing_alpha: float = 0.5,
        seed: int = DEFAULT_SEED,
        max_length: int | None = None,
        text_column: str | None = None,
        pair_column: str | None = None,
        label_column: str | None = LABEL_COLUMN,
        label_meanings: Sequence[str] | Mapping[str, str] | None = None,
        split: str | None = None,
        dataset_config: str | None = None,
    ) -> Artifact:
        """Observes ranges, quantizes, compares each exit, refits temperatures and thresholds, and writes the artifact.

        `rows` random rows are used to observe activation ranges, and up to 1000 others to compare with the float model
        and to fit temperatures. If fewer than 100 others remain, the same rows are used for both.

        Args:
            calibration_dataset: a file or `datasets` name, a `datasets.Dataset` with texts or with `input_ids`, or a
                list of texts or pairs; not used for training or reports. With labels, exits are compared by accuracy
                and temperatures are fitted; without, exits are compared by agreement with the float model.
            save_directory: of the INT8 artifact; an existing artifact is replaced atomically.
            recipe: `"static"` (one scale per tensor), `"smooth"` (SmoothQuant, then static), `"dynamic"` (one scale
                per row, at run time), or `"auto"` for the fastest of these within the limits.
            embeddings: precision of the word embeddings: `"int8"`, symmetric with one scale per token, or `"float32"`.
            rows: number of rows to observe ranges on.
            max_drop: largest drop of the score at any exit that `"auto"` accepts, a fraction; 0.01 is one point.
            max_moved: largest fraction of rows leaving at another exit than before that `"auto"` accepts.
            max_changed: fraction of rows whose answer at the last exit changes above which `"auto"` tries slower
                recipes, and takes the one that changes the fewest.
            smoothing_alpha: migration strength of SmoothQuant, from activations to weights.
            seed: of the random split of rows.
            max_length: maximum number of tokens per row.
            text_column, pair_column, label_column, label_meanings, split, dataset_config: as in
                `itrex_sweet.data.read_rows`.

        Returns:
            the INT8 artifact; its `quantization` holds the comparison.

        Raises:
            MissingExtraError: Neural Compressor is not installed.
            ConfigError: an unknown recipe or precision, an invalid setting, or the model's own folder as the target.
            InputError: too few or unreadable calibration rows.
            QuantizationError: weights or activations are not finite, or no candidate is within the limits of `"auto"`.
            ArtifactError: the folder cannot be written; its previous content is unchanged.
        """
        rows, seed = whole_number("rows", rows, 1), whole_number("seed", seed, 0)
        limits = Limits(
            fraction("max_drop", max_drop), fraction("max_moved", max_moved), fraction("max_changed", max_changed)
        )
        smoothing_alpha = fraction("smoothing_alpha", smoothing_alpha)
        self._check_arguments(recipe, embeddings, save_directory)
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
        calibration_rows = read_calibration_rows(
            self.model, calibration_dataset, rows, seed, max_length=max_length, **columns
        )
        shared = warn_about_seen_rows(self.model, calibration_rows)
        size = self.model.executor.batch_size
        comparison = ExitComparison(source, calibration_rows, size)

        def observe_with_progress(recipe: str) -> Observations:
            with progress_bar(recipe, len(calibration_rows.observed), "row") as bar:
                return observe(
                    source,
                    calibration_rows.observed,
                    recipe,
                    alpha=smoothing_alpha,
                    batch_size=size,
                    progress=functools.partial(_update_bar, bar),
                )

        table = word_embeddings(source)
        search = RecipeSearch(comparison, observe_with_progress, [table] if embeddings == INT8 else [])
        candidate = search.cheapest_within(limits) if recipe == AUTO else search.candidate(recipe)
        if not candidate.result.within(limits):
            logger.warning("%s exceeds the limits of recipe='auto':\n%s", recipe, comparison.table([candidate.result]))
        has_tables = embeddings == INT8 and table not in candidate.result.float_layers
        facts = self._facts(recipe, calibration_rows, comparison, candidate, has_tables)
        if shared:
            facts["shared_rows"] = {role: round(share, 4) for role, share in shared.items()}
        config = source.model_config()
        config.architectures = source.config.get("architectures")
        artifact = write_artifact(
            save_directory,
            config=config,
            tensors=candidate.tensors,
            policy=candidate.result.policy,
            tokenizer=self.model.tokenizer,
            provenance=_training_provenance(source),
            quantization=facts,
            fingerprints={**source.fingerprints(), QUANTIZATION: calibration_rows.fingerprints()},
        )
        write_card(artifact, render_card(artifact))
        return artifact

    def _check_arguments(self, recipe: str, embeddings: str, save_directory: str | os.PathLike) -> None:
        if recipe not in (*RECIPES, AUTO):
            raise ConfigError(f"recipe={recipe!r}: choose one of {', '.join((*RECIPES, AUTO))}.")
        if embeddings not in EMBEDDINGS:
            raise ConfigError(f"embeddings={embeddings!r}: choose one of {', '.join(EMBEDDINGS)}.")
        if not isinstance(save_directory, (str, os.PathLike)) or "\0" in str(save_directory):
            raise ConfigError(f"save_directory={save_directory!r}: must be the path of a folder.")
        if Path(save_directory).resolve() == self.model.artifact.directory.resolve():
            raise ConfigError(
                f"{save_directory} is the folder of the float model: write the INT8 artifact to another folder."
            )

    def _facts(
        self, recipe: str, rows: CalibrationRows, comparison: ExitComparison, candidate: Candidate, has_tables: bool
    ) -> dict[str, Any]:
        layers = quantizable_layers(self.model.artifact)
        kept = candidate.result.float_layers
        return {
            "recipe": candidate.result.recipe,
            "asked": recipe,
            "activations": "per row" if candidate.result.recipe == "dynamic" else "per tensor",
            "integer_layers": len(set(layers) - set(kept)),
            "float_layers": list(kept),
            "in_float": f"{'other ' if has_tables else ''}embeddings, {_IN_FLOAT}",
            "calibration": {
                "source": Path(rows.source).name,
                "rows_observed": len(rows.observed),
                "rows_judged": len(rows.evaluated),
                "judged_on_other_rows": rows.disjoint,
            },
            **comparison.record(candidate.result),
            "neural_compressor": {
                "path": candidate.observations.path,
                "versions": dict(candidate.observations.versions),
            },
        }


def _update_bar(bar: Any, stage: str, done: int, rows: int) -> None:
    """Updates a progress bar with the progress of Neural Compressor."""
    bar.set_description(stage, refresh=False)
    bar.total, bar.n = rows, done
    bar.refresh()


def _training_provenance(source: Artifact) -> dict[str, Any]:
    """Returns the provenance of the float artifact, with date and versions moved to `trained`."""
    facts = dict(source.provenance)
    trained = {key: facts.pop(key) for key in ("created", "versions") if key in facts}
    return {**facts, **({"trained": trained} if trained else {})}


def _check_quantizable(artifact: Artifact) -> None:
    if artifact.precision == INT8:
        raise ConfigError(
            f"{artifact.directory} is already quantized ({artifact.quantization.get('recipe')}): quantize its float32 "
            "artifact instead."
        )
    if artifact.architecture == CASCADE:
        raise ConfigError(
            f"{artifact.directory} is a cascade of independent models; only early-exit artifacts can be quantized."
        )
