"""Functions for `pyspark.ml.functions.predict_batch_udf`. Workers need no Spark to run them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from itrex_sweet.artifact import open_artifact
from itrex_sweet.cluster.columns import FLOAT, INT, LABELS, STRING, AnswerColumns
from itrex_sweet.cluster.predictor import SweetPredictor
from itrex_sweet.data.json_lines import json_line
from itrex_sweet.errors import InputError
from itrex_sweet.extras import naming_extras
from itrex_sweet.hub import fetch

Predict = Callable[[np.ndarray], dict[str, np.ndarray]]

_NAMES_OF_COLUMNS = {"artifact", "text_column", "pair_column", "prefix"}


def make_predict_fn(artifact: str | os.PathLike, **options: Any) -> Callable[[], Predict]:
    """Returns the first argument of Spark's `predict_batch_udf`.

        classify = predict_batch_udf(
            make_predict_fn("DIR"), return_type=spark_return_type("DIR"), batch_size=4096
        )
        frame.withColumn("answer", classify("text"))

    Spark loads the model once per Python worker. For pairs, `classify(struct("premise", "hypothesis"))`.

    Args:
        artifact: a folder that exists on each machine, or a repository on the Hub.
        options: keyword arguments of `SweetPredictor` other than `text_column`, `pair_column` and `prefix`, such as
            `max_exit` or `top_k`. By default a Python worker has `OMP_NUM_THREADS` threads, which Spark sets to
            `spark.task.cpus`.

    Raises:
        TypeError: an unknown option.
    """
    known = inspect.signature(SweetPredictor).parameters.keys() - _NAMES_OF_COLUMNS
    for name in options:  # here, and not in a worker
        if name not in known:
            raise TypeError(f"make_predict_fn() got an unexpected keyword argument {name!r}")

    def load_predict() -> Predict:
        predictor = SweetPredictor(artifact, **options)
        ranked = [name for name, type_ in predictor.columns.types.items() if type_ == LABELS]

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
            batch = dict(zip(("text", "text_pair"), arrays, strict=False))
            found = predictor.columns.arrays(predictor.answers(batch, "text", pair))
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
