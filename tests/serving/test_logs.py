"""Log lines of requests."""

import json
import logging

import pytest

from itrex_sweet.serving.logs import RequestLog, write_logs
from itrex_sweet.serving.observer import Observer
from tests.serving.observed import add_model, answer


@pytest.fixture()
def written(capsys):
    """Returns a function that returns the log of a callable, as a server of these settings writes it."""

    def written(observe, json_output=True, **options):
        observer = Observer(RequestLog(**options))
        model = add_model(observer)
        with write_logs(json_output):
            observe(observer, model)
        return capsys.readouterr().err.splitlines()

    return written


def observe(observer, model):
    answer(observer, model, [0, 2, 2], batch=True)
    seen = observer.begin("/predict", {b"x-request-id": b"id-2\n"})
    seen.texts = ["a secret text"]
    seen.failed(503, "unhealthy")


def test_json_lines(written):
    first, second = map(json.loads, written(observe))
    assert first["request_id"] == "id-1" and first["model"] == "m" and first["status"] == 200
    assert (first["rows"], first["tokens"], first["exits"]) == (3, 15, {"1": 1, "6": 2})
    assert first["tokenization_ms"] == 1.0 and first["queue_ms"] == 2.0 and first["inference_ms"] == 3.0
    assert first["total_ms"] > 0 and first["level"] == "INFO" and first["timestamp"].endswith("+00:00")
    assert (second["status"], second["error_type"], second["level"]) == (503, "unhealthy", "ERROR")
    assert second["model"] is None


def test_texts_are_logged_only_if_asked_for(written):
    assert "secret" not in "".join(written(observe))
    assert json.loads(written(observe, texts=True)[0])["texts"] == ["a secret text"] * 3


def test_errors_only_and_text_format(written):
    (line,) = written(observe, json_output=False, requests="errors")
    assert 'ERROR unhealthy request_id="id-2?"' in line and "status=503" in line


def test_other_lines_of_the_server_are_json_too(written):
    def fail(observer, model):
        try:
            raise ValueError("line 1\nline 2")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("failed %d", 1)

    (line,) = written(fail)
    assert json.loads(line)["message"] == "failed 1" and "line 1\nline 2" in json.loads(line)["exception"]
