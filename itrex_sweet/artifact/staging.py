"""Writing a folder whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from itrex_sweet.artifact.layout import SETTINGS_FILE
from itrex_sweet.errors import ArtifactError


@contextmanager
def staged(directory: Path, replaced: Iterable[str] = ()) -> Iterator[Path]:
    """A hidden folder inside `directory` whose files move into it, settings last, if the block succeeds.

    A crash between two moves leaves hashes that do not match, which `open_artifact` reports.

    Args:
        directory: made if missing.
        replaced: names of files that are removed from it where the block has written none of that name.
    """
    from safetensors import SafetensorError

    staging: Path | None = None
    existed = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=directory))
        yield staging
        stale = [directory / name for name in replaced if not (staging / name).exists()]
        _move_in(staging, directory)
        for path in stale:
            path.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"cannot write {directory} ({error}); what it held before is untouched.") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
            if not existed and not any(directory.iterdir()):
                directory.rmdir()


def require_writable(directory: Path) -> None:
    """Finds out, before work is done for it, whether a folder can be written; leaves no trace.

    Raises:
        ArtifactError: it cannot be made or written.
    """
    with staged(directory):
        pass


def _move_in(staging: Path, directory: Path) -> None:
    (plain := staging / ".plain").touch()
    mode = plain.stat().st_mode  # as the umask says; safetensors lets only the owner read
    plain.unlink()
    by_order: Callable[[Path], tuple[bool, Path]] = lambda path: (path.name == SETTINGS_FILE, path)  # noqa: E731
    for path in sorted((path for path in staging.rglob("*") if path.is_file()), key=by_order):
        target = directory / path.relative_to(staging)
        target.parent.mkdir(exist_ok=True)
        path.chmod(mode)
        os.replace(path, target)
