"""Functions for `pyspark.ml.functions.predict_batch_udf`. Workers need no Spark to run them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from itrex_sweet.artifact import open_artifact
from itrex_sweet.cluster.answering import answer_rows
from itrex_sweet.cluster.columns import FLOAT, INT, LABELS, STRING, AnswerColumns, texts_of
from itrex_sweet.cluster.loading import load_for_worker
from itrex_sweet.data.json_lines import json_line
from itrex_sweet.errors import InputError
from itrex_sweet.extras import naming_extras
from itrex_sweet.hub import fetch
from itrex_sweet.runtime.executor import DEFAULT_BATCH_SIZE

Predict = Callable[[np.ndarray], dict[str, np.ndarray]]


def make_predict_fn(
    artifact: str | os.PathLike,
    *,
    threads: int | None = None,
    identity: str | None = None,
    backend: str = "auto",
    dtype: Any = None,
    threshold: Any = None,
    verify: bool = True,
    rows_per_step: int = DEFAULT_BATCH_SIZE,
    quality: float | None = None,
    max_exit: int | None = None,
    max_length: int | None = None,
    overlong: str = "truncate",
    top_k: int | str | None = None,
) -> Callable[[], Predict]:
    """Returns the first argument of Spark's `predict_batch_udf`.

        classify = predict_batch_udf(
            make_predict_fn("DIR"), return_type=spark_return_type("DIR"), batch_size=4096
        )
        frame.withColumn("answer", classify("text"))

    Spark loads the model once per Python worker. For pairs, `classify(struct("premise", "hypothesis"))`.

    Args:
        artifact: a folder that exists on each machine, or a repository on the Hub.
        threads: maximum number of threads of a Python worker; by default `OMP_NUM_THREADS`, which Spark sets to
            `spark.task.cpus`.
        identity, backend, dtype, threshold, verify, rows_per_step, quality, max_exit, max_length, overlong, top_k: as
            of `SweetPredictor`.
    """
    loading = dict(threads=threads, identity=identity, backend=backend, dtype=dtype, threshold=threshold)
    loading |= dict(verify=verify, batch_size=rows_per_step)
    settings = dict(quality=quality, max_exit=max_exit, max_length=max_length, overlong=overlong, top_k=top_k)

    def load_predict() -> Predict:
        classifier = load_for_worker(artifact, **loading)
        columns = AnswerColumns(classifier.artifact.task.name, top_k is not None)
        ranked = [name for name, type_ in columns.types.items() if type_ == LABELS]

        # Spark passes all columns as one array to a function with one parameter.
        def predict(inputs: np.ndarray) -> dict[str, np.ndarray]:
            """Returns one array per field of `spark_return_type`.

            Args:
                inputs: (rows,) texts, or (rows, 2) pairs.
            """
            arrays = [inputs] if inputs.ndim == 1 else list(inputs.T)
            if len(arrays) not in (1, 2):
                raise InputError(f"{len(arrays)} columns: give one column of texts, or two columns for pairs.")
            pair = "text_pair" if len(arrays) == 2 else None
            texts, problems = texts_of(dict(zip(("text", "text_pair"), arrays, strict=False)), "text", pair)
            found = columns.arrays(answer_rows(classifier, texts, problems, settings))
            for name in ranked:
                found[name][:] = [None if value is None else json_line(value) for value in found[name]]
            return found

        return predict

    return load_predict


def spark_return_type(artifact: str | os.PathLike, top_k: int | str | None = None) -> Any:
    """Returns the `return_type` of `predict_batch_udf` for a model, a `StructType` with the fields of an answer.

    `error` is the reason why a row has no answer. Lists of labels with their scores are strings of JSON, since
    `predict_batch_udf` takes no lists of different lengths: `from_json(answer.labels, "array<struct<label string, score
    float>>")` parses them.

    Args:
        artifact, top_k: as of `make_predict_fn`.

    Raises:
        ArtifactError: the folder is not a valid artifact.
        MissingExtraError: pyspark is not installed.
    """
    with naming_extras("a type of Spark"):
        from pyspark.sql import types
    of_columns = {STRING: types.StringType, LABELS: types.StringType, FLOAT: types.FloatType, INT: types.LongType}
    columns = AnswerColumns(open_artifact(fetch(artifact)).task.name, top_k is not None)
    return types.StructType([types.StructField(name, of_columns[type_]()) for name, type_ in columns.types.items()])
