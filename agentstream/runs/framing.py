r"""Bytes in, lines out, whatever the chunks. Pure.

A line ends at ``\n`` and nowhere else: U+2028, form feeds and lone ``\r`` occur raw inside the JSON strings of real agents. One
``\r`` right before the end is dropped, for programs that write ``\r\n``. What is not UTF-8 passes unchanged.

Agents print lines of several megabytes, so the bound is high, but there is one: of a longer line the beginning is kept, the
rest is counted and dropped, and the next line is read as if nothing had happened (promises 5 and 9).
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: 15 times the longest line seen from a real agent (4.25 MB, AGENTS.md fact 3), and still small beside the machine's memory.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024


class Line(NamedTuple):
    """One line without its end. ``length`` is the full length in bytes; of a truncated line ``data`` is the beginning.

    A tuple, because one is made for every line: a frozen attrs class takes 0.9 us to make, this 0.35.
    """

    data: bytes
    length: int

    @property
    def truncated(self) -> bool:
        """The line was longer than the bound."""
        return self.length > len(self.data)


class LineFramer:
    """Splits one stream into lines. Holds at most ``max_line_bytes`` of the line that has not ended yet."""

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        if max_line_bytes < 1:
            raise ValueError("max_line_bytes must be at least 1")
        self._limit = max_line_bytes
        # A bytearray, not a list of chunks: a line that drips in byte by byte then costs one byte a byte, and is linear too.
        self._begun = bytearray()
        self._length = 0
        self._ends_in_cr = False

    def push(self, data: bytes) -> list[Line]:
        """The lines that ``data`` completes, in order."""
        pieces = data.split(b"\n")
        rest = pieces.pop()
        lines: list[Line] = []
        if pieces:
            whole = iter(pieces)
            if self._length:
                self._hold(next(whole))
                lines.append(self._take())
            for piece in whole:
                if len(piece) > self._limit or piece.endswith(b"\r"):
                    lines.append(self._line(piece, len(piece), piece.endswith(b"\r")))
                else:
                    lines.append(Line(piece, len(piece)))
        if rest:
            self._hold(rest)
        return lines

    def finish(self) -> list[Line]:
        """The stream is over: the last line, if it has no end of its own. The framer can be used again."""
        return [self._take()] if self._length else []

    def _hold(self, piece: bytes) -> None:
        if not piece:
            return
        # One byte above the bound: it may be the "\r" that will be dropped.
        room = self._limit + 1 - len(self._begun)
        self._begun += piece if len(piece) <= room else memoryview(piece)[: max(room, 0)]
        self._length += len(piece)
        self._ends_in_cr = piece.endswith(b"\r")

    def _take(self) -> Line:
        line = self._line(bytes(self._begun), self._length, self._ends_in_cr)
        self._begun = bytearray()
        self._length = 0
        return line

    def _line(self, begun: bytes, length: int, ends_in_cr: bool) -> Line:
        if ends_in_cr:
            length -= 1
        return Line(begun[: min(length, self._limit)], length)
