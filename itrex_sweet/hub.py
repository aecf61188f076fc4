"""Resolves the name of a model to a folder: a local path, or a repository on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from itrex_sweet.errors import ArtifactError

# An artifact contains no pickle and no code, so neither is downloaded.
_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.codes", "*.jinja", "*.md")


def fetch(model_id: str | os.PathLike, *, subfolder: str = "", local_files_only: bool = False, **options: Any) -> Path:
    """Returns the folder of a model, after downloading it if it is not local.

    Args:
        model_id: a folder, or a repository on the hub.
        subfolder: of the folder or repository.
        local_files_only: use only the cache; `HF_HUB_OFFLINE=1` does the same.
        options: `revision`, `token`, `cache_dir`, `force_download`, as `huggingface_hub.snapshot_download` has them.

    Raises:
        ArtifactError: neither a folder nor available on the hub or in its cache.
    """
    if not isinstance(model_id, (str, os.PathLike)) or not os.fspath(model_id):
        raise ArtifactError(f"{model_id!r} is neither a folder nor a name on the hub.")
    path = Path(model_id)
    if not os.path.isdir(path):
        path = _download(os.fspath(model_id), subfolder, local_files_only, options)
    folder = path / subfolder
    if not folder.is_dir():
        raise ArtifactError(f"{model_id} has no sub-folder {subfolder!r}.")
    return folder


def _download(model_id: str, subfolder: str, local_files_only: bool, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    prefix = f"{subfolder.rstrip('/')}/" if subfolder else ""
    try:
        return Path(
            snapshot_download(
                model_id,
                allow_patterns=[prefix + pattern for pattern in _PATTERNS],
                local_files_only=local_files_only,
                **options,
            )
        )
    except HFValidationError as error:
        raise ArtifactError(f"{model_id} is neither a folder here nor a repository name.") from error
    except (HfHubHTTPError, OSError) as error:
        raise ArtifactError(
            f"{model_id} is not a folder here, and the download from the hub failed: {error}"
        ) from error
