"""Where events are shown: JSON lines, plain lines, or a live terminal. All three take events one by one.

A screen is a context manager. `Screen.show` never blocks for long and is not async: a terminal that is stopped (Ctrl-S) stops the
command, as it does any other; the daemon does not mind a slow subscriber.
"""

from __future__ import annotations

import errno
import sys
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.containers import Lines
from rich.live import Live
from rich.text import Text

from agentstream.cli.board import HEADER_ONLY, Board, ask, header, side_by_side
from agentstream.cli.lines import line
from agentstream.cli.text import one_line, safe_json
from agentstream.model.events import AgentOutputDelta, AgentThinking, AgentToolResult, Event

#: Redraws a second of a live terminal; above this nobody sees a difference.
FRAMES_PER_SECOND: Final = 8
#: Lines that may wait for the next redraw during a long replay.
_MAX_WAITING: Final = 500
#: Columns that a text gets also where the terminal has less.
_NARROW: Final = 20
#: Lines that only tell the beginning of something.
_PREVIEWS: Final = (AgentThinking, AgentToolResult)


class Screen(Protocol):
    """Shows events."""

    @property
    def board(self) -> Board:
        """What was learnt so far."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, event: Event, text: str) -> None:
        """An event, and its JSON text as on the wire."""

    def notice(self, message: str) -> None:
        """Something about the watching itself, not an event."""

    def redraw(self) -> None:
        """To be called `FRAMES_PER_SECOND` times a second."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would raise SystemExit; what reads us ended, which click knows how to take quietly.
        raise BrokenPipeError(errno.EPIPE, "the reader ended")


def console(file: TextIO) -> Console:
    """A console for text that was made safe: nothing in it is taken for markup, emoji or something to highlight."""
    return _Console(file=file, markup=False, emoji=False, highlight=False)


class _Base:
    def __init__(self) -> None:
        self._board = Board()

    @property
    def board(self) -> Board:
        return self._board

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def notice(self, message: str) -> None:
        print(one_line(message, 500), file=sys.stderr, flush=True)

    def redraw(self) -> None:
        pass

    def _learn(self, event: Event) -> None:
        if self._board.take(event).ended:
            self._board.forget(event.work_order_id)


class JsonScreen(_Base):
    """One event a line, exactly as on the wire; on a terminal, what it would obey is written as a JSON escape."""

    def show(self, event: Event, text: str) -> None:
        print(safe_json(text) if sys.stdout.isatty() else text, flush=True)


class PlainScreen(_Base):
    """A line of text for each event, for pipes and logs: no colour, no redrawing. ``several`` names the work order on each."""

    def __init__(self, *, several: bool) -> None:
        super().__init__()
        self._several = several

    def show(self, event: Event, text: str) -> None:
        # Not through rich, which would lay out what is not to be laid out, in as much time again.
        print(_stamped(event, several=self._several).plain, flush=True)


class LiveScreen(_Base):
    """A terminal. One run: its lines scroll by above a header. ``several``: panels, and a line for each that ended."""

    def __init__(self, *, several: bool, keys: bool, live_console: Console | None = None) -> None:
        super().__init__()
        self._several = several
        self._keys = keys
        self._console = live_console or console(sys.stdout)
        # No refresh thread: all drawing happens in the Trio thread, so that signals and cancellation find the terminal whole.
        self._live = Live(console=self._console, auto_refresh=False, transient=several, redirect_stderr=False)
        self._waiting: list[Text] = []
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.redraw()
        self._live.stop()

    def show(self, event: Event, text: str) -> None:
        view = self._board.take(event)
        if not self._several:
            if not isinstance(event, HEADER_ONLY):
                self._waiting.append(_stamped(event, workspace=view.workspace, on=self._console))
        elif view.ended:
            self._waiting.append(_stamped(event, several=True).append(f" {one_line(view.prompt, 60)}"))
            self._board.forget(event.work_order_id)
        # What comes at a human pace is shown at once, a replay in frames.
        if len(self._waiting) >= _MAX_WAITING or time.monotonic() - self._drawn > 1 / FRAMES_PER_SECOND:
            self.redraw()

    def notice(self, message: str) -> None:
        self._waiting.append(Text(one_line(message, 500), "yellow"))
        self.redraw()

    def redraw(self) -> None:
        if self._waiting:
            self._console.print(Group(*self._waiting), soft_wrap=False)
            self._waiting.clear()
        now = datetime.now(UTC)
        views = list(self._board.views.values())
        parts: list[RenderableType] = []
        if (question := self._board.question) is not None:
            parts.append(ask(question, keys=self._keys))
        if self._several:
            room = self._console.height - len(parts)
            parts.append(side_by_side(views, now, self._console.width, room))
        elif views:
            parts.append(header(views[0], now))
        self._live.update(Group(*parts), refresh=True)
        self._drawn = time.monotonic()


def _stamped(event: Event, *, several: bool = False, workspace: str = "", on: Console | None = None) -> Text:
    """A line with its time of day; the further lines of a long text stand below the first.

    ``on`` a terminal it is folded to its width, and what is a preview anyway is cut to one row.
    """
    text = line(event, workspace)
    if isinstance(event, AgentOutputDelta):
        return text
    head = f"{event.timestamp.astimezone():%H:%M:%S} " + (f"{one_line(event.work_order_id, 40)} " if several else "")
    if on is None:
        lines = text.split("\n", allow_blank=True)
    elif isinstance(event, _PREVIEWS):
        text.truncate(max(_NARROW, on.width - len(head)), overflow="ellipsis")
        lines = Lines([text])
    else:
        lines = text.wrap(on, max(_NARROW, on.width - len(head)))
    return Text.assemble((head, "bright_black"), Text("\n" + " " * len(head)).join(lines))


def choose(*, as_json: bool, several: bool, keys: bool) -> Screen:
    """The screen for this standard output. ``keys``: questions can be answered by a key press."""
    if as_json:
        return JsonScreen()
    return LiveScreen(several=several, keys=keys) if sys.stdout.isatty() else PlainScreen(several=several)
