"""Tests of the manifest: every file that affects answers is verified, and the verified contents are used."""

import json
import os
import shutil
import struct

import numpy as np
import pytest
import torch

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import copy_artifact, open_artifact, snapshot, write_artifact, write_card
from itrex_sweet.artifact.fingerprints import CALIBRATION, TRAINING, Fingerprints
from itrex_sweet.artifact.layout import FLOAT_EMBEDDINGS_SCHEMA
from itrex_sweet.artifact.manifest import settings_digest
from itrex_sweet.artifact.tensors import TensorFile
from itrex_sweet.errors import ArtifactError
from tests.mutation import recompute_hashes
from tests.tiny_artifacts import model_and_tensors, sign, tiny_cascade, tiny_tokenizer

FINGERPRINTS = {TRAINING: Fingerprints.of([[1, 2], [3, 4]])}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Returns artifacts of each kind, which tests copy and do not change."""
    folder = tmp_path_factory.mktemp("kept")
    _, config, tensors = model_and_tensors("bert", (1, 2), num_labels=2)
    config.id2label = {0: "good", 1: "bad"}
    write_artifact(
        folder / "early exits", config=config, tensors=tensors, tokenizer=tiny_tokenizer(), fingerprints=FINGERPRINTS
    )
    tiny_cascade(folder / "cascade", exits=(1, 2), tokenizer=tiny_tokenizer())
    return folder


@pytest.fixture(params=["early exits", "cascade"])
def folder(kept, tmp_path, request):
    return shutil.copytree(kept / request.param, tmp_path / "artifact")


@pytest.fixture
def single(kept, tmp_path):
    return shutil.copytree(kept / "early exits", tmp_path / "artifact")


def listed(folder):
    return sorted(json.loads((folder / "sweet_config.json").read_text())["files"])


def every_file(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def change(folder, **changes):
    path = folder / "sweet_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def as_schema(folder, version):
    """Rewrites the settings as releases before schema 3 wrote them."""
    path = folder / "sweet_config.json"
    settings = json.loads(path.read_text())
    files = {name: entry for name, entry in settings["files"].items() if "model" in name}
    path.write_text(json.dumps({**settings, "schema_version": version, "files": files, "digest": None}))


def test_manifest_lists_every_file(folder):
    assert listed(folder) == [name for name in every_file(folder) if name != "sweet_config.json"]


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


DAMAGES = {
    "flipped": flip,
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "empty": lambda path: path.write_bytes(b""),
    "deleted": os.unlink,
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "loop": lambda path: (path.unlink(), path.symlink_to(path.name)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_detected(folder, tmp_path, damage):
    for name in listed(folder):
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        damaged = shutil.copytree(folder, tmp_path / "damaged")
        DAMAGES[damage](damaged / name)
        with pytest.raises(ArtifactError, match=os.path.basename(name)):
            open_artifact(damaged)
    if damage not in ("flipped", "longer", "shorter", "deleted"):  # white space, or a checkpoint without settings
        DAMAGES[damage](folder / "sweet_config.json")
        with pytest.raises(ArtifactError):
            open_artifact(folder)


@pytest.mark.parametrize(
    "name",
    [
        "added_tokens.json",
        "tokenizer.4.0.json",
        "vocab.txt",
        "spm.model",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model_int8.safetensors",
    ],
)
def test_added_file_is_detected(folder, name):
    (folder / name).write_text("{}")
    with pytest.raises(ArtifactError, match=rf"{name} is not listed in sweet_config.json.*verify=False"):
        open_artifact(folder)


def test_files_without_effect_may_be_added(folder):
    (folder / "README.md").write_text("# Card")
    (folder / "notes.txt").write_text("mine")
    (folder / "checkpoint-7").mkdir()
    os.mkfifo(folder / "pipe")
    assert open_artifact(folder).exits


@pytest.mark.parametrize("resign", [False, True])
def test_entry_removed_from_the_manifest_is_detected(folder, resign):
    files = json.loads((folder / "sweet_config.json").read_text())["files"]
    for name in [*files, None]:
        change(folder, files={} if name is None else {key: entry for key, entry in files.items() if key != name})
        if resign:
            settings = json.loads((folder / "sweet_config.json").read_text())
            change(folder, digest=settings_digest(settings))
        with pytest.raises(ArtifactError, match="is not listed"):
            open_artifact(folder)


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        "all",
        {"model.safetensors": None},
        {"model.safetensors": {"bytes": "1", "sha256": "0"}},
        {"model.safetensors": {"bytes": 1}},
        {"model.safetensors": {"bytes": True, "sha256": ""}},
        {"../model.safetensors": {"bytes": 1, "sha256": ""}},
        {"/etc/passwd": {"bytes": 1, "sha256": ""}},
        {"a/b/c": {"bytes": 1, "sha256": ""}},
        {"": {"bytes": 1, "sha256": ""}},
        {".": {"bytes": 1, "sha256": ""}},
        {"a\0b": {"bytes": 1, "sha256": ""}},
    ],
)
def test_damaged_manifest(folder, files):
    change(folder, files=files)
    with pytest.raises(ArtifactError, match=r"sweet_config.json is damaged.*files"):
        open_artifact(folder)


def leaves(value, path=()):
    """Yields the path of every leaf of a JSON value, with a different value for it."""
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list) and value:
        for place in range(len(value)):
            yield from leaves(value[place], (*path, place))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, (int, float)):
        yield path, value + 1 if value < 1 else value / 2
    else:
        yield path, "other"


def test_change_of_any_setting_is_detected(folder):
    text = (folder / "sweet_config.json").read_text()
    changes = list(leaves(json.loads(text)))
    assert len(changes) > 20
    for path, other in changes:
        settings = json.loads(text)
        place = settings
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = other
        (folder / "sweet_config.json").write_text(json.dumps(settings))
        with pytest.raises(ArtifactError):
            open_artifact(folder)


def test_error_about_an_edited_threshold_names_the_alternative(single):
    policy = json.loads((single / "sweet_config.json").read_text())["policy"]
    change(single, policy={**policy, "thresholds": [0.5]})
    with pytest.raises(ArtifactError, match=r"digest differs.*model.policy = .*itrex-sweet calibrate"):
        open_artifact(single)
    model = SweetModelForSequenceClassification.from_pretrained(single, verify=False)
    assert model.policy.thresholds == (0.5,)
    model.save_pretrained(single)
    assert open_artifact(single).policy.thresholds == (0.5,)


def swap_vocabulary(folder):
    contents = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = contents["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    (folder / "tokenizer.json").write_text(json.dumps(contents))


def swap_labels(folder):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["0"], config["id2label"]["1"] = config["id2label"]["1"], config["id2label"]["0"]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


@pytest.mark.parametrize("swap", [swap_vocabulary, swap_labels])
def test_swapped_vocabulary_or_labels_are_detected(single, swap):
    swap(single)
    with pytest.raises(ArtifactError, match=r"SHA-256 differs|bytes"):
        SweetModelForSequenceClassification.from_pretrained(single)
    # On purpose, it can be opened, and saved again.
    SweetModelForSequenceClassification.from_pretrained(single, verify=False).save_pretrained(single)
    assert SweetModelForSequenceClassification.from_pretrained(single).predict(["good soup"])


@pytest.mark.parametrize("version", [1, 2])
def test_older_schemas_are_read_with_verified_weights(folder, version):
    as_schema(folder, version)
    (folder / "added_tokens.json").write_text("{}")
    artifact = open_artifact(folder)
    assert artifact.files
    copied = copy_artifact(artifact, folder.parent / "copy")
    assert (
        json.loads((folder.parent / "copy" / "sweet_config.json").read_text())["schema_version"]
        == FLOAT_EMBEDDINGS_SCHEMA
    )
    assert "added_tokens.json" in listed(folder.parent / "copy") and open_artifact(folder.parent / "copy") == copied
    write_card(artifact, "# Card")
    assert (folder / "README.md").read_text() == "# Card" and open_artifact(folder).policy == artifact.policy
    weights = next(name for name in listed(folder) if name.endswith("model.safetensors"))
    flip(folder / weights)
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        open_artifact(folder)
    change(folder, files={})
    with pytest.raises(ArtifactError, match="is not listed"):
        open_artifact(folder)


def test_schema_3_is_verified_and_kept_by_a_new_card(folder):
    change(folder, schema_version=3)
    recompute_hashes(folder)
    artifact = open_artifact(folder)
    write_card(artifact, "# Card")
    assert json.loads((folder / "sweet_config.json").read_text())["schema_version"] == 3
    (folder / "added_tokens.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"added_tokens.json.*listed"):
        open_artifact(folder)
    (folder / "added_tokens.json").unlink()
    change(folder, precision="float32", provenance={})  # with the old digest
    with pytest.raises(ArtifactError, match="digest"):
        open_artifact(folder)


def test_fingerprints_are_verified_and_extended(single):
    write_card(open_artifact(single), "# Card", Fingerprints.of([[5]]))
    artifact = open_artifact(single)
    assert artifact.fingerprints().keys() == {TRAINING, "reporting"}
    copy_artifact(artifact, single, artifact.policy.with_threshold(0.3), {"source": "x"}, Fingerprints.of([[6]]))
    assert open_artifact(single).fingerprints().keys() == {TRAINING, "reporting", CALIBRATION}
    flip(single / "fingerprints.safetensors")
    with pytest.raises(ArtifactError, match="fingerprints"):
        open_artifact(single)


# ---------------------------------------------------------------------- what was verified is what runs


def overwrite(path):
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"\xff" * (path.stat().st_size // 2))


def cut(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("change_file", [overwrite, cut, os.unlink])
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_changed_files_do_not_affect_a_loaded_model(single, change_file, backend):
    model = SweetModelForSequenceClassification.from_pretrained(single, backend=backend, threshold=1.0)
    texts = ["the soup was good", "never again"]
    before = model.predict(texts)
    for name in listed(single):
        change_file(single / name)
    assert model.predict(texts) == before


def test_opened_artifact_returns_verified_bytes(single):
    artifact = open_artifact(single)
    before = {name: (single / name).read_bytes() for name in listed(single)}
    for name in listed(single):
        overwrite(single / name)
    assert {name: artifact.read_file(name) for name in before if "model" not in name} == {
        name: contents for name, contents in before.items() if "model" not in name
    }
    copy_artifact(artifact, single.parent / "copy")
    assert {name: (single.parent / "copy" / name).read_bytes() for name in before} == before
    artifact.tensors()
    with pytest.raises(ArtifactError):
        artifact.tensors()


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_weights_read_later_must_be_unchanged(single, verify, taken):
    artifact = open_artifact(single, verify=verify, weights=taken)
    first = artifact.tensors()
    assert all(torch.equal(value, first[name]) for name, value in artifact.tensors().items())
    _, config, tensors = model_and_tensors("bert", (1, 2), num_labels=2, seed=7)
    write_artifact(single, config=config, tensors=tensors)
    with pytest.raises(ArtifactError, match=r"was replaced since it was opened; open it again"):
        artifact.tensors()


def test_symbolic_links_of_the_hub_cache(single, tmp_path):
    blobs, cached = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir()
    cached.mkdir()
    for number, name in enumerate(every_file(single)):
        shutil.copy(single / name, blobs / str(number))
        (cached / name).symlink_to(f"../blobs/{number}")
    artifact = open_artifact(cached)
    write_card(artifact, "# Card")
    assert open_artifact(cached) == artifact
    assert SweetModelForSequenceClassification.from_pretrained(cached).predict(["good"])


def test_file_size_limits(single, monkeypatch):
    monkeypatch.setattr(snapshot, "JSON_LIMIT", 100)
    monkeypatch.setattr("itrex_sweet.artifact.reading.JSON_LIMIT", 100)
    with pytest.raises(ArtifactError, match="at most 100 are read"):
        open_artifact(single)


@pytest.mark.parametrize("name", ["config.json", "sweet_config.json"])
@pytest.mark.parametrize(
    "contents", ["[" * 100_000, '{"a":' * 100_000, "\xff\xfe", "", "null", "1" * 10_000, '"', '{"a": 1}}']
)
def test_invalid_json(single, name, contents):
    (single / name).write_bytes(contents.encode("latin-1"))
    with pytest.raises(ArtifactError, match=name):
        open_artifact(single, verify=False)


@pytest.mark.parametrize("stages", [["../artifact"], ["/"], "exit_1", [1], [""], [".."], ["exit_1/.."], [None], {}])
def test_invalid_stage_names(kept, tmp_path, stages):
    folder = shutil.copytree(kept / "cascade", tmp_path / "artifact")
    for sign_again in (False, True):
        if sign_again:
            sign(folder, stages=stages)
        else:
            change(folder, stages=stages)
        with pytest.raises(ArtifactError, match=r"stages|plain checkpoint|missing|no model.safetensors|is not listed"):
            open_artifact(folder)


# ---------------------------------------------------------------------- safetensors


def safetensors_file(header, data=b"", padding=""):
    text = json.dumps(header).encode() + padding.encode()
    return np.frombuffer(struct.pack("<Q", len(text)) + text + data, np.uint8)


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "contents",
    [
        np.zeros(0, np.uint8),
        np.zeros(7, np.uint8),
        np.full(64, 255, np.uint8),
        safetensors_file([]),
        safetensors_file({"a": entry()}, bytes(7)),
        safetensors_file({"a": entry()}, bytes(9)),
        safetensors_file({"a": entry(begin=4, end=12)}, bytes(12)),
        safetensors_file({"a": entry(), "b": entry()}, bytes(8)),
        safetensors_file({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)),
        safetensors_file({"a": entry(shape=(3,))}, bytes(8)),
        safetensors_file({"a": entry(shape=(-2,))}, bytes(8)),
        safetensors_file({"a": entry(shape=(2.0,))}, bytes(8)),
        safetensors_file({"a": entry(shape=(True, 2))}, bytes(8)),
        safetensors_file({"a": entry(shape=(2**40, 2**40, 0), end=0)}, b"\1"),
        safetensors_file({"a": entry("C64", (1,))}, bytes(8)),
        safetensors_file({"a": entry(["F32"])}, bytes(8)),
        safetensors_file({"a": entry(begin=-8, end=0)}, bytes(8)),
        safetensors_file({"a": entry(begin=8, end=0)}, bytes(8)),
        safetensors_file({"a": {"dtype": "F32"}}, bytes(8)),
        safetensors_file({"a": None}, bytes(8)),
        safetensors_file({"__metadata__": [1], "a": entry()}, bytes(8)),
        np.frombuffer(struct.pack("<Q", 100_000) + b"[" * 100_000, np.uint8),
        np.frombuffer(struct.pack("<Q", 2) + b"\xff\xff", np.uint8),
    ],
)
def test_invalid_safetensors_files(tmp_path, contents):
    with pytest.raises(ArtifactError, match="cannot be read as safetensors"):
        TensorFile(contents, tmp_path / "x").tensors()


@pytest.mark.parametrize("padding", range(9))
def test_tensors_equal_those_of_safetensors(tmp_path, padding):
    """Also with a header length that leaves the data unaligned, which the format allows."""
    from safetensors.torch import load, save

    generator = torch.Generator().manual_seed(0)
    tensors = {
        "f": torch.randn(3, 5, generator=generator),
        "b": torch.randn(7, generator=generator).bfloat16(),
        "i": torch.randint(-9, 9, (2, 2), generator=generator, dtype=torch.int8),
        "l": torch.randint(-9, 9, (4,), generator=generator),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "flag": torch.tensor([True, False]),
    }
    stored = save(tensors)
    length = struct.unpack("<Q", stored[:8])[0]
    padded = struct.pack("<Q", length + padding) + stored[8 : 8 + length] + b" " * padding + stored[8 + length :]
    assert load(padded).keys() == tensors.keys()
    read = TensorFile(np.frombuffer(bytearray(padded), np.uint8), tmp_path / "x").tensors()
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        tensor = read[name].as_torch()
        assert tensor.dtype == value.dtype and torch.equal(tensor, value)
        assert tensor.data_ptr() % tensor.element_size() == 0
