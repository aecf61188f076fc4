"""Answers the rows of files into a folder: resumable, each row once, equal to the bit for any number of workers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

from itrex_sweet.arguments import whole_number
from itrex_sweet.cluster.input_files import InputFile, input_files
from itrex_sweet.cluster.loading import artifact_identity
from itrex_sweet.cluster.local_worker import LocalWorker
from itrex_sweet.cluster.output_folder import OutputFolder
from itrex_sweet.cluster.parts import Part, parts_of
from itrex_sweet.cluster.ray_workers import RayWorkers
from itrex_sweet.cluster.settings import FolderSettings
from itrex_sweet.errors import InputError
from itrex_sweet.version import __version__

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 10.0


@dataclass
class Totals:
    """Numbers of rows.

    Args:
        rows: rows of the input.
        bad_rows: those without an answer.
        answered_now: rows that this run computed, also those without an answer.
        unfinished_files: names of files that could not be read to their end.
    """

    rows: int = 0
    bad_rows: int = 0
    answered_now: int = 0
    unfinished_files: list[str] = field(default_factory=list)


def predict_folder(
    artifact: str | os.PathLike,
    sources: Sequence[str],
    output: str | os.PathLike,
    settings: FolderSettings | None = None,
    *,
    threads: int | None = None,
    ray_workers: int | None = None,
    address: str | None = None,
    restart: bool = False,
) -> Totals:
    """Answers the rows of files, and writes the answers into a folder, see `output_folder`.

    A run that ended early is continued by the same call: finished parts are not computed again. Input files that have
    changed are answered again; with another artifact or other settings the folder is refused.

    Args:
        artifact: a folder, or a repository on the Hub; with Ray, one that exists on each machine.
        sources: files and folders, see `input_files`.
        output: the folder of answers.
        settings: see there.
        threads: maximum number of threads, with Ray of each worker.
        ray_workers: number of actors of Ray; by default the rows are answered in this process.
        address: of the Ray cluster; by default one is started on this machine.
        restart: delete what an earlier run wrote.

    Raises:
        InputError, ConfigError: a source cannot be read at all, or has no text column; nothing is computed then.
        ArtifactError, BackendUnavailable, MissingExtraError: as `Classifier.load`.
        SweetError: another process writes to the folder, or a part cannot be computed.
    """
    settings = settings or FolderSettings()
    if ray_workers is not None:
        ray_workers = whole_number("ray_workers", ray_workers, minimum=1)
    files = input_files(sources, settings.format, output)
    _check_first_rows(files, settings)
    identity = artifact_identity(artifact)
    run = {"release": __version__, "artifact": identity, **asdict(settings)}
    with OutputFolder.opened(Path(output), run, settings.output_format, restart) as folder:
        for message in folder.begin([file.fingerprinted(folder.known(file.name)) for file in files]):
            logger.warning("%s", message)
        job = _Job(folder, files, settings)
        answerer = dict(
            artifact=str(artifact), identity=identity, threads=threads, output_format=settings.output_format
        )
        answerer |= dict(loading=settings.loading, settings=settings.prediction)
        parts = job.unfinished_parts()
        first = next(parts, None)
        if first is not None:
            workers = (
                LocalWorker(answerer, settings.echo)
                if ray_workers is None
                else RayWorkers(answerer, settings.echo, ray_workers, address)
            )
            with closing(workers):
                for part, answers in workers.answered(chain([first], parts)):
                    folder.write(part, answers)
                    job.note_answered(part, len(answers.problems))
        folder.finish(complete=not job.totals.unfinished_files)
        return job.totals


class _Job:
    """The parts of all files, and their progress.

    Args:
        folder: of the answers.
        files: input files.
        settings: of the run.
    """

    def __init__(self, folder: OutputFolder, files: Sequence[InputFile], settings: FolderSettings):
        self._folder, self._files, self._settings = folder, files, settings
        self._open: dict[str, _FileProgress] = {}
        self.totals = Totals()
        self._started = self._reported = time.monotonic()
        self._finished_files = 0

    def unfinished_parts(self) -> Iterator[Part]:
        """Yields the parts that have no answers yet."""
        for file in self._files:
            if (rows := self._folder.rows_of(file.name)) is not None:
                self.totals.rows += rows[0]
                self.totals.bad_rows += rows[1]
                self._finished_files += 1
                continue
            self._open[file.name] = progress = _FileProgress()
            try:
                for part in self._parts_of(file):
                    progress.rows += len(part.rows)
                    self.totals.rows += len(part.rows)
                    if self._folder.is_finished(part):
                        self._count_bad_rows(progress, self._folder.bad_rows_of(part))
                    else:
                        progress.pending += 1
                        yield part
            except InputError as error:
                logger.error(
                    "%s The rest of the file has no answers; run the command again when it is repaired.", error
                )
                self.totals.unfinished_files.append(file.name)
                continue
            progress.is_read = True
            self._finish(file.name)

    def note_answered(self, part: Part, bad_rows: int) -> None:
        """Counts a part whose answers are written."""
        progress = self._open[part.source]
        progress.pending -= 1
        self._count_bad_rows(progress, bad_rows)
        self.totals.answered_now += len(part.rows)
        self._finish(part.source)
        now = time.monotonic()
        if now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            logger.info(
                "%d rows answered, %.0f per second; %d of %d files finished.",
                self.totals.answered_now,
                self.totals.answered_now / (now - self._started),
                self._finished_files,
                len(self._files),
            )

    def _parts_of(self, file: InputFile) -> Iterator[Part]:
        settings = self._settings
        rows = file.rows(settings.format, settings.text_column, settings.pair_column)
        yield from parts_of(file, rows, settings.rows_per_part)
        if not file.is_unchanged():
            raise InputError(f"{file.path} was changed while it was read.")

    def _count_bad_rows(self, progress: _FileProgress, count: int) -> None:
        progress.bad_rows += count
        self.totals.bad_rows += count

    def _finish(self, name: str) -> None:
        progress = self._open[name]
        if progress.is_read and not progress.pending:
            self._folder.finish_file(name, progress.rows, progress.bad_rows)
            self._finished_files += 1


@dataclass
class _FileProgress:
    """Numbers of rows and of parts without answers of a file that is being read."""

    rows: int = 0
    bad_rows: int = 0
    pending: int = 0
    is_read: bool = False


def _check_first_rows(files: Sequence[InputFile], settings: FolderSettings) -> None:
    """Raises the error of a file that cannot be read, or has no column of texts, before anything is computed."""
    for file in files:
        next(iter(file.rows(settings.format, settings.text_column, settings.pair_column)), None)
