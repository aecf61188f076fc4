"""Tests of the on-disk format: atomic writes, verification, and errors about damaged files."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import itrex_sweet
from itrex_sweet.artifact import (
    SCHEMA_VERSION,
    copy_artifact,
    open_artifact,
    write_artifact,
    write_cascade,
)
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import model_and_tensors, tiny_artifact, tiny_cascade, tiny_tokenizer


def fingerprint(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def edit(path, change):
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def test_round_trip(tmp_path):
    policy = Policy((0.7, 0.8), (1.0, 1.5, 2.0))
    written = tiny_artifact(tmp_path / "a", policy=policy, tokenizer=tiny_tokenizer())
    artifact = open_artifact(tmp_path / "a")
    assert artifact == written
    assert artifact.exits == (1, 2, 4) and artifact.policy == policy and artifact.layers_run == (1, 2, 4)
    assert {"config.json", "sweet_config.json", "model.safetensors", "tokenizer.json"} <= set(
        os.listdir(tmp_path / "a")
    )
    assert not list((tmp_path / "a").glob(".incoming*"))


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v3"])
def test_folder_loads_as_the_plain_model(tmp_path, family):
    model, config, tensors = model_and_tensors(family, (1, 2, 4))
    write_artifact(tmp_path, config=config, tensors=tensors)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        torch.testing.assert_close(plain(ids).logits, model(ids).logits)


def test_layers_run_of_a_cascade(tmp_path):
    tiny_cascade(tmp_path / "c")
    artifact = open_artifact(tmp_path / "c")
    assert artifact.layers_run == (1, 3, 7)
    assert [stage.exits for stage in artifact.stages] == [(1,), (2,), (4,)]


def test_depths_of_a_cascade_must_increase(tmp_path):
    stages = [model_and_tensors("bert", (2,))[1:], model_and_tensors("bert", (2,))[1:]]
    with pytest.raises(ConfigError, match=r"depths \(2, 2\)"):
        write_cascade(tmp_path, stages=stages)


@pytest.mark.parametrize("make", [tiny_artifact, tiny_cascade])
def test_copy_with_a_new_policy(tmp_path, make):
    source = make(tmp_path / "a", tokenizer=tiny_tokenizer())
    policy = source.policy.with_threshold(0.55)
    copy = copy_artifact(source, tmp_path / "b", policy)
    assert open_artifact(tmp_path / "b").policy == policy
    assert set(fingerprint(tmp_path / "a")) == set(fingerprint(tmp_path / "b"))
    for before, after in zip(source.stages or [source], copy.stages or [copy], strict=True):
        assert before.tensors().keys() == after.tensors().keys()


def test_copy_onto_itself_changes_the_policy_only(tmp_path):
    source = tiny_artifact(tmp_path / "a")
    copy_artifact(source, tmp_path / "a", source.policy.with_threshold(0.2))
    again = open_artifact(tmp_path / "a")
    assert again.policy.thresholds == (0.2, 0.2)
    assert again.tensors().keys() == source.tensors().keys()


def test_an_artifact_stands_for_its_folder(tmp_path):
    artifact = tiny_artifact(tmp_path / "artifact", tokenizer=tiny_tokenizer())
    expected = itrex_sweet.load(tmp_path / "artifact").predict(["the soup was good"])
    assert itrex_sweet.load(artifact).predict(["the soup was good"]) == expected
    assert open_artifact(artifact).directory == artifact.directory
    shutil.rmtree(tmp_path / "artifact")
    with pytest.raises(ArtifactError, match=f"^{tmp_path / 'artifact'} is neither a folder"):
        itrex_sweet.load(artifact)


def test_trainer_checkpoint_is_opened(tmp_path):
    _, config, tensors = model_and_tensors("bert", (1, 2, 4))
    write_artifact(tmp_path, config=config, tensors=tensors)
    (tmp_path / "sweet_config.json").unlink()
    assert open_artifact(tmp_path).exits == (1, 2, 4)


@pytest.fixture
def good(tmp_path):
    tiny_artifact(tmp_path / "good")
    return tmp_path / "good"


def plain_checkpoint(directory):
    edit(directory / "config.json", lambda config: config.pop("sweet"))
    (directory / "sweet_config.json").unlink()


def truncate(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(directory):
    path = directory / "model.safetensors"
    contents = bytearray(path.read_bytes())
    contents[-9] ^= 1
    path.write_bytes(contents)


DAMAGES = {
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
    "truncated": (truncate, "truncated, or another file"),
    "one bit": (flip_a_bit, "SHA-256 differs"),
    "half a JSON": (lambda d: (d / "sweet_config.json").write_text('{"format": "itr'), "cannot be read as JSON"),
    "JSON list": (lambda d: (d / "sweet_config.json").write_text("[1]"), "holds list"),
    "foreign": (
        lambda d: edit(d / "sweet_config.json", lambda s: s.update(format="other")),
        "written by something else",
    ),
    "newer": (
        lambda d: edit(d / "sweet_config.json", lambda s: s.update(schema_version=SCHEMA_VERSION + 1)),
        "Upgrade itrex-sweet",
    ),
    "no exits": (lambda d: edit(d / "sweet_config.json", lambda s: s.pop("exits")), "has no 'exits'"),
    "policy for other exits": (
        lambda d: edit(d / "sweet_config.json", lambda s: s.update(policy=Policy.uniform(5).to_dict())),
        r"policy.thresholds=.* a list of 2 is needed",
    ),
    "plain": (plain_checkpoint, "it has no exits. If it is fine-tuned, .*itrex-sweet accelerate DIR"),
    "not a folder": (lambda d: __import__("shutil").rmtree(d), "is not a folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(good, damage):
    damage_folder, words = DAMAGES[damage]
    damage_folder(good)
    with pytest.raises(ArtifactError, match=words):
        open_artifact(good)


def test_pickled_weights_are_rejected(good):
    (good / "sweet_config.json").unlink()
    (good / "model.safetensors").unlink()
    torch.save({}, good / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="only safetensors"):
        open_artifact(good)


def test_missing_and_misshapen_tensors(tmp_path):
    from itrex_sweet.runtime.backends import load_backend

    _, config, tensors = model_and_tensors("bert", (1, 2, 4))
    incomplete = {name: value for name, value in tensors.items() if name != "sweet_exits.2.dense.weight"}
    with pytest.raises(ArtifactError, match=r"lack 'sweet_exits.2.dense.weight'"):
        load_backend(write_artifact(tmp_path / "a", config=config, tensors=incomplete))
    wrong = {**tensors, "classifier.weight": torch.zeros(3, 7)}
    with pytest.raises(ArtifactError, match=r"'classifier.weight' has shape \(3, 7\)"):
        load_backend(write_artifact(tmp_path / "b", config=config, tensors=wrong))


def test_failed_write_keeps_the_earlier_artifact(good, monkeypatch):
    before = fingerprint(good)
    _, config, tensors = model_and_tensors("bert", (1, 2, 4), seed=9)
    config.save_pretrained = lambda directory: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with pytest.raises(ArtifactError, match=r"No space left.*unchanged"):
        write_artifact(good, config=config, tensors=tensors)
    assert fingerprint(good) == before
    assert open_artifact(good)


def test_full_disk_keeps_the_earlier_artifact(good):
    """A limit on file size takes the place of a full disk."""
    before = fingerprint(good)
    script = (
        "import resource, signal, sys; from tests.tiny_artifacts import tiny_artifact; from pathlib import Path\n"
        "from itrex_sweet.errors import ArtifactError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: tiny_artifact(Path(sys.argv[1]))\n"
        "except ArtifactError as error: print(error); sys.exit(7)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(good)], capture_output=True, text=True)
    assert run.returncode == 7, run.stderr
    assert "it is unchanged" in run.stdout
    assert fingerprint(good) == before


def test_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        tiny_artifact(tmp_path / "file" / "inside")
    with pytest.raises(ArtifactError, match="cannot write"):
        tiny_artifact(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def test_failed_first_write_leaves_no_folder(tmp_path):
    _, config, tensors = model_and_tensors("bert", (1, 2, 4))
    config.save_pretrained = lambda directory: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with pytest.raises(ArtifactError):
        write_artifact(tmp_path / "new", config=config, tensors=tensors)
    assert not (tmp_path / "new").exists()


def test_other_files_in_the_folder_are_kept(good):
    (good / "notes.txt").write_text("mine")
    tiny_artifact(good)
    assert (good / "notes.txt").read_text() == "mine"


def test_same_answers_in_a_new_process(tmp_path):
    from itrex_sweet import SweetModelForSequenceClassification

    tiny_artifact(tmp_path / "a", tokenizer=tiny_tokenizer(), policy=Policy.uniform(3, 0.5))
    texts = ["the soup was good", "never again", "a slow phone but a great room", "awful"]
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path / "a")
    script = (
        "import json, sys; from itrex_sweet import SweetModelForSequenceClassification as Model\n"
        "print(json.dumps(Model.from_pretrained(sys.argv[1]).predict(json.loads(sys.argv[2]))))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a"), json.dumps(texts)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr
    there = json.loads(run.stdout.splitlines()[-1])
    here = model.predict(texts)
    assert [(row["label"], row["exit_layer"]) for row in there] == [(row["label"], row["exit_layer"]) for row in here]
    np.testing.assert_allclose([row["score"] for row in there], [row["score"] for row in here], rtol=1e-5)


def test_sharded_checkpoint_is_read_and_copied(good):
    from safetensors.torch import load_file, save_file

    whole = load_file(good / "model.safetensors")
    names = sorted(whole)
    shards = {"model-1.safetensors": names[:10], "model-2.safetensors": names[10:]}
    for shard, part in shards.items():
        save_file({name: whole[name] for name in part}, good / shard, metadata={"format": "pt"})
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (good / "model.safetensors.index.json").write_text(json.dumps(index))
    (good / "model.safetensors").unlink()
    (good / "sweet_config.json").unlink()  # as a Trainer leaves it
    assert open_artifact(good).tensors().keys() == whole.keys()
    copy = copy_artifact(open_artifact(good), good.parent / "copy")
    assert copy.tensors().keys() == whole.keys()
    assert open_artifact(good.parent / "copy") == copy
    index["weight_map"][names[0]] = "../good/model-1.safetensors"
    (good / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match="outside its folder"):
        open_artifact(good)


def test_file_permissions_of_weights(tmp_path):
    mask = os.umask(0o027)
    try:
        tiny_artifact(tmp_path / "artifact")
    finally:
        os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "artifact").iterdir()}
    assert set(modes.values()) == {0o640}, modes


def test_unreadable_file(good, monkeypatch):
    opened = os.open

    def forbidden(path, *arguments, **options):
        if path == "model.safetensors":
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be read .*Permission denied"):
        open_artifact(good)
