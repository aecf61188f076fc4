"""The folder that receives answers: names, manifest, lock, and atomic writing.

    manifest.json            artifact, settings, and the fingerprint of each input file
    answers/NAME.FIRST-LAST.SUFFIX    answers of the rows FIRST to LAST of the input file NAME
    bad_rows/NAME.FIRST-LAST.jsonl    rows without an answer: file, row, line, reason; only where there are some

A file has its name only if it is complete, and a part whose file of answers exists is finished. One process writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from itrex_sweet.cluster.input_files import InputFile
from itrex_sweet.cluster.parts import Part, PartAnswers
from itrex_sweet.data.json_lines import json_line
from itrex_sweet.errors import ConfigError, InputError, SweetError

MANIFEST, ANSWERS, BAD_ROWS = "manifest.json", "answers", "bad_rows"

_LOCK = ".lock"
_UNFINISHED = ".unfinished"  # suffix of a file that is being written
_KIND, _VERSION = "itrex-sweet answers", 1
_SAVE_SECONDS = 5.0  # between two versions of the manifest that record finished files
_RANGE = re.compile(r"\.(\d{12})-(\d{12})\.\w+$")  # behind the name of the input file
_LINE = re.compile(r", line (\d+)$")  # of the place of a row


class OutputFolder:
    """A folder of answers, locked by this process.

    Use `opened`.

    Args:
        path: the folder.
        manifest: contents of its manifest.
        suffix: of files of answers.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], suffix: str):
        self.path, self.manifest, self._suffix = path, manifest, suffix
        self._saved = time.monotonic()

    @classmethod
    @contextmanager
    def opened(cls, path: Path, run: Mapping[str, Any], suffix: str, restart: bool) -> Iterator[OutputFolder]:
        """Opens a folder, creates it if it does not exist, and locks it.

        Args:
            run: all that answers depend on besides the input: artifact and settings, as JSON.
            suffix: of files of answers.
            restart: delete what an earlier run wrote.

        Raises:
            ConfigError: the folder has other contents, or answers of another artifact or with other settings.
            SweetError: another process writes to it.
        """
        path.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(path)
        with _locked(path):
            _remove_unfinished(path)
            if restart:
                (path / MANIFEST).unlink(missing_ok=True)
                _remove_files(path, lambda _: True)
            manifest = _read_manifest(path)
            if manifest is None:
                if any(True for _ in _files(path)):
                    raise ConfigError(f"{path} has answers without a {MANIFEST}: delete them with --restart.")
                manifest = {"kind": _KIND, "version": _VERSION, "run": dict(run), "complete": False, "inputs": {}}
            _refuse_changes(path, manifest["run"], json.loads(json.dumps(run)))
            yield cls(path, manifest, suffix)

    def known(self, name: str) -> Mapping[str, Any] | None:
        """Returns the record of an input file, or `None` for a new one."""
        return self.manifest["inputs"].get(name)

    def begin(self, files: Sequence[InputFile]) -> list[str]:
        """Records the input files, and deletes the answers of files that have changed or are not there any more.

        Args:
            files: with their hashes.

        Returns:
            a line for each of these files, for the log.

        Raises:
            InputError: a name is too long for the names of its answers. Nothing is changed then.
        """
        self._refuse_long_names(files)
        before, inputs, messages = self.manifest["inputs"], {}, []
        rows_answered = self._rows_answered()
        for file in files:
            record = before.get(file.name)
            if record is not None and record["sha256"] == file.sha256:
                inputs[file.name] = {**record, **file.recorded}
                if "rows" in record and rows_answered.get(file.name, 0) != record["rows"]:
                    del inputs[file.name]["rows"], inputs[file.name]["bad_rows"]
                    messages.append(f"{self.path}: answers of {file.name} are missing; their rows are answered again.")
                continue
            inputs[file.name] = file.recorded
            if record is not None:
                messages.append(f"{file.path} has changed since the last run: its rows are answered again.")
        for name in sorted(before.keys() - inputs.keys()):
            messages.append(f"{name} is no longer among the input files: its answers are deleted.")
        stale = {name for name, record in before.items() if inputs.get(name, {}).get("sha256") != record["sha256"]}
        _remove_files(self.path, lambda name: _RANGE.sub("", name) in stale)
        self.manifest |= {"complete": False, "inputs": inputs}
        self._save()
        return messages

    def _refuse_long_names(self, files: Sequence[InputFile]) -> None:
        """Raises InputError for files whose parts would have names that the file system does not take."""
        longest_name, longest_path = (os.pathconf(self.path, limit) for limit in ("PC_NAME_MAX", "PC_PATH_MAX"))
        for file in files:
            part = Part(file.name, 0, ())
            for path in (self._answers(part), self._bad_rows(part)):
                name = os.fsencode(path.name + _UNFINISHED)
                excess = len(name) - longest_name
                if excess > 0:
                    own = len(os.fsencode(Path(file.name).name))
                    raise InputError(
                        f"{file.path}: the name has {own} bytes, and the names of its answers, which are made of it, "
                        f"fit in {self.path} if it has at most {own - excess}. Rename the file."
                    )
                if len(os.fsencode(path.absolute())) + len(_UNFINISHED) >= longest_path:
                    raise InputError(
                        f"{file.path}: the paths of its answers in {self.path} would have more than {longest_path - 1} "
                        "bytes. Give an output folder with a shorter path."
                    )

    def _rows_answered(self) -> dict[str, int]:
        """Returns the number of rows in the finished parts of each input file, by its name."""
        counts: dict[str, int] = {}
        for _, name in _files(self.path, (ANSWERS,)):
            if (found := _RANGE.search(name)) is not None:
                source = name[: found.start()]
                counts[source] = counts.get(source, 0) + int(found[2]) - int(found[1]) + 1
        return counts

    def rows_of(self, name: str) -> tuple[int, int] | None:
        """Returns the numbers of rows and of bad rows of an input file whose parts are all finished, else `None`."""
        record = self.manifest["inputs"][name]
        return (record["rows"], record["bad_rows"]) if "rows" in record else None

    def is_finished(self, part: Part) -> bool:
        """Returns whether the answers of a part exist."""
        return self._answers(part).is_file()

    def bad_rows_of(self, part: Part) -> int:
        """Returns the number of rows of a finished part that have no answer."""
        try:
            return self._bad_rows(part).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def write(self, part: Part, answers: PartAnswers) -> None:
        """Writes the answers of a part; the file of answers last, since it marks the part as finished."""
        if answers.problems:
            lines = (json_line(_bad_row(part, row, reason)) + "\n" for row, reason in answers.problems)
            _write(self._bad_rows(part), "".join(lines).encode("utf-8", "backslashreplace"))
        _write(self._answers(part), answers.contents)

    def finish_file(self, name: str, rows: int, bad_rows: int) -> None:
        """Records that all parts of an input file are finished."""
        self.manifest["inputs"][name] |= {"rows": rows, "bad_rows": bad_rows}
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def finish(self, complete: bool) -> None:
        """Writes the final manifest."""
        self.manifest["complete"] = complete
        self._save()

    def _save(self) -> None:
        _write(self.path / MANIFEST, (json.dumps(self.manifest, indent=1) + "\n").encode())
        self._saved = time.monotonic()

    def _answers(self, part: Part) -> Path:
        return self.path / ANSWERS / f"{part.name}.{self._suffix}"

    def _bad_rows(self, part: Part) -> Path:
        return self.path / BAD_ROWS / f"{part.name}.jsonl"


def _bad_row(part: Part, row: int, reason: str) -> dict[str, Any]:
    place = part.rows[row - part.first].place
    line = _LINE.search(place)
    where = {"line": int(line[1])} if line else {}
    return {"file": part.source, "row": row, **where, "reason": reason.removeprefix(f"{place}: ")}


def _write(path: Path, contents: bytes) -> None:
    """Writes a file to the disk, and gives it its name when it is complete.

    Raises:
        SweetError: it cannot be written, for instance because the disk is full.
    """
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            stream.write(contents)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise SweetError(
            f"cannot write {path} ({error}); the same command continues when it can be written."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / _LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SweetError(f"{path}: another process writes answers to this folder; wait until it ends.") from error
        yield


def _refuse_foreign(path: Path) -> None:
    """Raises ConfigError for a folder with contents that this module did not write."""
    names = {entry.name.removesuffix(_UNFINISHED) for entry in os.scandir(path)}
    if foreign := sorted(names - {MANIFEST, ANSWERS, BAD_ROWS, _LOCK}):
        raise ConfigError(f"{path} contains {foreign[0]!r}: give a new folder for answers, or one of an earlier run.")


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("kind") != _KIND or manifest.get("version") != _VERSION:
        raise ConfigError(
            f"{path / MANIFEST} was not written by this release: give another folder, or compute all again (--restart)."
        )
    if not isinstance(manifest.get("run"), dict) or not _are_records(manifest.get("inputs")):
        raise ConfigError(f"{path / MANIFEST} is damaged: compute all again with --restart.")
    return manifest


def _are_records(inputs: Any) -> bool:
    """Returns whether these are records of input files, by name."""
    if not isinstance(inputs, dict):
        return False
    counts = ("rows", "bad_rows")
    return all(
        isinstance(record, dict)
        and isinstance(record.get("sha256"), str)
        and ("rows" in record) == ("bad_rows" in record)
        and all(type(record.get(name, 0)) is int for name in counts)
        for record in inputs.values()
    )


def _refuse_changes(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        shown = ", ".join(f"{name} (was {before.get(name)!r}, is {now.get(name)!r})" for name in changed)
        raise ConfigError(
            f"{path} contains answers of a run with another {shown}. Give another folder, or delete these answers and "
            "compute all again with --restart."
        )


def _files(path: Path, folders: Sequence[str] = (ANSWERS, BAD_ROWS)) -> Iterable[tuple[Path, str]]:
    """Yields the files of these folders, and the name of each below its folder."""
    for folder in folders:
        for top, _, names in os.walk(path / folder):
            for name in names:
                yield (file := Path(top, name)), file.relative_to(path / folder).as_posix()


def _remove_unfinished(path: Path) -> None:
    for file in (*(file for file, _ in _files(path)), path / f"{MANIFEST}{_UNFINISHED}"):
        if file.name.endswith(_UNFINISHED):
            file.unlink(missing_ok=True)


def _remove_files(path: Path, chosen: Any) -> None:
    """Deletes the files of answers and of bad rows whose name below their folder is chosen, and empty folders."""
    for file, name in list(_files(path)):
        if chosen(name):
            file.unlink(missing_ok=True)
            with suppress(OSError):  # other files are in it
                os.removedirs(file.parent)
