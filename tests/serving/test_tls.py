"""Tests of TLS with a certificate that signs itself, and of keys over it, through the command."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys

import pytest

from tests.serving.certificates import PASSWORD, make_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"), PASSWORD)


@pytest.fixture(scope="module")
def port(folders, certificate):
    """Starts the command with TLS and a key; returns its port."""
    run = "import sys; from itrex_sweet.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "serve", str(folders["single"]), "-p", "0", "--hostname", "127.0.0.1"]
    command += ["--ssl-certfile", str(certificate[0]), "--ssl-keyfile", str(certificate[1])]
    environment = {**os.environ, "API_KEY": "secret", "SSL_KEYFILE_PASSWORD": PASSWORD}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        found, lines = None, []
        for line in process.stderr:
            lines.append(line)
            found = re.search(r"port (\d+)", line) or found
            if "ready:" in line:
                break
        assert found is not None and process.poll() is None, "".join(lines)
        yield int(found[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stderr.close()


def ask(port, context, **headers):
    """Returns status and body of a request over TLS."""
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)) as connection:
        connection.request("POST", "/predict", json.dumps({"inputs": "the room was good"}), headers)
        response = connection.getresponse()
        return response.status, response.read()


def test_answers_and_keys_over_tls(port, certificate, classifiers):
    context = ssl.create_default_context(cafile=certificate[0])
    status, body = ask(port, context, Authorization="Bearer secret")
    expected = classifiers["single"].predict(["the room was good"], top_k="all")[0]["labels"]
    found = [{name: each[name] for name in ("label", "score")} for each in json.loads(body)]
    rounding = 0.0 if classifiers["single"].backend.name == "native" else 1e-5
    assert status == 200 and [each["label"] for each in found] == [each["label"] for each in expected]
    assert [each["score"] for each in found] == pytest.approx([each["score"] for each in expected], abs=rounding)
    assert ask(port, context) == ask(port, context, Authorization="Bearer secre") == (401, b"")


def test_clients_that_trust_others_or_send_plain_text_get_no_answer(port, certificate):
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(port, ssl.create_default_context())
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        with contextlib.suppress(ConnectionError):
            received = client.recv(100)
        assert not received.startswith(b"HTTP/")
    assert ask(port, ssl.create_default_context(cafile=certificate[0]), Authorization="Bearer secret")[0] == 200
