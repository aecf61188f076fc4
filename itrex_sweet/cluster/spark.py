"""Functions for `pyspark.ml.functions.predict_batch_udf`. Imports no Spark."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from itrex_sweet.artifact import open_artifact
from itrex_sweet.cluster.answering import answer_rows
from itrex_sweet.cluster.columns import AnswerColumns, texts_of
from itrex_sweet.cluster.loading import load_for_worker
from itrex_sweet.errors import InputError
from itrex_sweet.hub import fetch
from itrex_sweet.runtime.executor import DEFAULT_BATCH_SIZE

Predict = Callable[..., dict[str, np.ndarray]]


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
    """Returns the first argument of Spark's `predict_batch_udf`:

        classify = predict_batch_udf(
            make_predict_fn("DIR"), return_type=spark_return_type("DIR"), batch_size=4096
        )
        frame.withColumn("answer", classify("text"))

    Spark loads the model once per Python worker, and calls it with one array per column: one column of texts, or two
    columns for pairs.

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

        def predict(*inputs: np.ndarray) -> dict[str, np.ndarray]:
            """Returns one array per field of `spark_return_type`."""
            if len(inputs) not in (1, 2):
                raise InputError(f"{len(inputs)} columns: give one column of texts, or two columns for pairs.")
            names = ("text", "text_pair")[: len(inputs)]
            texts, problems = texts_of(dict(zip(names, inputs, strict=True)), *names)
            return columns.arrays(answer_rows(classifier, texts, problems, settings))

        return predict

    return load_predict


def spark_return_type(artifact: str | os.PathLike, top_k: int | str | None = None) -> str:
    """Returns the `return_type` of `predict_batch_udf` for a model: a struct with the fields of an answer, and `error`,
    the reason why a row has no answer, in Spark's DDL.

    Args:
        artifact, top_k: as of `make_predict_fn`.

    Raises:
        ArtifactError: the folder is not a valid artifact.
    """
    task = open_artifact(fetch(artifact)).task.name
    return f"struct<{AnswerColumns(task, top_k is not None).spark_type}>"
