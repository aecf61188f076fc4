"""Fixtures with backends of tiny artifacts, each loaded once."""

import pytest

from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.backends.ipex import IpexBackend
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.backends.openvino import OpenVinoBackend
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tests.quantized_encoders import quantized
from tests.tiny_artifacts import tiny_artifact, tiny_cascade

EXITS = (1, 2, 4)
TASKS = {"": SINGLE_LABEL, "multi": MULTI_LABEL, "regression": REGRESSION}
ENGINES = {"": TorchBackend, "ipex": IpexBackend, "native": NativeBackend, "openvino": OpenVinoBackend}


def loaded_or_skipped(load):
    """Returns a loaded backend; skips the test if its engine needs another processor."""
    try:
        return load()
    except BackendUnavailable as error:
        if "processor" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def backend_of(tmp_path_factory):
    """Loads the backend of a family's tiny artifact that learned to exit; `cascade` is a cascade of tiny BERTs, and
    the exits of `bert+private` have private layers.

    `"bert"` runs on the reference, `"bert static"` there in INT8 by that recipe, `"bert on ipex"` and
    `"bert static on ipex"` on IPEX, and so with `native` and `openvino`. `"bert/multi"` and `"bert/regression"` are of
    these tasks.
    """
    loaded = {}

    def load(name: str, exits: tuple[int, ...] = EXITS):
        if (name, exits) not in loaded:
            loaded[name, exits] = make(name, exits)
        return loaded[name, exits]

    def make(name: str, exits: tuple[int, ...]):
        described, _, engine = name.partition(" on ")
        family, _, recipe = described.partition(" ")
        if recipe or engine:
            reference = load(family, exits)
            encoder = quantized(reference.encoder, recipe) if recipe else reference.encoder
            return loaded_or_skipped(lambda: ENGINES[engine](reference.artifact, encoder=encoder))
        family, _, private = family.partition("+")
        family, _, task = family.partition("/")
        task = TASKS[task]
        directory = tmp_path_factory.mktemp(family)
        mode = "decoupled" if private else "sweet"
        if family == "cascade":
            return load_backend(tiny_cascade(directory, "bert", exits, task=task), "torch")
        return load_backend(tiny_artifact(directory, family, exits, learn_to_exit=True, mode=mode, task=task), "torch")

    return load
