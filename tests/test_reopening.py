"""Tests of pickles, copies and other processes: the model is opened again from its folder, with its settings."""

import copy
import io
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import copy_artifact, open_artifact
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import model_and_tensors, tiny_artifact, tiny_cascade, tiny_tokenizer
from tests.tiny_tokenizers import fast_tokenizer

TEXTS = ["the soup was good", "never again", "awful"]
load = SweetModelForSequenceClassification.from_pretrained


@pytest.fixture
def directory(tmp_path):
    tiny_artifact(tmp_path / "artifact", tokenizer=tiny_tokenizer(), policy=Policy((0.5, 0.6), (1.5, 2.0, 0.7)))
    return tmp_path / "artifact"


def through_joblib(model):
    joblib = pytest.importorskip("joblib")
    stream = io.BytesIO()
    joblib.dump(model, stream)
    stream.seek(0)
    return joblib.load(stream)


WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "joblib": through_joblib,
    **{f"pickle {n}": lambda model, n=n: pickle.loads(pickle.dumps(model, n)) for n in (0, 2, pickle.HIGHEST_PROTOCOL)},
}


@pytest.mark.parametrize("way", WAYS)
def test_settings_are_restored(directory, way):
    model = load(directory, backend="torch", batch_size=7, dtype="fp32", threshold=0.3)
    model.policy = Policy((0.2, 0.9), (1.0, 3.0, 2.0))
    again = WAYS[way](model)
    assert type(again) is type(model) and again is not model and again.backend is not model.backend
    assert again.predict(TEXTS, top_k="all") == model.predict(TEXTS, top_k="all")
    assert (again.policy, again.executor.batch_size, again.backend.name) == (model.policy, 7, "torch")
    model.policy = Policy.uniform(3)
    assert again.policy == Policy((0.2, 0.9), (1.0, 3.0, 2.0))
    assert WAYS[way](again).predict(TEXTS) == again.predict(TEXTS)  # a copy is as good as the first


def test_cascades_and_checkpoints(tmp_path):
    tiny_cascade(tmp_path / "cascade", tokenizer=tiny_tokenizer())
    model, config, tensors = model_and_tensors("bert", (1, 2, 4))
    model.config = config
    model.save_pretrained(tmp_path / "checkpoint", state_dict={**model.state_dict(), **tensors})
    tiny_tokenizer().save_pretrained(tmp_path / "checkpoint")
    for name in ("cascade", "checkpoint"):
        model = load(tmp_path / name)
        assert pickle.loads(pickle.dumps(model)).predict(TEXTS) == model.predict(TEXTS)


def test_replaced_tokenizer_is_pickled(directory):
    model = load(directory)
    model.tokenizer = fast_tokenizer("bert")
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(TEXTS) == model.predict(TEXTS) != load(directory).predict(TEXTS)


def test_relative_folder_after_a_change_of_directory(directory, monkeypatch, tmp_path):
    monkeypatch.chdir(directory.parent)
    model = load(directory.name)
    pickled = pickle.dumps(model)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickled).predict(TEXTS) == model.predict(TEXTS)


def test_missing_folder(directory):
    model = load(directory)
    pickled = pickle.dumps(model)
    shutil.rmtree(directory)
    for reopen in (lambda: pickle.loads(pickled), lambda: copy.copy(model), lambda: copy.deepcopy(model)):
        with pytest.raises(ArtifactError, match=f"{directory} is not there any more"):
            reopen()


def test_folder_with_another_artifact(directory, tmp_path):
    pickled = pickle.dumps(load(directory))
    other = tmp_path / "other"
    tiny_artifact(other, exits=(1, 3, 4), tokenizer=tiny_tokenizer())
    shutil.rmtree(directory)
    shutil.copytree(other, directory)
    with pytest.raises(ArtifactError, match="holds another artifact"):
        pickle.loads(pickled)


def test_folder_calibrated_in_the_meantime(directory):
    pickled = pickle.dumps(load(directory))
    copy_artifact(open_artifact(directory), directory, policy=Policy.uniform(3, 0.8))
    with pytest.raises(ArtifactError, match="holds another artifact"):
        pickle.loads(pickled)


def test_overwritten_checkpoint(tmp_path):
    model, config, tensors = model_and_tensors("bert", (1, 2, 4))
    model.config = config
    for noise in (0.0, 1.0):
        state = {name: value + noise for name, value in {**model.state_dict(), **tensors}.items()}
        model.save_pretrained(tmp_path, state_dict=state)
        if not noise:
            pickled = pickle.dumps(load(tmp_path))
    with pytest.raises(ArtifactError, match="holds another artifact"):
        pickle.loads(pickled)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_backends_cannot_be_pickled(directory, backend, way):
    with pytest.raises(ConfigError, match="neither pickled nor copied"):
        way(load(directory, backend=backend).backend)


@pytest.mark.slow
def test_spawned_processes(directory):
    """`spawn` pickles the bound method and so the model, as joblib's processes do."""
    model = load(directory, threshold=0.4)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # With a time limit: a pool replaces a worker that fails to read its task, and waits for ever.
        answers = pool.map_async(model.predict, [TEXTS, TEXTS[:1]]).get(timeout=120)
        assert answers == [model.predict(TEXTS), model.predict(TEXTS[:1])]
        assert pool.apply_async(os.getpid).get(timeout=120) != os.getpid()


def test_forward_of_a_copy(directory):
    model = load(directory)
    again = copy.deepcopy(model)
    ids = np.array([[2, 5, 9, 3], [2, 8, 3, 0]])
    assert (again(ids).logits == model(ids).logits).all()
