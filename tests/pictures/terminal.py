"""A shell on a pseudo-terminal that is filmed: what is typed goes in, what a terminal would show comes out as frames."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyte

from tests.pictures.film import Frame, Row, Span

#: Seconds that anything may take before filming is given up.
PATIENCE: Final = 120.0
#: Seconds between two frames; more is not seen and makes the file large.
_PACE: Final = 0.2
#: Seconds without output after which the screen is taken to be whole.
_QUIET: Final = 0.03
#: Seconds in which nothing moves are cut to this many: how long a busy machine takes to start a program is not the story.
_LONGEST_PAUSE: Final = 1.2
_KEY: Final = 0.035


class Terminal:
    """``command`` on a terminal of its own; a context manager, at whose end the command is hung up on."""

    def __init__(
        self, command: list[str], *, columns: int, rows: int, env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self.frames: list[Frame] = []
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._began = self._changed = time.monotonic()
        self._skipped = 0.0
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            try:
                os.chdir(cwd or ".")
                os.execvpe(command[0], command, env)
            finally:
                os._exit(127)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        os.kill(self._pid, signal.SIGHUP)
        os.waitpid(self._pid, 0)

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(self._screen.display)

    def type(self, text: str) -> None:
        """Type as a person would."""
        for key in text:
            self.press(key)
            self.film(_KEY)
        self.film(0.4)
        self.press("\r")

    def press(self, key: str) -> None:
        os.write(self._fd, key.encode())

    def film(self, seconds: float) -> None:
        """Go on filming for so long."""
        self._film(time.monotonic() + seconds, None)

    def until(self, text: str) -> None:
        """Go on filming until this stands on the screen."""
        if not self._film(time.monotonic() + PATIENCE, text):
            raise AssertionError(f"{text!r} never came; what stands there:\n{self.text}")

    def _film(self, end: float, text: str | None) -> bool:
        while text is None or text not in self.text:
            left = end - time.monotonic()
            if left <= 0:
                return False
            if select.select([self._fd], [], [], left)[0] and not self._read():
                return False
        return True

    def _read(self) -> bool:
        """Take what comes until it pauses, or a frame is due; False at the end."""
        due = time.monotonic() + _PACE
        while time.monotonic() < due and select.select([self._fd], [], [], _QUIET)[0]:
            try:
                self._stream.feed(os.read(self._fd, 1 << 16))
            except OSError:  # Linux: the other side is closed
                return False
        self._take()
        return True

    def _take(self) -> None:
        rows = tuple(self._row(number) for number in range(self._screen.lines))
        if self.frames and self.frames[-1].rows == rows:
            return
        now = time.monotonic()
        self._skipped += max(0.0, now - self._changed - _LONGEST_PAUSE) if self.frames else now - self._began
        self._changed = now
        at = now - self._began - self._skipped
        if len(self.frames) > 1 and at - self.frames[-2].at < _PACE:
            # Nobody would see the one between.
            at = self.frames.pop().at
        self.frames.append(Frame(at, rows))

    def _row(self, number: int) -> Row:
        cells = [self._screen.buffer[number][column] for column in range(self._screen.columns)]
        cursor = self._screen.cursor
        if cursor.y == number and not cursor.hidden and cursor.x < len(cells) and cells[cursor.x].data == " ":
            cells[cursor.x] = cells[cursor.x]._replace(data="█", fg="white")
        spans: list[Span] = []
        column = 0
        for (colour, bold, italic), group in groupby(cells, lambda cell: (cell.fg, cell.bold, cell.italics)):
            text = "".join(cell.data for cell in group)
            if text.strip():
                # Blanks at the ends are no part of what is drawn.
                start = column + len(text) - len(text.lstrip())
                spans.append(Span(start, text.strip(), colour, bold, italic))
            column += len(text)
        return tuple(spans)
