"""File names of the format, and the schema."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path

FORMAT = "itrex-sweet"
SCHEMA_VERSION = 5  # newest that is read: 5 has word embeddings in INT8, 4 has private layers; 1 to 3 are still read
FLOAT_EMBEDDINGS_SCHEMA = 4  # of what is written without word embeddings in INT8, so that older releases read it
FULL_MANIFEST_SCHEMA = 3  # versions before this one listed the weights alone, and had no digest
EARLY_EXIT, CASCADE = "early_exit", "cascade"
FLOAT32, INT8 = "float32", "int8"

SETTINGS_FILE = "sweet_config.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
INT8_WEIGHTS_FILE = "model_int8.safetensors"  # a name of its own: transformers would load it as float weights
FINGERPRINTS_FILE = "fingerprints.safetensors"
CARD_FILE = "README.md"

MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, INT8_WEIGHTS_FILE, "model-*.safetensors")
# Exact names where transformers has them: a file of the user that is merely called alike is not the tokenizer's.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.*.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "dict.txt",
    "*.model",
)


def is_tokenizer_file(name: str) -> bool:
    """Returns whether transformers reads a tokenizer from a file of this name."""
    return _matches(name, TOKENIZER_FILES)


def is_model_file(name: str) -> bool:
    """Returns whether a file of this name is the config or the weights of a model."""
    return _matches(name, MODEL_FILES)


def is_manifest_file(name: str) -> bool:
    """Returns whether a file of this name at the top of an artifact belongs in its manifest."""
    return is_model_file(name) or is_tokenizer_file(name) or name == FINGERPRINTS_FILE


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_inside(name: object) -> bool:
    """Returns whether a name is that of a file in an artifact's folder or a sub-folder of it."""
    if not isinstance(name, str) or "\0" in name or "\\" in name:
        return False
    parts = name.split("/")
    return len(parts) <= 2 and all(part not in ("", ".", "..") for part in parts)


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
