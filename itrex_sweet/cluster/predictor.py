"""`SweetPredictor`: a callable class that classifies batches of columns, for Ray Data and other batch systems."""

from __future__ import annotations

import os
from typing import Any

from itrex_sweet.cluster.answering import answer_rows
from itrex_sweet.cluster.columns import AnswerColumns, Batch, texts_of, with_columns
from itrex_sweet.cluster.loading import load_for_worker
from itrex_sweet.defaults import DEFAULT_BACKEND, DEFAULT_BATCH_SIZE, TRUNCATE


class SweetPredictor:
    """Early-exit classifier of batches of columns.

    Ray Data makes one per actor:

        dataset.map_batches(
            SweetPredictor,
            fn_constructor_kwargs={"artifact": "DIR", "text_column": "text"},
            compute=ray.data.ActorPoolStrategy(size=4),
            num_cpus=1,
            batch_size=4096,
            batch_format="pyarrow",
        )

    Args:
        artifact: a folder that exists on each machine, or a repository on the Hub.
        text_column: column of the texts, or of the first texts of pairs; by default the first with a common name.
        pair_column: column of the second texts of pairs.
        prefix: of the names of the columns that are added, such as `"predicted_"`.
        threads: maximum number of threads; by default the CPUs that Ray assigned to the worker, rounded down, at least
            1.
        identity: hash of the artifact (`cluster.loading.artifact_identity`); a worker that finds another one raises.
        backend, dtype, threshold, verify: as of `Classifier.load`.
        rows_per_step: rows computed together, `batch_size` of `Classifier.load`; the `batch_size` of Ray Data is the
            number of rows of a call, and is best some hundred times as large.
        quality, max_exit, max_length, overlong, top_k: as of `Classifier.predict`.

    Attributes:
        classifier: the loaded model.
        columns: those that are added.

    Raises:
        ConfigError, ArtifactError, BackendUnavailable, MissingExtraError: as `Classifier.load`.
    """

    def __init__(
        self,
        artifact: str | os.PathLike,
        text_column: str | None = None,
        pair_column: str | None = None,
        *,
        prefix: str = "",
        threads: int | None = None,
        identity: str | None = None,
        backend: str = DEFAULT_BACKEND,
        dtype: Any = None,
        threshold: Any = None,
        verify: bool = True,
        rows_per_step: int = DEFAULT_BATCH_SIZE,
        quality: float | None = None,
        max_exit: int | None = None,
        max_length: int | None = None,
        overlong: str = TRUNCATE,
        top_k: int | str | None = None,
    ):
        self.classifier = load_for_worker(
            artifact,
            threads=threads,
            identity=identity,
            backend=backend,
            dtype=dtype,
            threshold=threshold,
            verify=verify,
            batch_size=rows_per_step,
        )
        self._names = text_column, pair_column
        self.columns = AnswerColumns(self.classifier.artifact.task.name, top_k is not None, prefix)
        self._settings = dict(quality=quality, max_exit=max_exit, max_length=max_length, overlong=overlong, top_k=top_k)
        self.classifier.predict([], **self._settings)  # checks them

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch with the columns of the answers added, in the type of the batch.

        Args:
            batch: columns as a dictionary of NumPy arrays, a `pyarrow.Table` or a `pandas.DataFrame`.

        Returns:
            the columns of the batch, and those of `AnswerColumns`: `label`, `score`, `exit_layer`, `stopped_by` and
            `error`, the reason why a row has no answer; a bad row never raises. Missing values are null in a table; in
            NumPy and pandas they are `None`, NaN in `score` and 0 in `exit_layer`.

        Raises:
            ConfigError: the batch has no such text column, or has a column of the name of one that is added.
            InputError: the batch is of another type.
        """
        return with_columns(batch, self.columns, self.answers(batch, *self._names))

    def answers(self, batch: Batch, text_column: str | None, pair_column: str | None) -> list[dict[str, Any]]:
        """Returns one dictionary per row, as `answering.answer_rows`.

        Args:
            batch: as of a call.
            text_column, pair_column: as of the class.
        """
        texts, problems = texts_of(batch, text_column, pair_column)
        return answer_rows(self.classifier, texts, problems, self._settings)
