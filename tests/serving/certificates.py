"""Makes certificates that sign themselves."""

import shutil
import subprocess

import pytest

PASSWORD = "a password"


def make_certificate(folder, password=None):
    """Returns the files of a certificate for 127.0.0.1 and of its key, which a password encrypts.

    Skips the test where openssl is missing.
    """
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    protection = ["-nodes"] if password is None else ["-passout", f"pass:{password}"]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", *protection),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
