"""Rivals without a transformer: n-grams or static token vectors, and a logistic regression."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

STRENGTHS = (1.0, 10.0)  # inverse regularization, chosen on the rows of the choice
MODEL2VEC = "model2vec"  # folder of the static model, distilled once from the pretrained weights
BUCKETS = 2**18
Rows = tuple[list[Any], list[int]]


class Joined:
    """Joins the texts of a pair to one string, for vectorizers of n-grams."""

    def fit(self, texts: list[Any], labels: Any = None) -> Joined:
        return self

    def transform(self, texts: list[Any]) -> list[str]:
        return texts if isinstance(texts[0], str) else ["\n".join(pair) for pair in texts]


class StaticVectors:
    """Mean vectors of Model2Vec; of a pair u and v: u, v, |u - v| and u v.

    Args:
        folder: of the static model.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._model: Any = None

    def fit(self, texts: list[Any], labels: Any = None) -> StaticVectors:
        return self

    def transform(self, texts: list[Any]) -> np.ndarray:
        if self._model is None:
            from model2vec import StaticModel

            self._model = StaticModel.from_pretrained(self.folder)
        if isinstance(texts[0], str):
            return self._model.encode(texts)
        first, second = (self._model.encode(list(column)) for column in zip(*texts, strict=True))
        return np.concatenate([first, second, np.abs(first - second), first * second], axis=1)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_model": None}


def static_model(folder: Path) -> Path:
    """Returns the folder of the Model2Vec model; distills it from the pretrained weights if it is missing."""
    if not (folder / MODEL2VEC).is_dir():
        from model2vec.distill import distill
        from record import pretrained

        distill(str(pretrained()), device="cpu").save_pretrained(folder / MODEL2VEC)
    return folder / MODEL2VEC


def makers(folder: Path) -> dict[str, Callable[[float], Pipeline]]:
    """Returns title → function of the inverse regularization that makes an untrained pipeline.

    Args:
        folder: contains the static model.
    """

    def head(strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=300, tol=1e-3)

    def tfidf(strength: float) -> Pipeline:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=BUCKETS)
        return Pipeline(
            [("text", Joined()), ("tfidf", FeatureUnion([("w", words), ("c", letters)])), ("head", head(strength))]
        )

    def hashed(strength: float) -> Pipeline:
        grams = HashingVectorizer(n_features=BUCKETS, ngram_range=(1, 2), norm="l2", alternate_sign=False)
        return Pipeline([("text", Joined()), ("grams", grams), ("head", head(strength))])

    def static(strength: float) -> Pipeline:
        return Pipeline([("vectors", StaticVectors(static_model(folder))), ("head", head(strength))])

    found = {"TF-IDF + logistic regression": tfidf, "hashed n-grams + linear head (fastText-like)": hashed}
    if find_spec("model2vec") is None:
        print("left out: Model2Vec, which is not installed", flush=True)
        return found
    return {**found, "Model2Vec + logistic regression": static}


def train(folder: Path, task: str, training: Rows, choice: Rows) -> dict[str, float]:
    """Trains every pipeline that is missing, with the strength that is best on the rows of the choice.

    Returns:
        their accuracies on these rows.
    """
    scores = {}
    for title, make in makers(folder).items():
        path = path_of(folder, task, title)
        if not path.is_file():
            fitted = [make(strength).fit(*training) for strength in STRENGTHS]
            accuracies = [float(np.mean(each.predict(choice[0]) == np.array(choice[1]))) for each in fitted]
            best = int(np.argmax(accuracies))
            scores[title] = round(accuracies[best], 5)
            path.parent.mkdir(parents=True, exist_ok=True)
            joblib.dump(fitted[best], path)
    return scores


def load(folder: Path, task: str) -> dict[str, Pipeline]:
    """Returns title → trained pipeline."""
    paths = {title: path_of(folder, task, title) for title in makers(folder)}
    return {title: joblib.load(path) for title, path in paths.items() if path.is_file()}


def path_of(folder: Path, task: str, title: str) -> Path:
    """Returns the file of a trained pipeline."""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    return folder / f"{task}-0" / f"{name}.joblib"
