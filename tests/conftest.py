"""For all tests: the daemons that they start heed SIGHUP, also where the tests run under nohup; a certificate."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1, in one file."""
    where = tmp_path_factory.mktemp("tls") / "both.pem"
    options = f"-x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {where} -out {where}.crt"
    command = ["openssl", "req", *options.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    where.write_bytes(where.read_bytes() + Path(str(where) + ".crt").read_bytes())
    return where
