"""What has ended is freed at once, so that the garbage collector has nothing to look for; and it looks only at what is new."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
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


async def one_connection(service: Service) -> None:
    """Without a WebSocket library: the client's rings are in this process too."""
    stream = await trio.open_tcp_stream("127.0.0.1", service.port)
    async with stream:
        await stream.send_all(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: Bearer %s\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            % (service.port, service.token.encode())
        )
        assert b" 101 " in await stream.receive_some()
        subscribe = b'{"type":"subscribe","workOrderId":"w","sinceSeq":0}'
        await stream.send_all(bytes([0x81, 0x80 | len(subscribe), 0, 0, 0, 0]) + subscribe)
        heard = b""
        while b"replay_complete" not in heard:
            data = await stream.receive_some()
            assert data, heard
            heard += data
    await until(lambda: service.broadcaster.statistics().subscribers == 0)
    await until(lambda: service.door.statistics().connections == 0)


async def one_request(service: Service) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", service.port)
    async with stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nconnection: close\r\n\r\n" % service.port)
        while await stream.receive_some():
            pass
    await until(lambda: service.door.statistics().connections == 0)


@pytest.mark.parametrize("visit", [one_connection, one_request])
async def test_a_visitor_leaves_nothing(tmp_path: Path, visit: object) -> None:
    assert callable(visit)
    async with open_service(tmp_path) as service:
        # The first makes what stays: routes, converters.
        await visit(service)
        freed_by_the_collector()
        for _ in range(3):
            await visit(service)
        await trio.testing.wait_all_tasks_blocked()
        assert freed_by_the_collector() == []


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
