"""Tests of writers that are killed or fail at any change: the folder holds the old artifact or the new one."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import sys
from hashlib import sha256

import pytest

from itrex_sweet.artifact import (
    commit,
    copy_artifact,
    open_artifact,
    reading,
    staging,
    write_artifact,
    write_card,
    write_cascade,
)
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.errors import ArtifactError
from tests.tiny_artifacts import model_and_tensors, tiny_tokenizer

CHANGES = {
    "os.chmod",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "shutil.move",
    "shutil.rmtree",
}
FOREIGN = {"notes.txt": b"mine", "checkpoint-5/optimizer.pt": b"state", ".git/HEAD": b"ref"}


def model(name):
    """Returns config and tensors; label and weights both identify the model."""
    _, config, tensors = model_and_tensors("bert", (1, 2), num_labels=2, seed=sum(map(ord, name)))
    config.id2label, config.label2id = {0: name, 1: "other"}, {name: 0, "other": 1}
    return config, tensors


OLD, NEW = model("old"), model("new")
TOKENIZER = tiny_tokenizer()


def save(directory, which):
    return write_artifact(directory, config=which[0], tensors=which[1], tokenizer=TOKENIZER)


def held(directory):
    """Returns label, weights and threshold, as this package reads them."""
    artifact = open_artifact(directory)
    return artifact.label_names[0], weights_of(artifact), artifact.policy.thresholds[0]


def weights_of(artifact):
    name = artifact.files[artifact.files.index("model.safetensors")]
    return sha256(artifact.read_file(name)).hexdigest()


def held_by_others(directory):
    """Returns the same, read without this package."""
    labels = json.loads((directory / "config.json").read_text())["id2label"]
    settings = json.loads((directory / "sweet_config.json").read_text())
    weights = (directory / "model.safetensors").read_bytes()
    return labels["0"], sha256(weights).hexdigest(), settings["policy"]["thresholds"][0]


def put_foreign(directory):
    for name, contents in FOREIGN.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(contents)


def lost(directory):
    """Returns the foreign files that are neither in the folder nor in a staging folder."""
    folders = [directory, *directory.parent.glob(f".{directory.name}.incoming-*")]
    return [
        name
        for name, contents in FOREIGN.items()
        if not any((at / name).is_file() and (at / name).read_bytes() == contents for at in folders)
    ]


def left_over(directory):
    inside = list(directory.rglob(".*incoming*")) if directory.exists() else []
    named = [path for path in directory.rglob(".*") if path.name in (commit.MARKER, commit.COMMITTED)]
    return [*directory.parent.glob(".*incoming*"), *inside, *named]


def is_change(event, arguments):
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        return mode != "r" and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES


def killed_at(place, work):
    """Runs work in a child that is killed before its change number `place`, from 0; returns whether it got there."""
    child = os.fork()
    if child == 0:
        count = itertools.count()
        armed = True

        def watch(event, arguments):
            if armed and is_change(event, arguments) and next(count) == place:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def recalibrate(directory):
    artifact = open_artifact(directory)
    copy_artifact(artifact, directory, artifact.policy.with_threshold(0.25), calibration={"source": "rows"})


WRITERS = {
    "save": lambda directory: save(directory, NEW),
    "calibrate": recalibrate,
    "card": lambda directory: write_card(open_artifact(directory), "# Card"),
}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=["exchange", "inside"])
def way(request, monkeypatch):
    """Selects the way to commit: exchange, or, as on systems without it, a commit inside the folder."""
    if request.param == "inside":
        monkeypatch.setattr(commit, "exchange", lambda first, second: False)
    return request.param


@pytest.mark.parametrize(
    ("way", "writer"),
    [("exchange", "save"), ("exchange", "calibrate"), ("exchange", "card"), ("inside", "save")],
    indirect=["way"],
)
def test_kill_leaves_the_old_or_the_new_artifact(tmp_path, way, writer, monkeypatch):
    target, work = tmp_path / "model", WRITERS[writer]
    models = {name: held(save(tmp_path / name, which).directory) for name, which in (("old", OLD), ("new", NEW))}
    put_foreign(tmp_path / "old")
    seen = set()
    for place in range(400):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(tmp_path / "old", target)
        came_so_far = killed_at(place, lambda: work(target))
        assert not lost(target), place
        if way == "exchange":
            assert held_by_others(target) == held(target), place
        with monkeypatch.context() as patched:  # as a reader without the right to write there
            patched.setattr(reading, "resume", lambda directory: None)
            assert held(target)[:2] in {name[:2] for name in models.values()}, place
        after = held(target)
        seen.add(after)
        assert after[:2] == models[after[0]][:2], place
        require_writable(target)
        assert held(target) == held_by_others(target) == after, place
        assert not left_over(target), place
        assert all((target / name).read_bytes() == contents for name, contents in FOREIGN.items()), place
        if not came_so_far:
            break
    assert place > 20
    assert models["old"] in seen
    assert len(seen) == (1 if writer == "card" else 2)


def test_kill_of_a_first_save_leaves_all_or_nothing(tmp_path):
    for place in range(400):
        target = tmp_path / f"model-{place}"
        came_so_far = killed_at(place, lambda target=target: save(target, NEW))
        if target.exists():
            assert held(target) == held_by_others(target)
        require_writable(target)
        assert not left_over(target)
        if not came_so_far:
            break
    assert place > 10


def test_failure_leaves_the_old_or_the_new_artifact(tmp_path, way, monkeypatch):
    """Each change fails once, as on a full or broken disk; the writer continues."""
    target = tmp_path / "model"
    names = ("chmod", "link", "mkdir", "rename", "replace", "unlink", "utime")
    for place in range(400):
        save(target, OLD)
        put_foreign(target)
        before, count, failed = held(target), itertools.count(), []

        def refuse(real, count=count, failed=failed, place=place):
            def call(*arguments, **options):
                if next(count) == place:
                    failed.append(real)
                    raise OSError(5, "Input/output error")
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patched:
            for name in names:
                patched.setattr(os, name, refuse(getattr(os, name)))
            try:
                save(target, NEW)
                raised = None
            except ArtifactError as error:
                raised = error
        if not failed:
            break
        after = held(target)
        assert held_by_others(target) == after or way == "inside"
        assert after == before if raised is not None and way == "exchange" else after[0] in ("old", "new")
        require_writable(target)
        assert held(target) == held_by_others(target) == after
        assert not left_over(target), place
        assert all((target / name).read_bytes() == contents for name, contents in FOREIGN.items()), place
    assert place > 10


def test_staging_folder_of_a_running_writer_is_kept(tmp_path):
    target = tmp_path / "model"
    save(target, OLD)
    with staging.staged(target) as folder:
        require_writable(target)
        save(target, NEW)
        assert folder.is_dir()
        (folder / "late.txt").write_text("late")
    assert (target / "late.txt").read_text() == "late"
    assert not left_over(target)


def test_cascade_is_replaced_and_foreign_files_are_kept(tmp_path, way):
    stages = [model_and_tensors("bert", (exit_,), seed=exit_)[1:] for exit_ in (1, 2)]
    target = tmp_path / "model"
    write_cascade(target, stages=stages, tokenizer=TOKENIZER)
    (target / "exit_1" / "notes.txt").write_text("mine")
    save(target, NEW)
    assert (target / "exit_1" / "notes.txt").read_text() == "mine"
    assert [path.name for path in (target / "exit_1").iterdir()] == ["notes.txt"]
    assert not (target / "exit_2").exists() and open_artifact(target).label_names[0] == "new"
    write_cascade(target, stages=stages)
    assert (target / "exit_1" / "notes.txt").read_text() == "mine"
    assert len(open_artifact(target).stages) == 2


def test_symbolic_link_to_the_folder_is_kept(tmp_path, way):
    save(tmp_path / "real", OLD)
    (tmp_path / "link").symlink_to("real")
    save(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink() and held(tmp_path / "real") == held(tmp_path / "link")
    assert held(tmp_path / "real")[0] == "new"


def test_folder_mode_and_working_directory_are_kept(tmp_path, monkeypatch):
    target = tmp_path / "model"
    save(target, OLD)
    target.chmod(0o750)
    save(target, NEW)
    assert target.stat().st_mode & 0o777 == 0o750
    monkeypatch.chdir(target)
    inode = target.stat().st_ino
    save(".", OLD)
    assert target.stat().st_ino == inode and held(".")[0] == "old" and os.listdir(".")
    assert not left_over(target)


def test_folder_with_the_name_of_a_file_is_not_overwritten(tmp_path):
    target = tmp_path / "model"
    (target / "config.json").mkdir(parents=True)
    (target / "config.json" / "mine").write_text("mine")
    with pytest.raises(ArtifactError, match="unchanged"):
        save(target, NEW)
    assert (target / "config.json" / "mine").read_text() == "mine" and not left_over(target)


def test_recreated_user_folder_is_merged(tmp_path):
    """The writer is killed after the exchange; then a Trainer creates its checkpoint folder again."""
    target = tmp_path / "model"
    save(target, OLD)
    put_foreign(target)
    for place in range(200):
        killed_at(place, lambda: save(target, NEW))
        if not (target / "checkpoint-5").exists():
            break
    (target / "checkpoint-5").mkdir()
    (target / "checkpoint-5" / "trainer_state.json").write_text("{}")
    require_writable(target)
    assert {path.name for path in (target / "checkpoint-5").iterdir()} == {"optimizer.pt", "trainer_state.json"}


def test_both_ways_to_commit_give_equal_artifacts(tmp_path, way):
    written = save(tmp_path / "model", NEW)
    assert dataclasses.replace(open_artifact(tmp_path / "model")) == written
