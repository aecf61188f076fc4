"""Runs `make_predict_fn` in Spark; skipped without pyspark or Java."""

import shutil
import sys

import pytest

import itrex_sweet
from tests.cluster.conftest import texts

pytest.importorskip("pyspark", reason="pyspark is not installed")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)


@pytest.fixture()
def session(monkeypatch):
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)

    builder = SparkSession.builder.master("local[2]")
    session = (
        builder.config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", 2)
    )
    session = session.getOrCreate()
    yield session
    session.stop()


def test_predict_batch_udf(artifact, session):
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.functions import struct

    from itrex_sweet.cluster import make_predict_fn, spark_return_type

    first, second = [*texts(100), None], [*texts(100, 1), "again"]
    rows = list(zip(range(101), first, second, strict=True))
    frame = session.createDataFrame(rows, "id int, text string, other string").repartition(3)
    classify = predict_batch_udf(make_predict_fn(artifact), return_type=spark_return_type(artifact), batch_size=16)
    found = sorted(frame.select("id", classify("text").alias("answer")).collect())
    classifier = itrex_sweet.load(artifact)
    expected = classifier.predict(first[:100])
    for row, prediction in zip(found[:100], expected, strict=True):
        assert row.answer.asDict() == {**prediction, "error": None}
    assert found[100].answer.label is None and "no value" in found[100].answer.error
    pairs = sorted(frame.select("id", classify(struct("text", "other")).alias("answer")).collect())
    expected = classifier.predict(list(zip(first[:100], second[:100], strict=True)))
    assert [row.answer.label for row in pairs[:100]] == [prediction["label"] for prediction in expected]
