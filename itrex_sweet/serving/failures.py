"""Kinds of failures of requests, their status codes, and the kind of each exception of this package."""

from __future__ import annotations

import logging

from itrex_sweet.errors import (
    ConfigError,
    DeadlineExceeded,
    InputError,
    MissingExtraError,
    NonFiniteLogitsError,
    Overloaded,
    RequestError,
    SchedulerClosed,
    SweetError,
)

logger = logging.getLogger(__name__)

# Kinds of failures, and their status codes; a protocol may use others.
JSON, VALIDATION, EMPTY, TOKENIZER = "json", "validation", "empty", "tokenizer"
TOO_MANY_TEXTS, PAYLOAD, OVERLONG, MEDIA_TYPE = "too_many_texts", "payload", "overlong", "media_type"
UNAUTHORIZED, NOT_FOUND, METHOD, SLOW, CANCELLED = "unauthorized", "not_found", "method", "slow", "cancelled"
OVERLOADED, EXPIRED, UNHEALTHY, BACKEND, INTERNAL = "overloaded", "expired", "unhealthy", "backend", "internal"
STATUS = {
    **{JSON: 400, VALIDATION: 422, EMPTY: 400, TOKENIZER: 422},
    **{TOO_MANY_TEXTS: 413, PAYLOAD: 413, OVERLONG: 413, MEDIA_TYPE: 415},
    **{UNAUTHORIZED: 401, NOT_FOUND: 404, METHOD: 405, SLOW: 408, CANCELLED: 499},
    **{OVERLOADED: 429, EXPIRED: 504, UNHEALTHY: 503, BACKEND: 424, INTERNAL: 500},
}


def failure_of(error: Exception) -> RequestError:
    """Returns the failure that a client sees for an exception; logs those that are faults of the server."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, Overloaded):
        return RequestError(OVERLOADED, str(error), error.retry_after or 1.0)
    if isinstance(error, DeadlineExceeded):
        return RequestError(EXPIRED, str(error))
    if isinstance(error, SchedulerClosed):
        return RequestError(UNHEALTHY, str(error), retry_after=1.0)
    if isinstance(error, InputError):
        return RequestError(_kind_of_input(error), str(error))
    if isinstance(error, ConfigError):
        return RequestError(VALIDATION, str(error))
    if isinstance(error, NonFiniteLogitsError):
        logger.error("%s", error)
        return RequestError(BACKEND, str(error))
    if isinstance(error, MissingExtraError) or not isinstance(error, (SweetError, MemoryError)):
        logger.error("a request failed", exc_info=error)
        return RequestError(INTERNAL, "internal error; the server's log has it")
    logger.error("%s", error)
    return RequestError(BACKEND, str(error) or type(error).__name__)


def _kind_of_input(error: InputError) -> str:
    message = str(error)
    if "the text is empty" in message:
        return EMPTY
    return OVERLONG if "and the limit is" in message else TOKENIZER
