"""Between the shell and a coroutine: one `trio.run` for each command, signals, exit status, one clear line for each error.

Exit status: 0 done, 1 it failed (one line on stderr says why and what to do), 2 wrong usage, 130 stopped by a signal.
"""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, cast

import click
import trio

from agentstream.cli.text import one_line
from agentstream.client.nursery import open_helpers
from agentstream.errors import AgentstreamError, Unauthorized, Unreachable

#: What a shell gives a program that Ctrl-C ended.
STOPPED: Final = 130
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Errors raised on purpose, and the operating system's, become one line and exit status 1; a bug keeps its traceback."""
    try:
        yield
    except Unreachable as error:
        raise click.ClickException(
            f"{_sentence(error)}; start a daemon with 'agentstream serve', or name one with --url"
        ) from None
    except Unauthorized as error:
        raise click.ClickException(
            f"{_sentence(error)}; give a token with --token or AGENTSTREAM_TOKEN "
            "(the daemon's data directory holds one in the file 'token': --data-dir)"
        ) from None
    except AgentstreamError as error:
        raise click.ClickException(_sentence(error)) from None
    except BrokenPipeError:
        raise  # `| head` had enough: click ends quietly
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(one_line(f"{where}{error.strerror or error}", 500)) from None


def _sentence(error: AgentstreamError) -> str:
    return one_line(error.message, 1000)


def run(main: Callable[..., Awaitable[int]], *args: Any, **options: Any) -> NoReturn:
    """Run a command to its exit status. SIGINT, SIGTERM and SIGHUP cancel it; a second one changes nothing."""
    use_any_output()
    with clear_errors():
        try:
            status = trio.run(_stoppable, functools.partial(main, *args, **options))
            # Here and not when the interpreter ends, which would complain of a reader that left.
            sys.stdout.flush()
        except KeyboardInterrupt:
            # One that came before Trio listened, or after it stopped listening.
            status = STOPPED
    sys.exit(status)


async def _stoppable(main: Callable[[], Awaitable[int]]) -> int:
    async with open_helpers() as nursery:
        with trio.CancelScope() as scope:
            await nursery.start(on_signal, scope.cancel)
            return await main()
    return STOPPED


async def on_signal(
    action: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call ``action`` on each signal that asks us to end. The innermost of several gets them.

    One that our parent had ignored (nohup, a shell's background job) stays ignored.
    """
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if not heeded:
        task_status.started()
        return
    with trio.open_signal_receiver(*heeded) as signals:
        task_status.started()
        async for _ in signals:
            action()


def use_any_output() -> None:
    """Where the terminal's encoding lacks a character, show another one instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            cast("Any", stream).reconfigure(errors="replace")


def prompt_text(prompt: str) -> str:
    """The prompt of the command line; ``-`` reads it from standard input, where an argument ends at 128 KiB."""
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise click.BadParameter("say what the agent should do", param_hint="PROMPT")
    return text
