"""Makes transformers' `pipeline("text-classification", ...)` know early-exit models.

The entry of the task in transformers' registry of pipelines is replaced by a class that hands models of other classes
to the one that was there. The registry is filled when `transformers.pipelines` is imported, which takes as long as
loading torch; so it is not imported for this, and where it is imported later, the entry is replaced then.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PIPELINES, _TASK = "transformers.pipelines", "text-classification"


@functools.cache
def register() -> None:
    """Replaces the entry, now or when `transformers.pipelines` is imported."""
    if (pipelines := sys.modules.get(_PIPELINES)) is not None:
        _replace_entry(pipelines)
    else:
        sys.meta_path.insert(0, _AfterImport())


def _replace_entry(pipelines: ModuleType) -> None:
    from itrex_sweet.pipelines import SweetTextClassificationPipeline

    tasks = pipelines.PIPELINE_REGISTRY.supported_tasks
    tasks[_TASK] = {**tasks[_TASK], "impl": SweetTextClassificationPipeline}


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
                _replace_entry(module)

            spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec
