"""Settings of a server: its address, limits and time-outs, with the defaults of text-embeddings-inference where it has
them. Imports no NumPy, so that the command line prints help quickly."""

from __future__ import annotations

from dataclasses import dataclass

from itrex_sweet.arguments import choice, fraction, port_number, positive_number, sequence, truth, whole_number
from itrex_sweet.defaults import DEFAULT_MAX_WAITING_ROWS, DEFAULT_TARGET_SECONDS
from itrex_sweet.errors import ConfigError
from itrex_sweet.serving.options import checked_deadline

ALL, ERRORS, NONE = LOGGED_REQUESTS = ("all", "errors", "none")
DEFAULT_SERVICE_NAME = "itrex-sweet"  # in traces

_NUMBERS = (
    *("max_concurrent_requests", "max_batch_tokens", "max_waiting_rows", "max_client_batch_size", "payload_limit"),
    "max_input_length",
)
_TIMES = ("read_seconds", "keep_alive_seconds", "drain_seconds", "watch_seconds", "target_ms")
_FLAGS = ("auto_truncate", "reload_route", "live_page")
CHOICES = {
    "classify_shape": ("vllm", "infinity"),
    "under_load": ("reject", "degrade"),
    "scheduling": ("segments", "batches"),
}


@dataclass(frozen=True)
class Address:
    """Address of a server, and its certificate.

    Args:
        host, port: port 0 is any free one.
        certificate, key: files, for TLS.
        reuse_port: whether other servers that allow it too may listen on the same port; the system then distributes
            the connections. The server listens once its models are loaded, and not before, so that the others answer
            meanwhile.
        grpc_port: of the Open Inference Protocol over gRPC; `None` for none.

    Raises:
        ConfigError: a port that is not an integer from 0 to 65535, or `reuse_port` that is no boolean.
    """

    host: str = "0.0.0.0"
    port: int = 3000
    grpc_port: int | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: str | None = None
    reuse_port: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reuse_port", truth("reuse_port", self.reuse_port))
        for name in ("port", "grpc_port"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, port_number(name, value))


@dataclass(frozen=True)
class Settings:
    """Limits and behaviour of a server.

    Args:
        max_concurrent_requests: requests in work at once whose bodies have arrived; a further one is refused with
            status 429. Bodies that arrive may take as many times `payload_limit`.
        max_batch_tokens: tokens that the engine computes together.
        max_waiting_rows: texts without an answer, of each model; a request beyond it is refused with status 429.
        max_client_batch_size: texts of one request.
        payload_limit: bytes of a request's body.
        max_input_length: tokens of a text, in place of the limit of the artifact's tokenizer.
        auto_truncate: whether longer texts are cut where a request does not say so; otherwise they are refused.
        api_keys: keys of which a request must present one, as `Authorization: Bearer KEY`; empty for none.
        read_seconds: time in which a request's head and body must arrive, each.
        keep_alive_seconds: time after which an idle connection is closed.
        drain_seconds: time in which a stopping server answers the requests that it has.
        default_deadline_ms: deadline of requests that name none; `None` for none.
        classify_shape: answers of `/classify`: `"vllm"` or `"infinity"`, see `serving.classify`.
        reload_route: whether `POST /v2/repository/models/NAME/load` replaces a model.
        watch_seconds: interval at which folders are checked for a new artifact; `None` for never.
        under_load: `"reject"`, or `"degrade"` to answer by earlier exits before requests are refused.
        quality_floor: lowest quality under `"degrade"`, in [0, 1]; `None` for that of the fastest certified policy.
        target_ms: time in which `"degrade"` answers a new text, unless quality is at its floor.
        scheduling: `"segments"`, which requests share, or `"batches"`, of which one runs to its end before the next.
        live_page: whether `GET /` is the page of live exits, latency and drift, and `/live` its data.

    Raises:
        ConfigError: a value of a wrong type or out of range.
    """

    max_concurrent_requests: int = 512
    max_batch_tokens: int = 16384
    max_waiting_rows: int = DEFAULT_MAX_WAITING_ROWS
    max_client_batch_size: int = 32
    payload_limit: int = 2_000_000
    max_input_length: int | None = None
    auto_truncate: bool = True
    api_keys: tuple[str, ...] = ()
    read_seconds: float = 10.0
    keep_alive_seconds: float = 75.0
    drain_seconds: float = 30.0
    default_deadline_ms: float | None = None
    classify_shape: str = "vllm"
    reload_route: bool = False
    watch_seconds: float | None = None
    under_load: str = "reject"
    quality_floor: float | None = None
    target_ms: float = 1000.0 * DEFAULT_TARGET_SECONDS
    scheduling: str = "segments"
    live_page: bool = True

    def __post_init__(self) -> None:
        checked: dict[str, object] = {"api_keys": _checked_keys(self.api_keys)}
        for name in _NUMBERS:
            if name != "max_input_length" or self.max_input_length is not None:
                checked[name] = whole_number(name, getattr(self, name), minimum=1)
        for name in _TIMES:
            if name != "watch_seconds" or getattr(self, name) is not None:
                checked[name] = positive_number(name, getattr(self, name))
        if self.default_deadline_ms is not None:
            checked["default_deadline_ms"] = checked_deadline("default_deadline_ms", self.default_deadline_ms)
        if self.quality_floor is not None:
            checked["quality_floor"] = fraction("quality_floor", self.quality_floor)
        checked |= {name: truth(name, getattr(self, name)) for name in _FLAGS}
        checked |= {name: choice(name, getattr(self, name), known) for name, known in CHOICES.items()}
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _checked_keys(keys: object) -> tuple[str, ...]:
    parts = sequence(keys)  # errors do not show the secrets
    if parts is None or not all(isinstance(key, str) and key for key in parts):
        raise ConfigError("api_keys: a sequence of keys that are not empty is needed.")
    if any(key != key.strip() for key in parts):
        raise ConfigError("api_keys: a key begins or ends with white space, which no header can hold.")
    return parts
