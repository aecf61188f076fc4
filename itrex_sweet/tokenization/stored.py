"""Makes an artifact's tokenizer of its verified files and nothing else."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from itrex_sweet.artifact import Artifact
from itrex_sweet.artifact.layout import is_tokenizer_file
from itrex_sweet.artifact.validation.json_text import parse_object
from itrex_sweet.artifact.validation.values import Value
from itrex_sweet.errors import ArtifactError
from itrex_sweet.extras import is_installed, require_installed
from itrex_sweet.tokenization.file_tokenizer import file_tokenizer
from itrex_sweet.tokenization.tokenizer_classes import GENERIC_CLASSES, TOKENIZER_FILE, NotStandardError, class_of

SETTINGS_FILE = "tokenizer_config.json"
_READ_WITHOUT_TRANSFORMERS_CLASS = ("TokenizersBackend", "PreTrainedTokenizerFast", "PythonBackend")
_TRIALS = (("a", None), ("a", "a"), ("\u00e9 \U0001f600", None))


def tokenizer_of(artifact: Artifact) -> Any:
    """Makes transformers' tokenizer of an artifact; `None` if it holds none.

    Raises:
        ArtifactError: as of `load_tokenizer` and `check_ids`.
    """
    files = _files_of(artifact)
    tokenizer = load_tokenizer(files, artifact.config, artifact.directory)
    if tokenizer is not None:
        check_ids(tokenizer, artifact.resolved_config().vocab_size, artifact.directory)
    return tokenizer


def run_tokenizer_of(artifact: Artifact) -> Any:
    """Makes a tokenizer that gives the same token ids as that of `tokenizer_of`, without transformers if possible.

    Returns:
        a `FileTokenizer`; transformers' tokenizer where only that knows what the files mean; `None` if there are none.

    Raises:
        ArtifactError: as of `tokenizer_of`.
        MissingExtraError: it takes transformers, which is not installed.
    """
    files, directory, config = _files_of(artifact), artifact.directory, artifact.config
    if not _has_tokenizer(files):
        return None
    settings = _settings_of(files, directory)
    try:
        with _loading(files, directory):
            tokenizer = file_tokenizer(files, settings, config.get("model_type"), config.get("tokenizer_class"))
            _try(tokenizer)
    except NotStandardError as reason:
        require_installed("transformers", f"the tokenizer of {directory} ({reason})")
        return tokenizer_of(artifact)
    except ArtifactError:
        if is_installed("transformers"):  # which builds some tokenizers of other parts of the files
            return tokenizer_of(artifact)
        raise
    _check_length(tokenizer, directory)
    _check_side(tokenizer, directory)
    check_ids(tokenizer, artifact.resolved_config().vocab_size, directory)
    return tokenizer


def load_tokenizer(files: Mapping[str, bytes], config: Mapping[str, Any], directory: Path) -> Any:
    """Makes transformers' tokenizer in a private folder that holds its files alone, so that no code, no other file and
    no later change of the artifact's folder takes part.

    Args:
        files: contents of the tokenizer's files, by name.
        config: contents of the artifact's `config.json`.
        directory: of the artifact, named in errors.

    Returns:
        the tokenizer; `None` if the files hold none.

    Raises:
        ArtifactError: the files are damaged, ask for code of their own, or name a class that transformers lacks.
    """
    if not _has_tokenizer(files):
        return None
    contents, settings = dict(files), _settings_of(files, directory)
    if SETTINGS_FILE in files:
        contents[SETTINGS_FILE] = json.dumps(settings).encode()
    facts = {name: config[name] for name in ("model_type", "tokenizer_class") if config.get(name) is not None}
    contents["config.json"] = json.dumps(facts).encode()
    tokenizer_class = settings.get("tokenizer_class") or facts.get("tokenizer_class")
    _refuse_foreign_class(tokenizer_class, directory)
    with _loading(files, directory):
        with tempfile.TemporaryDirectory(prefix="itrex-sweet-tokenizer-") as folder:
            for name, content in contents.items():
                (Path(folder) / name).write_bytes(content)
            tokenizer = _from_folder(folder, TOKENIZER_FILE in files)
            _replace_paths(tokenizer, folder, directory)
        if tokenizer_class in GENERIC_CLASSES and "model_input_names" not in settings:
            # Of the release that saved it, with whose inputs the model was trained: that of this one may be another.
            tokenizer.model_input_names = list(GENERIC_CLASSES[tokenizer_class])
        _restore_parts(tokenizer, files, settings, facts)
        _try(tokenizer)
        list(tokenizer.all_special_ids)  # recurses without end for an unknown token outside the vocabulary
    _check_length(tokenizer, directory)
    return tokenizer


def check_ids(tokenizer: Any, vocabulary: int, directory: Path) -> None:
    """Checks that the embedding table has a row for every id that a tokenizer gives.

    Args:
        vocabulary: rows of the table.

    Raises:
        ArtifactError: it has not.
    """
    named = tokenizer.get_vocab()
    others = [("a special token", token) for token in tokenizer.all_special_ids if token is not None]
    for text, pair in _TRIALS:
        others += [(f"a token of {text!r}", token) for token in tokenizer(text, pair, verbose=False)["input_ids"]]
    ids = [*named.values(), *(token for _, token in others)]
    if not ids or (min(ids) >= 0 and max(ids) < vocabulary):
        return
    for name, token in [*((repr(name), token) for name, token in named.items()), *others]:
        if not 0 <= token < vocabulary:
            raise ArtifactError(
                f"{directory}: its tokenizer gives {name} the id {token}, and the model's embedding table has ids 0 "
                f"to {vocabulary - 1}. Is the tokenizer this model's own? If tokens were added, resize the model's "
                "embeddings (model.resize_token_embeddings) and train it."
            )


def _files_of(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.read_file(name) for name in artifact.files if is_tokenizer_file(name)}


def _has_tokenizer(files: Mapping[str, bytes]) -> bool:
    return SETTINGS_FILE in files or TOKENIZER_FILE in files


def _settings_of(files: Mapping[str, bytes], directory: Path) -> dict[str, Any]:
    if SETTINGS_FILE not in files:
        return {}
    return _checked_settings(parse_object(files[SETTINGS_FILE], directory / SETTINGS_FILE), directory)


@contextmanager
def _loading(files: Mapping[str, bytes], directory: Path) -> Iterator[None]:
    """Turns what the block raises into an ArtifactError that names the files."""
    try:
        yield
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, ArtifactError, NotStandardError)):
            raise
        names = ", ".join(sorted(files))
        raise ArtifactError(
            f"{directory}: its tokenizer ({names}) cannot be loaded: {type(error).__name__}: {error}. Save one there "
            "again: tokenizer.save_pretrained, or write the artifact again."
        ) from error


def _try(tokenizer: Any) -> None:
    for text, pair in _TRIALS:
        tokenizer(text, pair, add_special_tokens=True, verbose=False)


def _checked_settings(settings: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Returns the settings without paths, which lead out of the folder."""
    root = Value(settings, "", directory / SETTINGS_FILE)
    if settings.get("auto_map"):
        root["auto_map"].refuse("code beside a model is never run, so such a tokenizer cannot be loaded")
    if root.non_null("tokenizer_class") is not None:
        root["tokenizer_class"].string()
    return {
        name: value
        for name, value in settings.items()
        if not name.endswith(("_file", "_files")) and name not in ("auto_map", "name_or_path", "init_inputs")
    }


def _refuse_foreign_class(name: str | None, directory: Path) -> None:
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    if name is None or name in _READ_WITHOUT_TRANSFORMERS_CLASS:
        return
    plain = name.removesuffix("Fast")
    try:
        is_known = any(tokenizer_class_from_name(each) is not None for each in (name, plain, f"{plain}Fast"))
    except Exception as error:
        raise ArtifactError(f"{directory}: tokenizer_class={name!r} cannot be loaded: {error}") from error
    if not is_known:
        raise ArtifactError(
            f"{directory / SETTINGS_FILE}: tokenizer_class={name!r}: transformers has no such class, and code beside a "
            "model is never run. Save the tokenizer as one of transformers' classes."
        )


def _from_folder(folder: str, has_fast_file: bool) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError:
        # transformers 4 does not know the class that version 5 gives a tokenizer without one of its own.
        if not has_fast_file:
            raise
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _restore_parts(
    tokenizer: Any, files: Mapping[str, bytes], settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Restores the parts of `tokenizer.json`, with which the model was trained; transformers 5 builds some again."""
    names = facts.get("model_type"), facts.get("tokenizer_class")
    try:
        if not class_of(settings, *names).keeps_file:
            return
        stored = file_tokenizer(files, settings, *names).backend
    except Exception:  # not standard, or damaged: transformers may know the files
        return
    backend = tokenizer.backend_tokenizer
    for part in ("normalizer", "pre_tokenizer", "model", "post_processor"):
        setattr(backend, part, getattr(stored, part))


def _replace_paths(tokenizer: Any, folder: str, directory: Path) -> None:
    """Replaces paths into the private folder, which was deleted, by those of the artifact."""
    for facts in (vars(tokenizer), getattr(tokenizer, "init_kwargs", {})):
        for name, value in facts.items():
            if isinstance(value, str) and value.startswith(folder):
                facts[name] = str(directory) + value[len(folder) :].replace(os.sep, "/")


def _check_length(tokenizer: Any, directory: Path) -> None:
    length = Value(tokenizer.model_max_length, "model_max_length", directory / SETTINGS_FILE)
    length.number(1)
    if length.value != int(length.value):  # not of its float: 10**30, for no limit, has none
        length.refuse("a whole number of tokens is needed")


def _check_side(tokenizer: Any, directory: Path) -> None:
    Value(tokenizer.truncation_side, "truncation_side", directory / SETTINGS_FILE).one_of(("left", "right"))
