"""One daemon for all attacks of a module: what an attack leaves behind, the next one meets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.house import Daemon

#: A secret of the daemon's own environment.
SECRET = "sk-hostile-0123456789abcdef"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    env = {
        "ANTHROPIC_API_KEY": SECRET,
        "AGENTSTREAM_SERVER_HANDSHAKE_SECONDS": "2",
        "AGENTSTREAM_SERVER_REQUESTS_PER_SECOND": "10000",
        "AGENTSTREAM_SERVER_REQUEST_BURST": "10000",
        "AGENTSTREAM_LIMITS_OUTPUT_BYTES": str(8 * 1024 * 1024),
        "AGENTSTREAM_LIMITS_PROCESSES": "60",
    }
    with Daemon(tmp_path_factory.mktemp("hostile"), env=env) as made:
        yield made


@pytest.fixture(autouse=True)
def _daemon_stays_well(daemon: Daemon) -> Iterator[None]:
    """After each attack it is healthy, carries out work orders, and has found no fault in itself."""
    daemon.errors.clear()
    yield
    assert daemon.http("GET", "/health")[1]["status"] == "ok"
    with daemon.subscriber() as watcher:
        watcher.subscribe("*")
        order = daemon.submit("echo still here")
        assert watcher.until_ended(order)["status"] == "succeeded"
    faults = [line for line in daemon.errors if "Traceback" in line or '"level":"error"' in line]
    assert faults == []
