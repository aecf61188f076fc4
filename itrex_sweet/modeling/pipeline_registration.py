"""Makes transformers' `pipeline("text-classification", ...)` and `pipeline("zero-shot-classification", ...)` support
early-exit models.

Importing the modules of `_OURS` replaces the entry of a task in transformers' registry of pipelines by a class that
hands models of other classes to the one that was there. That needs `transformers.pipelines`, which takes as long to
import as torch; so it is not imported for this, and where it is imported later, the entries are replaced then.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PIPELINES = "transformers.pipelines"
_OURS = ("itrex_sweet.modeling.pipelines", "itrex_sweet.modeling.zero_shot_pipeline")


@functools.cache
def register() -> None:
    """Replaces the entries, now or when `transformers.pipelines` is imported."""
    if _PIPELINES in sys.modules:
        _replace_entries()
    else:
        sys.meta_path.insert(0, _AfterImport())


def _replace_entries() -> None:
    for name in _OURS:
        importlib.import_module(name)


class _AfterImport(MetaPathFinder):
    """Finds `transformers.pipelines` as the others do, once, and replaces the entries behind its import."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != _PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_replace(module: ModuleType) -> None:
                execute(module)
                _replace_entries()  # by a module that may be what imports this one

            spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec
