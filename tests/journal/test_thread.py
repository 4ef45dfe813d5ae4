"""The writer's thread: one thing at a time, finished whoever is cancelled, and gone at the end."""

from __future__ import annotations

import os
import threading

import pytest
import trio
import trio.testing

from agentstream.journal.thread import WriterThread

PATIENCE = 30.0


async def test_works_are_done_one_at_a_time_in_one_thread_in_the_order_asked() -> None:
    thread = WriterThread("writer")
    done: list[tuple[int, str]] = []

    def work(number: int) -> int:
        done.append((number, threading.current_thread().name))
        return number

    answers: list[int] = []

    async def ask(number: int) -> None:
        answers.append(await thread.do(lambda: work(number)))

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(ask, number)
    assert sorted(answers) == list(range(100))
    assert [number for number, _ in done] == answers
    assert {name for _, name in done} == {"writer"}
    thread.end()


async def test_what_work_raises_is_raised_and_the_next_is_not_concerned() -> None:
    thread = WriterThread("writer")

    def fail() -> None:
        raise KeyError("of the work")

    with pytest.raises(KeyError, match="of the work"):
        await thread.do(fail)
    assert await thread.do(lambda: 1) == 1
    thread.end()


async def test_work_that_was_begun_is_waited_for_though_cancelled() -> None:
    thread = WriterThread("writer")
    begun, go_on = threading.Event(), threading.Event()
    answers: list[str] = []

    def work() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        answers.append("done")

    async def ask() -> None:
        await thread.do(work)
        answers.append("told")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.to_thread.run_sync(begun.wait, PATIENCE)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
        go_on.set()
    assert answers == ["done"]
    # And what it left is not the next one's.
    assert await thread.do(lambda: "next") == "next"
    thread.end()


async def test_who_waits_for_his_turn_and_is_cancelled_has_done_nothing() -> None:
    thread = WriterThread("writer")
    go_on = threading.Event()
    done: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.do, lambda: go_on.wait(PATIENCE))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as second:
            second.start_soon(thread.do, lambda: done.append(1))
            await trio.testing.wait_all_tasks_blocked()
            second.cancel_scope.cancel()
        go_on.set()
    assert await thread.do(lambda: 2) == 2
    assert done == []
    thread.end()


async def test_the_end_leaves_no_thread_and_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    thread = WriterThread("writer")
    thread.end()
    await thread.do(lambda: None)
    assert len(os.listdir("/proc/self/fd")) == len(before[0]) + 2
    thread.end()
    thread.end()
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before
