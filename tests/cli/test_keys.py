"""Answering by a key, on a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from agentstream.cli.keys import answer_questions
from agentstream.cli.screen import LiveScreen
from agentstream.client.nursery import open_helpers
from agentstream.errors import NotFound
from agentstream.model.events import ApprovalResolved, Decision
from tests.cli.samples import RUN
from tests.cli.test_board import question
from tests.cli.test_screen import terminal, written

Answers = list[tuple[str, Decision]]


@pytest.fixture
def tty_pair() -> Iterator[tuple[int, int]]:
    keyboard, fd = pty.openpty()
    yield keyboard, fd
    os.close(keyboard)
    os.close(fd)


async def press_until(keyboard: int, key: bytes, answers: Answers, count: int) -> None:
    """Press a key again and again, as what is typed before the question stands there does not count."""
    with trio.fail_after(30):
        while len(answers) < count:
            os.write(keyboard, key)
            await trio.testing.wait_all_tasks_blocked(0.02)


async def test_keys_answer_one_question_after_the_other(tty_pair: tuple[int, int]) -> None:
    keyboard, fd = tty_pair
    before = termios.tcgetattr(fd)
    answers: Answers = []

    async def resolve(request_id: str, decision: Decision) -> None:
        answers.append((request_id, decision))

    console = terminal()
    with LiveScreen(several=False, keys=True, live_console=console) as screen:
        screen.board.take(question("q-1", seconds=1))
        screen.board.take(question("q-2", seconds=2))
        async with open_helpers() as nursery:
            nursery.start_soon(answer_questions, screen, resolve, fd)
            await press_until(keyboard, b"y", answers, 1)
            await press_until(keyboard, b"N", answers, 2)
        assert screen.board.question is None
    assert answers == [("q-1", "allow"), ("q-2", "deny")]
    assert "[y/n]" in written(console)
    assert termios.tcgetattr(fd) == before


async def test_what_was_typed_before_does_not_answer(tty_pair: tuple[int, int]) -> None:
    keyboard, fd = tty_pair
    answers: Answers = []

    async def resolve(request_id: str, decision: Decision) -> None:
        answers.append((request_id, decision))

    with LiveScreen(several=False, keys=True, live_console=terminal()) as screen:
        os.write(keyboard, b"yyyy")
        screen.board.take(question("q-1"))
        async with open_helpers() as nursery:
            nursery.start_soon(answer_questions, screen, resolve, fd)
            await press_until(keyboard, b"xn", answers, 1)
    assert answers == [("q-1", "deny")]


async def test_a_question_that_another_answered_goes_away(tty_pair: tuple[int, int]) -> None:
    keyboard, fd = tty_pair
    answers: Answers = []

    async def resolve(request_id: str, decision: Decision) -> None:
        answers.append((request_id, decision))

    with LiveScreen(several=False, keys=True, live_console=terminal()) as screen:
        screen.board.take(question("q-1", seconds=1))
        async with open_helpers() as nursery:
            nursery.start_soon(answer_questions, screen, resolve, fd)
            await trio.testing.wait_all_tasks_blocked()
            screen.board.take(ApprovalResolved(**RUN, request_id="q-1", decision="deny"))
            screen.board.take(question("q-2", seconds=2))
            await press_until(keyboard, b"y", answers, 1)
    assert answers == [("q-2", "allow")]


async def test_an_answer_that_comes_too_late_is_told(tty_pair: tuple[int, int]) -> None:
    keyboard, fd = tty_pair
    tried: Answers = []

    async def resolve(request_id: str, decision: Decision) -> None:
        tried.append((request_id, decision))
        raise NotFound("it expired")

    console = terminal()
    with LiveScreen(several=False, keys=True, live_console=console) as screen:
        screen.board.take(question("q-1"))
        async with open_helpers() as nursery:
            nursery.start_soon(answer_questions, screen, resolve, fd)
            await press_until(keyboard, b"y", tried, 1)
    assert "the answer did not arrive: it expired" in written(console)


async def test_a_terminal_that_hangs_up_ends_the_asking() -> None:
    keyboard, fd = pty.openpty()
    try:
        with LiveScreen(several=False, keys=True, live_console=terminal()) as screen:
            screen.board.take(question("q-1"))

            async def resolve(request_id: str, decision: Decision) -> None:
                raise AssertionError("nobody answered")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_questions, screen, resolve, fd)
                await trio.testing.wait_all_tasks_blocked()
                os.close(keyboard)
                with trio.fail_after(30):
                    while nursery.child_tasks:
                        await trio.testing.wait_all_tasks_blocked(0.02)
    finally:
        os.close(fd)
