"""From a name to a folder: a local path as it is, anything else through the Hugging Face hub's cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from itrex_sweet.errors import ArtifactError

# An artifact has no pickle and no code, so neither is fetched.
_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.codes", "*.jinja", "*.md")


def fetch(model_id: str | os.PathLike, *, subfolder: str = "", local_files_only: bool = False, **options: Any) -> Path:
    """The folder of a model, downloaded if it is not local.

    Args:
        model_id: a folder, or a repository on the hub.
        subfolder: of the folder or repository.
        local_files_only: use the cache alone; `HF_HUB_OFFLINE=1` does the same.
        options: `revision`, `token`, `cache_dir`, `force_download`, as `huggingface_hub.snapshot_download` has them.

    Raises:
        ArtifactError: neither a folder nor to be had from the hub or its cache.
    """
    if not isinstance(model_id, (str, os.PathLike)) or not os.fspath(model_id):
        raise ArtifactError(f"{model_id!r} is no folder and no name on the hub.")
    path = Path(model_id)
    if not os.path.isdir(path):
        path = _download(str(model_id), subfolder, local_files_only, options)
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
        raise ArtifactError(f"{model_id} is not a folder here, and the hub did not give it: {error}") from error
