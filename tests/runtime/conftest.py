"""Tiny artifacts, opened once per family."""

import pytest

from itrex_sweet.runtime.backends import load_backend
from tests.tiny_artifacts import tiny_artifact, tiny_cascade

EXITS = (1, 2, 4)


@pytest.fixture(scope="session")
def backend_of(tmp_path_factory):
    """Loads the reference backend of a family's tiny artifact; `cascade` is a cascade of tiny BERTs."""
    loaded = {}

    def load(family: str, exits: tuple[int, ...] = EXITS):
        if (family, exits) not in loaded:
            directory = tmp_path_factory.mktemp(family)
            make = tiny_cascade if family == "cascade" else tiny_artifact
            artifact = make(directory, "bert" if family == "cascade" else family, exits)
            loaded[family, exits] = load_backend(artifact, "torch")
        return loaded[family, exits]

    return load
