"""Answers to permission requests by a key press, while events go on scrolling.

Only a fresh key counts: what was typed before a question stood there is thrown away, since a ``y`` meant for something else
must not let an agent run a command. Another's answer, or the expiry, takes the question away while we wait.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import trio

from agentstream.cli.screen import FRAMES_PER_SECOND, Screen
from agentstream.errors import AgentstreamError
from agentstream.model.events import ApprovalRequested, Decision

Resolve = Callable[[str, Decision], Awaitable[None]]

_DECISIONS: Final[dict[bytes, Decision]] = {b"y": "allow", b"n": "deny"}
#: Seconds between two looks at whether there is a question, and whether it is still open.
_LOOK: Final = 1 / FRAMES_PER_SECOND


def is_interactive() -> bool:
    """Somebody sits at a terminal, and we are in its foreground: a background job that reads it would be stopped."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


@contextlib.contextmanager
def _key_by_key(fd: int) -> Iterator[None]:
    """Keys arrive one by one and unseen; Ctrl-C still makes a signal."""
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd, termios.TCSANOW)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(fd, termios.TCSANOW, before)


def _read_key(fd: int) -> bytes:
    """The next key; ``b""`` when the terminal has hung up."""
    try:
        return os.read(fd, 1)
    except OSError:
        return b""


async def answer_questions(screen: Screen, resolve: Resolve, fd: int) -> None:
    """Take ``y`` or ``n`` for the oldest question of the board, then for the next. Ends when the terminal hangs up."""
    asked: ApprovalRequested | None = None
    with _key_by_key(fd):
        while True:
            question = screen.board.question
            if question is None:
                await trio.sleep(_LOOK)
                continue
            if question is not asked:
                asked = question
                screen.redraw()
                with contextlib.suppress(termios.error):
                    termios.tcflush(fd, termios.TCIFLUSH)
            with trio.move_on_after(_LOOK) as waiting:
                await trio.lowlevel.wait_readable(fd)
            if waiting.cancelled_caught or screen.board.question is not question:
                continue
            key = _read_key(fd)
            if not key:
                return
            decision = _DECISIONS.get(key.lower())
            if decision is not None:
                try:
                    await resolve(question.request_id, decision)
                except AgentstreamError as error:
                    screen.notice(f"the answer did not arrive: {error.message}")
                # The event that says so comes too, but the next question need not wait for it.
                screen.board.answered(question)
