"""The models of a server: loading, replacing one while it serves, and closing."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itrex_sweet.artifact import INT8
from itrex_sweet.classifier import Classifier
from itrex_sweet.classifier.reopening import identity_of
from itrex_sweet.defaults import REFUSE, TRUNCATE
from itrex_sweet.errors import ConfigError, RequestError, SweetError
from itrex_sweet.runtime.degradation import Degradation
from itrex_sweet.runtime.dispatch import WholeBatches
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request, RequestCache
from itrex_sweet.runtime.runner import Runner
from itrex_sweet.runtime.scheduler import Scheduler
from itrex_sweet.serving.failures import NOT_FOUND, UNHEALTHY
from itrex_sweet.serving.memory import return_free_memory
from itrex_sweet.serving.observed_model import ObservedModel
from itrex_sweet.serving.observer import Observer
from itrex_sweet.serving.options import Options
from itrex_sweet.serving.settings import Settings
from itrex_sweet.tokenization import TextReader

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FREED_SECONDS = 10.0  # in which the answers of a closed model are expected to be sent
_WARM_UP = ["warm up", "a longer text to warm up with, so that the first request finds memory and threads in place"]


@dataclass(frozen=True)
class Source:
    """Folder of a model and the name that it is served under.

    Args:
        name: letters, digits, `.`, `_` and `-`.
        folder: an artifact, or its name on the hub.
    """

    name: str
    folder: str

    @classmethod
    def of(cls, argument: str) -> Source:
        """Parses `FOLDER` or `NAME=FOLDER`; the name is by default the last part of the path.

        Raises:
            ConfigError: the name has other characters.
        """
        name, separator, folder = argument.partition("=")
        if not separator:
            name, folder = Path(argument).resolve().name, argument
        if os.path.isdir(folder):
            # An absolute path is no name on the hub: a folder that is gone when it is loaded again is not downloaded.
            folder = os.path.abspath(folder)
        if not _NAME.fullmatch(name) or not folder:
            raise ConfigError(
                f"{argument!r}: the name {name!r} has other characters than A-Z, 0-9, '.', '_', '-'; "
                "give one as NAME=FOLDER."
            )
        return cls(name, folder)


class Model:
    """A loaded model that answers requests.

    Args:
        name: that requests use.
        version: counts the artifacts served under this name, from 1.
        classifier: the loaded model.
        settings: of the server.

    Attributes:
        identity: hash of the artifact.
        scheduler: computes the rows of all requests.
        single_threaded: its backend with one thread of its own; `None` if the backend has none of its own.
        observed: counts what it does; set by `observe`.
    """

    def __init__(self, name: str, version: int, classifier: Classifier, settings: Settings):
        self.name, self.version, self.classifier = name, version, classifier
        self.artifact = classifier.artifact
        self.identity = identity_of(classifier.artifact)
        self.scheduler = Scheduler(
            classifier.backend,
            classifier.policy,
            batch_tokens=settings.max_batch_tokens,
            max_waiting_rows=settings.max_waiting_rows,
            dispatch=WholeBatches() if settings.scheduling == "batches" else None,
            degradation=self._degradation(settings),
        )
        context = classifier.backend.context()
        self.single_threaded = None if context is classifier.backend else context
        self._runner = Runner(self.scheduler).start()
        self.observed: ObservedModel | None = None
        self.labels = classifier.labels
        self.max_tokens = classifier.reader_of(classifier.tokenizer).limit
        self.reads_fast = classifier.reader_info["reason"] is None
        self._requests = RequestCache()
        self._left_reader: TextReader | None = None
        self._in_use = 0
        self._is_retired = False

    def _degradation(self, settings: Settings) -> Degradation | None:
        """Returns the policies that load may choose, if it may."""
        if settings.under_load != "degrade":
            return None
        floor, seconds = settings.quality_floor, settings.target_ms / 1000.0
        return Degradation.of(self.artifact, self.classifier.policy, floor, seconds)

    def request(self, options: Options, arrived: float, deadline_ms: float | None = None) -> Request:
        """Returns what the scheduler needs to know of a request.

        Args:
            arrived: time of `time.perf_counter`.
            deadline_ms: for requests that name none.

        Raises:
            ConfigError: options that do not fit the model.
        """
        request = self._requests.of(
            self.artifact, self.classifier.policy, options.threshold, None, options.quality, options.max_exit, None
        )
        deadline_ms = options.deadline_ms or deadline_ms
        if deadline_ms is None and options.priority == 0:
            return request
        deadline = None if deadline_ms is None else arrived + deadline_ms / 1000.0
        return dataclasses.replace(request, deadline=deadline, priority=-options.priority, drop_expired=True)

    def read(self, texts: list[Any], options: Options, truncate: bool) -> TokenBatch:
        """Tokenizes texts.

        Raises:
            InputError: a text cannot be read, or is too long and not to be cut.
        """
        return self.classifier.read(texts, options.max_length, TRUNCATE if truncate else REFUSE)

    @property
    def dtype(self) -> str:
        """Precision of the weights."""
        return self.artifact.precision if self.artifact.precision == INT8 else self.classifier.computed_in

    def observe(self, observer: Observer) -> None:
        """Lets an observer count what the model does."""
        backend = self.classifier.backend
        facts = {"backend": " ".join(filter(None, [backend.name, getattr(backend, "isa", None)])), "dtype": self.dtype}
        policy, snapshot = self.classifier.policy, self.scheduler.snapshot
        self.observed = observer.add_model(self.name, self.artifact, backend, policy, snapshot, facts)
        self.scheduler.on_segment = self.observed.segment_ran

    @contextmanager
    def in_use(self) -> Iterator[Model]:
        """Keeps the model open in the block. Called in the event loop only."""
        self._in_use += 1
        try:
            yield self
        finally:
            self._in_use -= 1
            if self._is_retired and not self._in_use:
                self.close()

    def retire(self) -> None:
        """Closes the model as soon as no request uses it. Called in the event loop only."""
        self._is_retired = True
        if not self._in_use:
            self.close()

    def close(self) -> None:
        """Frees threads and memory, in a thread of its own, since threads that still compute are joined."""
        # The observer refers to the scheduler. Without this the model would stay until the garbage collector runs.
        self.scheduler.on_segment = None
        threading.Thread(target=_close, args=([self._runner],), name="itrex-sweet-close", daemon=True).start()


def _close(runners: list[Runner]) -> None:
    """Ends the threads of a model, waits until nothing refers to it, and gives its memory back to the system.

    Args:
        runners: of the model, taken from the list so that no argument keeps it.
    """
    runner = runners.pop()
    backend = weakref.ref(runner.scheduler.backend)
    runner.close()
    del runner
    end = time.monotonic() + _FREED_SECONDS
    while backend() is not None and time.monotonic() < end:
        time.sleep(0.01)
    return_free_memory()


class Models:
    """The models that a server has, by name.

    Args:
        sources: folders and names; the first is the default of requests that name none.
        load: loads a classifier from a folder.
        settings: of the server.
        observer: counts what each model does.
    """

    def __init__(
        self, sources: list[Source], load: Callable[[str], Classifier], settings: Settings, observer: Observer
    ):
        names = [source.name for source in sources]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"several models are named {min(repeated)}; name them: NAME=FOLDER.")
        self.sources = {source.name: source for source in sources}
        self.is_closing = False
        self._load, self._settings, self._observer = load, settings, observer
        self._models: dict[str, Model] = {}
        self._replacing = asyncio.Lock()

    def __iter__(self) -> Iterator[Model]:
        return iter(list(self._models.values()))

    @property
    def is_ready(self) -> bool:
        """True once every model is loaded, until the server stops."""
        return not self.is_closing and len(self._models) == len(self.sources)

    def get(self, name: str | None = None, version: str | None = None) -> Model:
        """Returns a model; the default one without a name.

        Raises:
            RequestError: there is none of this name and version, or it is not loaded yet.
        """
        if name is None:
            name = next(iter(self.sources))
        model = self._models.get(name)
        if model is None and name in self.sources:
            raise RequestError(UNHEALTHY, f"the model {name} is not loaded yet.", retry_after=1.0)
        if model is None:
            raise RequestError(NOT_FOUND, f"there is no model {name[:128]!r}; {', '.join(self.sources)} are served.")
        if version is not None and version != str(model.version):
            raise RequestError(NOT_FOUND, f"{name} has version {model.version}, not {version[:32]!r}.")
        return model

    async def load_all(self) -> None:
        """Loads every model.

        Raises:
            SweetError: one cannot be loaded.
        """
        for source in self.sources.values():
            self._serve(await asyncio.to_thread(self._opened, source, 1))

    async def replace(self, name: str) -> Model:
        """Loads the artifact that a model's folder has now, and serves it instead of the one before.

        Requests that have begun end with the model that they began with. If the folder cannot be loaded, the model
        before goes on serving.

        Raises:
            SweetError: the folder holds no artifact that can run.
            RequestError: no model of this name.
        """
        before = self.get(name)
        async with self._replacing:
            before = self.get(name)
            try:
                after = await asyncio.to_thread(self._opened, self.sources[name], before.version + 1)
            except (SweetError, OSError, MemoryError) as error:
                logger.error("%s is not replaced, version %d goes on serving: %s", name, before.version, error)
                raise
            if after.identity == before.identity:
                logger.info("%s: the folder holds the artifact that is served.", name)
            self._serve(after)
            before.retire()
            logger.info("%s: version %d serves.", name, after.version)
            return after

    def _serve(self, model: Model) -> None:
        """Answers requests of a name by a model from here on."""
        model.observe(self._observer)
        self._models[model.name] = model

    def _opened(self, source: Source, version: int) -> Model:
        """Loads a model and answers two texts with it."""
        classifier = self._load(source.folder)
        if self._settings.max_input_length is not None and classifier.tokenizer is not None:
            limit = self._settings.max_input_length
            classifier.tokenizer = dataclasses.replace(classifier.tokenizer, model_max_length=limit)
        classifier.reader_of(classifier.tokenizer).warns_once = True  # raises if the artifact has no tokenizer
        classifier.predict(_WARM_UP)
        return Model(source.name, version, classifier, self._settings)

    def close(self) -> None:
        """Closes all models."""
        for model in self:
            model.close()


def folders_changed(models: Models, seen: Mapping[str, Any]) -> list[str]:
    """Returns the names of models whose folder has another manifest than in `seen`, by name."""
    return [name for name, state in manifests(models).items() if state is not None and state != seen.get(name)]


def manifests(models: Models) -> dict[str, Any]:
    """Returns for each model what identifies its settings file on disk; `None` if there is none."""
    found = {}
    for name, source in models.sources.items():
        try:
            stat = (Path(source.folder) / "sweet_config.json").stat()
            found[name] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            found[name] = None
    return found
