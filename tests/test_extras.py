"""Tests that a missing optional package is an error that names its extra."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from itrex_sweet import extras
from itrex_sweet.errors import MissingExtraError, SweetError


def test_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError) as caught:
        extras.require("peft", "LoRA")
    assert str(caught.value) == "LoRA needs peft, which is not installed: pip install 'itrex-sweet[peft]'."
    assert (caught.value.name, caught.value.extra) == ("peft", "peft")
    assert isinstance(caught.value, SweetError) and isinstance(caught.value, ImportError)
    with pytest.raises(MissingExtraError, match="LoRA needs peft"):
        extras.require_installed("peft", "LoRA")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.name, again.extra) == (str(caught.value), "peft", "peft")


def test_other_import_errors_are_not_changed(monkeypatch):
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), extras.naming_extras("a test"):
        import no_such_package  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"json\.nothing"), extras.naming_extras("a test"):
        import json.nothing
    # An installed package whose own submodule is missing is damaged, not absent.
    monkeypatch.setitem(extras.EXTRAS, "json", "train")
    with pytest.raises(ModuleNotFoundError, match=r"json\.nothing"), extras.naming_extras("a test"):
        import json.nothing  # noqa: F401


def test_require_returns_the_module():
    import json

    extras.EXTRAS["json"] = "train"
    try:
        assert extras.require("json", "a test") is json
        extras.require_installed("json", "a test")
    finally:
        del extras.EXTRAS["json"]


PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

NEED_TORCH = (
    "from itrex_sweet import SweetCallback",
    "from itrex_sweet import SweetModelForSequenceClassification",
    "from itrex_sweet import SweetQuantizer",
    "from itrex_sweet import accelerate",
    "from itrex_sweet.training import GradientConflictCallback",
    "import itrex_sweet.quantization",
)


def test_training_names_without_torch_name_the_extra():
    """Uses one process for all names: failed imports have no side effects."""
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'accelerate', 'datasets', 'optimum'): sys.modules[name] = None\n"
        "from itrex_sweet.errors import MissingExtraError\n"
        f"for statement in {NEED_TORCH!r}:\n"
        "    try: exec(statement)\n"
        "    except MissingExtraError as error: assert \"pip install 'itrex-sweet[train]'\" in str(error), error\n"
        "    else: raise AssertionError(statement)\n"
        "from itrex_sweet.cli import main\n"
        "sys.exit(main(['train', '--model', 'x', '--train-file', __file__, '--output', 'nowhere']))\n"
    )
    finished = run(script)
    assert finished.returncode == 1, finished.stderr
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert "pip install 'itrex-sweet[train]'" in finished.stderr


def test_named_extras_are_declared():
    tomllib = pytest.importorskip("tomllib", reason="tomllib is part of Python since 3.11")
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    assert set(extras.EXTRAS.values()) <= set(declared)
    named = {extra for group in declared.values() for entry in group for extra in extras_of_this_package(entry)}
    assert named <= set(declared)


def extras_of_this_package(requirement):
    found = re.fullmatch(r"itrex-sweet\[(.+)\]", requirement)
    return found[1].split(",") if found else []


def run(script):
    return subprocess.run([sys.executable, "-c", f"__file__ = {__file__!r}\n{script}"], capture_output=True, text=True)
