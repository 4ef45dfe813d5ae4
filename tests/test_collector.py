"""What has ended is freed at once, so that the garbage collector has nothing to look for; and it looks only at what is new."""

from __future__ import annotations

import gc
import socket
import ssl
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from agentstream.agents.base import RunRequest
from agentstream.collector import EVERYTHING_SECONDS, short_collections
from agentstream.errors import ExecutionCancelled
from agentstream.runs.driver import driver_for
from agentstream.runs.executor import StreamingExecutor
from tests.support.service import Service, open_service, until


@pytest.fixture(autouse=True)
def only_when_asked() -> Iterator[None]:
    """The collector runs when a test says so."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def freed_by_the_collector() -> list[str]:
    """Classes of objects, of whatever package, that only the collector frees. By looking at who is there: what the generators in
    a ring free when they are closed is not in `gc.garbage`."""
    before = Counter(map(type, gc.get_objects()))
    gc.collect()
    after = Counter(map(type, gc.get_objects()))
    return sorted(f"{one.__module__}.{one.__qualname__}" for one in before - after if one.__module__ != "builtins")


# --- nothing is left -----------------------------------------------------------------------------------------------


async def test_a_run_is_gone_when_nobody_needs_it_any_more(tmp_path: Path) -> None:
    executor = StreamingExecutor("wo", "run", lambda _event: None)
    await executor.execute(sys.executable, ["-c", "print('x' * 1000)"], cwd=tmp_path)
    gone = weakref.ref(executor)
    del executor
    assert gone() is None
    assert freed_by_the_collector() == []


async def test_a_cancelled_run_of_an_agent_is_gone(tmp_path: Path) -> None:
    request = RunRequest(prompt="Wait", cwd=str(tmp_path), work_order_id="wo", run_id="run")
    started = trio.Event()

    async def on_event(_event: object) -> None:
        started.set()

    async def run() -> None:
        prepared = driver_for("demo").prepare(request, on_event=on_event)

        async def cancel() -> None:
            await started.wait()
            prepared.executor.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            # `pytest.raises` would keep the exception, and with it all that was on its way.
            with suppress(ExecutionCancelled):
                await prepared.execute()

    await run()
    assert freed_by_the_collector() == []


def say(service: Service, tls: ssl.SSLContext | None, *said: bytes, until: bytes = b"") -> None:
    """One after the other, each time until an answer came, and at last until this one; else until the server hangs up.

    In a thread and without a library: what a Trio client leaves would be in this process too.
    """
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as plain:
        sock = tls.wrap_socket(plain, server_hostname="127.0.0.1") if tls is not None else plain
        heard = b""
        for one in said:
            sock.sendall(one)
            heard = sock.recv(65536)
        while not until or until not in heard:
            data = sock.recv(65536)
            heard += data
            if not data:
                assert not until, heard
                break
        sock.close()


def one_connection(service: Service, tls: ssl.SSLContext | None) -> None:
    head = (
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: Bearer {}\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    subscribe = b'{"type":"subscribe","workOrderId":"w","sinceSeq":0}'
    frame = bytes([0x81, 0x80 | len(subscribe), 0, 0, 0, 0]) + subscribe
    say(service, tls, head.format(service.port, service.token).encode(), frame, until=b"replay_complete")


def one_request(service: Service, tls: ssl.SSLContext | None) -> None:
    head = f"GET /health HTTP/1.1\r\nhost: 127.0.0.1:{service.port}\r\nconnection: close\r\n\r\n"
    say(service, tls, head.encode())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("visit", [one_connection, one_request])
async def test_a_visitor_leaves_nothing(
    tmp_path: Path, certificate: Path, visit: Callable[[Service, ssl.SSLContext | None], None], secure: bool
) -> None:
    tls = client = None
    if secure:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        client = ssl.create_default_context(cafile=str(certificate))
    async with open_service(tmp_path, tls=tls) as service:
        # The first makes what stays: routes, converters.
        for _ in range(2):
            await trio.to_thread.run_sync(visit, service, client)
            await until(lambda: service.door.statistics().connections == 0)
            await trio.testing.wait_all_tasks_blocked()
            left = freed_by_the_collector()
        assert left == []


# --- what stays is not looked at again ---------------------------------------------------------------------------------


class Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_survived_a_full_collection_is_set_aside() -> None:
    with short_collections():
        stays = [Ring() for _ in range(1000)]
        before = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() >= before + len(stays)


def test_a_ring_is_found_before_it_is_set_aside_and_once_a_day() -> None:
    now = 0.0
    with short_collections(lambda: now):
        young, old = Ring(), Ring()
        gone_young, gone_old = weakref.ref(young), weakref.ref(old)
        del young
        gc.collect()
        assert gone_young() is None
        del old
        gc.collect()
        assert gone_old() is not None, "it was looked at again, as everything must have been"
        now = EVERYTHING_SECONDS
        gc.collect()
        gc.collect()
        assert gone_old() is None


def test_the_process_gets_its_collector_back() -> None:
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    with short_collections():
        assert gc.get_threshold() != thresholds
    assert gc.get_threshold() == thresholds
    assert gc.callbacks == callbacks
    assert gc.get_freeze_count() == 0
