"""Keep the head and the tail of something that may be huge, within a bound. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class HeadTail(Generic[T]):
    """Items in order, bounded by their total size: the first half of the bound from the start, the second from the end."""

    def __init__(self, max_size: int) -> None:
        self._head_left = max_size // 2
        self._tail_bound = max_size - max_size // 2
        self._head: list[T] = []
        self._tail: deque[tuple[T, int]] = deque()
        self._tail_size = 0
        self._head_closed = False
        #: Total size of what was left out between head and tail.
        self.omitted = 0

    def add(self, item: T, size: int) -> None:
        """Append an item of ``size`` (any unit, the bound's)."""
        if not self._head_closed and size <= self._head_left:
            self._head.append(item)
            self._head_left -= size
            return
        self._head_closed = True
        self._tail.append((item, size))
        self._tail_size += size
        while self._tail_size > self._tail_bound and self._tail:
            _, dropped = self._tail.popleft()
            self._tail_size -= dropped
            self.omitted += dropped

    @property
    def head(self) -> list[T]:
        """What was kept from the start."""
        return self._head

    @property
    def tail(self) -> list[T]:
        """What was kept from the end."""
        return [item for item, _ in self._tail]


class CollectedText:
    """The bytes of a stream, bounded, as text."""

    #: Larger chunks are cut up, so that the tail can be trimmed closely.
    _PIECE = 64 * 1024

    def __init__(self, max_bytes: int) -> None:
        self._chunks: HeadTail[bytes] = HeadTail(max_bytes)
        self._piece = max(1, min(self._PIECE, max_bytes // 4))

    def add(self, data: bytes) -> None:
        """Append bytes."""
        for start in range(0, len(data), self._piece):
            piece = data[start : start + self._piece]
            self._chunks.add(piece, len(piece))

    @property
    def truncated(self) -> bool:
        """Something is missing in the middle."""
        return self._chunks.omitted > 0

    def text(self) -> str:
        """Head and tail as text; a line in between tells how many bytes are missing. Bytes that are no UTF-8 are replaced."""
        head, tail = b"".join(self._chunks.head), b"".join(self._chunks.tail)
        if not self.truncated:
            return (head + tail).decode(errors="replace")
        note = f"\n[... {self._chunks.omitted} bytes left out ...]\n"
        return head.decode(errors="replace") + note + tail.decode(errors="replace")

    def tail(self, max_bytes: int = 4096) -> str:
        """The last bytes as text."""
        return b"".join([*self._chunks.head, *self._chunks.tail])[-max_bytes:].decode(errors="replace")
