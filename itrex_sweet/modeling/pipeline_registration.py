"""Makes transformers' `pipeline("text-classification", ...)` support early-exit models.

Importing `itrex_sweet.modeling.pipelines` replaces the entry of the task in transformers' registry of pipelines by a
class that hands models of other classes to the one that was there. That needs `transformers.pipelines`, which takes as
long to import as torch; so it is not imported for this, and where it is imported later, the entry is replaced then.
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

_PIPELINES, _OURS = "transformers.pipelines", "itrex_sweet.modeling.pipelines"


@functools.cache
def register() -> None:
    """Replaces the entry, now or when `transformers.pipelines` is imported."""
    if _PIPELINES in sys.modules:
        importlib.import_module(_OURS)
    else:
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Finds `transformers.pipelines` as the others do, once, and replaces the entry behind its import."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != _PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_replace(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(_OURS)  # which may be what imports this module

            spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec
