"""Tests of concurrent writers: results for one artifact are not written to another, and readers see no mixture."""

import itertools
import json
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import commit, copy_artifact, open_artifact, write_artifact, write_card
from itrex_sweet.artifact.fingerprints import REPORTING, Fingerprints
from itrex_sweet.artifact.snapshot import Snapshot
from itrex_sweet.errors import ArtifactError, ConfigError
from tests.test_artifact_kills import NEW, OLD, TOKENIZER, held, save
from tests.test_artifact_manifest import as_schema
from tests.tiny_artifacts import model_and_tensors

REPLACED = r"was replaced since it was opened; open it again"


def fingerprint(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "model", OLD)
    return tmp_path / "model"


def another_model(folder):
    save(folder, NEW)


def another_tokenizer(folder):
    tokenizer = TOKENIZER.__class__.from_pretrained(folder)
    tokenizer.model_max_length = 16
    write_artifact(folder, config=OLD[0], tensors=OLD[1], tokenizer=tokenizer)


def another_policy(folder):
    artifact = open_artifact(folder)
    copy_artifact(artifact, folder, artifact.policy.with_threshold(0.77))


def a_trainer_saved(folder):
    """Overwrites the weights with a model of the same config, as `Trainer.save_model` does."""
    from safetensors.torch import save_file

    save_file(NEW[1], folder / "model.safetensors", metadata={"format": "pt"})


def only_config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "x", "1": "y"}}))


def gone(folder):
    shutil.rmtree(folder)


WRITES = {
    "calibration": lambda artifact: copy_artifact(
        artifact, artifact.directory, artifact.policy.with_threshold(0.1), {"source": "rows"}
    ),
    "policy": lambda artifact: copy_artifact(artifact, artifact.directory, artifact.policy.with_threshold(0.1)),
    "card": lambda artifact: write_card(artifact, "# Card", Fingerprints.of([[1]])),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("change", [another_model, another_tokenizer, another_policy, a_trainer_saved, only_config])
@pytest.mark.parametrize("verify", [True, False])
def test_write_to_a_replaced_artifact_raises(folder, write, change, verify):
    artifact = open_artifact(folder, verify=verify)
    change(folder)
    before = fingerprint(folder)
    with pytest.raises(ArtifactError, match=REPLACED):
        WRITES[write](artifact)
    assert fingerprint(folder) == before


@pytest.mark.parametrize("version", [1, None])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("change", [another_model, a_trainer_saved, only_config])
def test_write_to_a_replaced_artifact_without_manifest_raises(folder, write, change, version):
    if version is None:
        (folder / "sweet_config.json").unlink()
    else:
        as_schema(folder, version)
    artifact = open_artifact(folder)
    change(folder)
    before = fingerprint(folder)
    with pytest.raises(ArtifactError, match=REPLACED):
        WRITES[write](artifact)
    assert fingerprint(folder) == before


@pytest.mark.parametrize("write", WRITES)
def test_write_to_a_deleted_folder_raises(folder, write):
    artifact = open_artifact(folder, weights=False)
    gone(folder)
    with pytest.raises(ArtifactError):
        WRITES[write](artifact)
    assert not folder.exists() and not list(folder.parent.glob(".*"))


def another_card(folder):
    write_card(open_artifact(folder), "# Another", Fingerprints.of([[9]]))


@pytest.mark.parametrize("change", [another_model, another_card])
@pytest.mark.parametrize("write", WRITES)
def test_artifact_replaced_just_before_the_commit(folder, write, change, monkeypatch):
    """Another process writes when the staging folder is complete, just before the exchange."""
    artifact, now = open_artifact(folder), []
    from itrex_sweet.artifact import staging

    lock = staging.locked

    def locked(place):
        now.append(place)
        if len(now) == 2:
            change(folder)
            now.append(fingerprint(folder))
        return lock(place)

    monkeypatch.setattr(staging, "locked", locked)
    with pytest.raises(ArtifactError, match=REPLACED):
        WRITES[write](artifact)
    assert fingerprint(folder) in now


def test_repeated_writes_of_one_process(folder):
    model = SweetModelForSequenceClassification.from_pretrained(folder)
    for threshold in (0.1, 0.2, 0.3):
        model.policy = model.policy.with_threshold(threshold)
        model.save_pretrained(folder)
        write_card(model.artifact, f"# {threshold}", Fingerprints.of([[int(threshold * 10)]]))
        assert open_artifact(folder).policy.thresholds == (threshold,)
    assert (folder / "README.md").read_text() == "# 0.3"
    assert open_artifact(folder).fingerprints()[REPORTING].rows == 1


def test_model_card_of_another_process_is_no_conflict(folder):
    artifact = open_artifact(folder)
    write_card(open_artifact(folder), "# Card", Fingerprints.of([[1]]))
    copy_artifact(artifact, folder, artifact.policy.with_threshold(0.4))
    assert open_artifact(folder).fingerprints().keys() == {REPORTING}
    assert (folder / "README.md").read_text() == "# Card"


def test_copy_elsewhere_has_the_opened_files(folder, tmp_path):
    artifact = open_artifact(folder)
    before = held(folder)
    another_model(folder)
    copy_artifact(artifact, tmp_path / "copy")
    assert held(tmp_path / "copy") == before
    artifact.tensors()
    with pytest.raises(ArtifactError, match=REPLACED):
        copy_artifact(artifact, tmp_path / "late")
    assert not (tmp_path / "late").exists()


def test_save_returns_what_it_wrote(folder, monkeypatch):
    """Another process saves immediately afterwards."""
    from itrex_sweet.artifact import staging

    end = staging._Staging.close
    monkeypatch.setattr(staging._Staging, "close", lambda self: (end(self), monkeypatch.undo(), another_model(folder)))
    artifact = save(folder, OLD)
    assert artifact.label_names[0] == "old" and held(folder)[0] == "new"
    with pytest.raises(ArtifactError, match=REPLACED):
        write_card(artifact, "# Card")


# ---------------------------------------------------------------------- races


def save_in_turns(folder, stop):
    for which in itertools.cycle((NEW, OLD)):
        if stop.is_set():
            return
        save(folder, which)


@pytest.fixture(params=["exchange", "inside"])
def racing(request, folder, monkeypatch):
    """Returns a folder into which another process saves two models alternately."""
    if request.param == "inside":
        monkeypatch.setattr(commit, "exchange", lambda first, second: False)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    writer = context.Process(target=save_in_turns, args=(folder, stop))
    writer.start()
    yield folder
    stop.set()
    writer.join(60)
    assert writer.exitcode == 0


def until_both(seen):
    """Yields rounds until both models were seen, and some more."""
    begun, rounds = time.monotonic(), 0
    while rounds < 40 or set(seen) != {"old", "new"}:
        yield rounds
        rounds += 1
        assert time.monotonic() < begun + 60, f"only {set(seen)} in {rounds} rounds"


def test_guarantee_stays_with_its_weights(racing):
    """Opens, calibrates and writes repeatedly: a stored guarantee always belongs to the stored model."""
    own = {}
    for _ in until_both(own):
        artifact = open_artifact(racing)
        label = artifact.label_names[0]
        try:
            copy_artifact(artifact, racing, artifact.policy.with_threshold(0.2), {"source": label})
        except ArtifactError as error:
            assert "was replaced" in str(error)
        now = open_artifact(racing)
        if now.calibration:
            assert now.calibration["source"] == now.label_names[0]
        name, weights, _ = held(racing)
        assert own.setdefault(name, weights) == weights


def test_weights_are_replaced_while_they_are_linked(folder, monkeypatch):
    """The folder has other weights when a calibration links them, and the opened ones again before the commit."""
    artifact, link = open_artifact(folder), os.link

    def link_another(source, place, **options):
        monkeypatch.setattr(os, "link", link)
        save(folder, NEW)
        link(source, place, **options)
        save(folder, OLD)

    monkeypatch.setattr(os, "link", link_another)
    with pytest.raises(ArtifactError, match="was replaced"):
        copy_artifact(artifact, folder, artifact.policy.with_threshold(0.2), {"source": "old"})
    assert os.link is link
    assert open_artifact(folder).label_names == artifact.label_names


@pytest.mark.parametrize("options", [{}, {"verify": False}, {"weights": False}])
def test_reader_opens_one_model_or_the_other(racing, options):
    seen = {}
    for _ in until_both(seen):
        artifact = open_artifact(racing, **options)
        if options.get("weights", True):
            total = sum(float(value.double().sum()) for value in artifact.tensors().values())
            assert seen.setdefault(artifact.label_names[0], total) == total
        else:
            seen[artifact.label_names[0]] = None


@pytest.mark.parametrize("options", [{}, {"verify": False}, {"weights": False}])
@pytest.mark.parametrize("after", ["sweet_config.json", "config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("way", ["exchange", "inside"])
def test_artifact_replaced_between_two_reads(folder, options, after, way, monkeypatch):
    """Replaces the artifact at a moment that the random races seldom hit."""
    own = {label: sum_of_weights(save(folder.parent / label, which)) for label, which in (("old", OLD), ("new", NEW))}
    if way == "inside":
        monkeypatch.setattr(commit, "exchange", lambda first, second: False)
    read, times = Snapshot.read_array, []

    def read_array(self, name, **arguments):
        result = read(self, name, **arguments)
        if name == after and not times:
            times.append(name)
            another_model(folder)
        return result

    monkeypatch.setattr(Snapshot, "read_array", read_array)
    artifact = open_artifact(folder, **options)
    assert times or options.get("weights") is False
    try:
        assert sum_of_weights(artifact) == own[artifact.label_names[0]]
    except ArtifactError as error:
        assert "was replaced" in str(error) and options.get("weights") is False


def sum_of_weights(artifact):
    return sum(float(value.double().sum()) for value in artifact.tensors().values())


def test_two_writers_leave_one_complete_artifact(tmp_path):
    """Uses threads, whose locks exclude each other as those of processes do."""
    folder, failed = tmp_path / "model", []

    def work(which):
        try:
            for _ in range(6):
                save(folder, which)
                held(folder)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in (OLD, NEW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [path.name for path in Path(tmp_path).iterdir()] == ["model"]
    assert held(folder)


# ---------------------------------------------------------------------- what others raise


class FullDisk:
    """Raises as the tokenizers library does if the disk is full: a plain `Exception`."""

    def save_pretrained(self, directory):
        (Path(directory) / "tokenizer.json").write_text("{")
        raise Exception("No space left on device (os error 28)")


@pytest.mark.parametrize("exists", [True, False])
def test_tokenizer_that_cannot_be_saved(folder, tmp_path, exists):
    before = fingerprint(folder)
    target = folder if exists else tmp_path / "first"
    with pytest.raises(ArtifactError, match=r"cannot write .*tokenizer.*No space left.*unchanged"):
        write_artifact(target, config=NEW[0], tensors=NEW[1], tokenizer=FullDisk())
    assert fingerprint(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_invalid_record_changes_nothing(folder):
    before = fingerprint(folder)
    with pytest.raises(ConfigError, match="JSON types"):
        write_artifact(folder, config=NEW[0], tensors=NEW[1], provenance={"model": object()})
    assert fingerprint(folder) == before


def test_tokenizer_in_the_folder_is_kept_or_replaced(folder):
    (folder / "notes.txt").write_text("mine")
    write_artifact(folder, config=NEW[0], tensors=NEW[1])
    assert SweetModelForSequenceClassification.from_pretrained(folder).predict(["good"])
    (folder / "added_tokens.json").write_text("{}")
    save(folder, OLD)
    assert not (folder / "added_tokens.json").exists() and (folder / "notes.txt").read_text() == "mine"
    assert open_artifact(folder).label_names[0] == "old"


def test_damaged_tokenizer_is_not_copied(folder):
    contents = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(contents.replace("good", "bood"))
    with pytest.raises(ArtifactError, match=r"tokenizer.json is not the file that was written"):
        write_artifact(folder, config=NEW[0], tensors=NEW[1])
    save(folder, NEW)
    assert open_artifact(folder)


def test_trainer_checkpoint_over_an_artifact(folder):
    a_trainer_saved(folder)
    with pytest.raises(
        ArtifactError, match=r"If a Trainer saved a model over an artifact here, delete sweet_config.json"
    ):
        open_artifact(folder)
    (folder / "sweet_config.json").unlink()
    assert open_artifact(folder).exits == (1, 2)


def test_unusual_folder_names(tmp_path):
    _, config, tensors = model_and_tensors("bert", (1, 2))
    for name in ("n" * 250, "a.incoming-12345678", "mit Leerzeichen \u00e4 [*]", ".hidden"):
        for _ in range(2):
            write_artifact(tmp_path / name, config=config, tensors=tensors)
        assert open_artifact(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(ArtifactError, match="cannot write"):
        write_artifact(f"{tmp_path}/a\0b", config=config, tensors=tensors)
    with pytest.raises(ArtifactError):
        open_artifact(f"{tmp_path}/a\0b")


def test_folder_that_changes_at_every_attempt_is_not_called_corrupt(folder, monkeypatch):
    with open(folder / "model.safetensors", "r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        open_artifact(folder)
    monkeypatch.setattr("itrex_sweet.artifact.reading._ATTEMPTS", 3)
    monkeypatch.setattr(Snapshot, "is_current", lambda self: False)
    with pytest.raises(ArtifactError, match="changed whenever it was opened, 3 times"):
        open_artifact(folder)
