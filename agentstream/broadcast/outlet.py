"""The stream under one WebSocket, with two writers: trio-websocket's control frames and our shared data frames.

trio-websocket is handed an `Outlet` as its stream (``wrap_server_stream``) and sends through `send_all`; events and answers come in
through `put`, which never blocks. Both go through one queue, so a frame is never torn: what is in the queue is
written whole and in order, whoever put it there and whoever was cancelled meanwhile. A cancelled ``send_all`` in the middle of a
frame, which corrupts any other stream, leaves the frame in the queue here.

While the queue is empty, what is put is written at once, by one system call. Only when the socket is full does a task take
over (the *pump*), which exists only as long as something waits: ten thousand idle connections have no task for their
outgoing side. A stream without a plain socket of its own (TLS) always goes through the pump.
"""

from __future__ import annotations

import os
import socket
import struct
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import accumulate
from typing import Final, cast

import attrs
import structlog
import trio

from agentstream.broadcast.batch import Chunk
from agentstream.broadcast.frames import close_frame

log = structlog.get_logger()

#: Buffers for one writev(2); Linux takes at most 1024 (IOV_MAX).
_MAX_BUFFERS: Final = 256
#: Bytes for one `send_all` of a stream that takes no list of buffers: enough to make its cost per call vanish.
_JOIN_BYTES: Final = 256 * 1024
_RECEIVE_BYTES: Final = 64 * 1024
_CLOSE_OPCODE: Final = b"\x88"
#: SO_LINGER on with no time: close(2) drops what waits in the kernel and resets the connection.
_RESET: Final = struct.pack("ii", 1, 0)


@attrs.define(eq=False)
class _Waiting:
    """One entry of the queue. ``start`` bytes of ``data`` are written; only the first entry can have some."""

    data: bytes
    #: What `Outlet.drop` may take back, with its frames' ends; None: it stays.
    chunk: Chunk | None = None
    start: int = 0
    #: Somebody waits until it is written.
    written: trio.Event | None = None


async def nothing_more() -> bool:
    """An `Outlet.refill` that has nothing."""
    return False


def _nobody_asked() -> None:
    pass


class Outlet(trio.abc.Stream):
    """A stream for `trio_websocket.wrap_server_stream`, with a second way in.

    ``nursery``: where the pump runs; it must outlive the connection's last word. ``stall_limit``: seconds after which a peer
    that took nothing is cut off. ``first``: what somebody read of the stream already, to be received once more. ``refill`` is
    awaited by the pump whenever the queue is empty, and goes on until it says False.
    """

    def __init__(
        self, stream: trio.abc.Stream, nursery: trio.Nursery, *, stall_limit: float, first: bytes = b""
    ) -> None:
        self._stream = stream
        self._nursery = nursery
        self._stall_limit = stall_limit
        direct = getattr(stream, "socket", None)
        # The descriptor is used only while `_open`: afterwards its number may be somebody else's.
        self._fd: int | None = direct.fileno() if direct is not None else None
        #: The descriptor while nothing waits and data may be sent, so that `put` needs one look.
        self._ready = self._fd
        self._open = True
        #: The closing frame was sent, after which RFC 6455 (5.5.1) allows no more data.
        self._said_goodbye = False
        # Ten thousand idle connections hold an empty one each: a list takes a tenth of a deque, and is shortened once a write.
        self._queue: list[_Waiting] = []
        self._pumping = False
        #: Who waits for something to be written or read, as long as somebody does.
        self._changed: trio.lowlevel.ParkingLot | None = None
        self.refill: Callable[[], Awaitable[bool]] = nothing_more
        #: Called once when the connection is closed, from either side or by us.
        self.on_closed: Callable[[], None] = _nobody_asked
        #: Bytes that wait to be written.
        self.waiting = 0
        #: When bytes last came in, in seconds of Trio's clock: the peer lives.
        self.last_received = trio.current_time()
        #: The peer took nothing for the stall limit.
        self.stalled = False
        #: Bytes that came since whoever reads the messages set it to zero, and how many may: then the connection is reset.
        self.unheard = 0
        self.max_unheard: int | None = None
        self._receiving = False
        self._first = first

    @property
    def open(self) -> bool:
        """Nobody has closed it, as far as is known."""
        return self._open

    @property
    def busy(self) -> bool:
        """Something waits, or is being read from the journal."""
        return self._pumping or bool(self._queue)

    # --- what goes out ---------------------------------------------------------------------------------------------

    def put(self, data: bytes, chunk: Chunk | None = None) -> None:
        """Write whole frames now, or as soon as can be. ``chunk``: they may be dropped again. Never blocks; ignored when closed."""
        if not data:
            # In the queue it would never count as written.
            return
        if self._ready is None:
            if self._open and not self._said_goodbye:
                self._append(data, chunk, 0)
            return
        try:
            written = os.write(self._ready, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self.abort()
            return
        if written != len(data):
            self._append(data, chunk, written)

    def _append(self, data: bytes, chunk: Chunk | None, start: int) -> None:
        self._queue.append(_Waiting(data, chunk, start))
        self.waiting += len(data) - start
        self._ready = None
        self.wake()

    def _look_again(self) -> None:
        """After the queue has become shorter, or nothing more may be said."""
        self._ready = None if self._queue or self._said_goodbye or not self._open else self._fd

    def keep(self) -> None:
        """What waits now can't be dropped any more."""
        for entry in self._queue:
            entry.chunk = None

    def drop(self) -> int | None:
        """Take back whole frames that may be dropped and were not begun; the lowest ``seq`` among them, None: there was none."""
        lowest: int | None = None
        kept: list[_Waiting] = []
        for entry in self._queue:
            if entry.chunk is None:
                kept.append(entry)
                continue
            begun = 0
            if entry.start:
                ends = list(accumulate(entry.chunk.lengths))
                last = bisect_left(ends, entry.start)
                begun = last + 1
                if ends[last] > entry.start:
                    # A frame that was begun has to be finished. One byte more than is left, so that ``start`` still says so.
                    kept.append(_Waiting(entry.data[entry.start - 1 : ends[last]], start=1, written=entry.written))
            if lowest is None:
                lowest = next((seq for seq in entry.chunk.seqs[begun:] if seq is not None), None)
        self._queue = kept
        self.waiting = sum(len(entry.data) - entry.start for entry in kept)
        self._look_again()
        return lowest

    async def room(self, limit: int) -> None:
        """Wait until at most ``limit`` bytes wait. Returns also when the connection is closed."""
        while self._open and self.waiting > limit:
            await self._wait()

    async def idle(self) -> None:
        """Wait until nothing waits and nothing is being read. Returns also when the connection is closed."""
        while self._open and self.busy:
            await self._wait()

    async def _wait(self) -> None:
        """Until `_tell`."""
        self._changed = self._changed or trio.lowlevel.ParkingLot()
        await self._changed.park()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.unpark_all()
            self._changed = None

    async def writable(self) -> None:
        """Wait until the socket takes something. For `refill`, which must not fetch what would have to be held.

        Raises `trio.TooSlowError` after the stall limit.
        """
        self._must_be_open()
        with trio.fail_after(self._stall_limit):
            if self._fd is None:
                await self._stream.wait_send_all_might_not_block()
            else:
                await trio.lowlevel.wait_writable(self._fd)

    def wake(self) -> None:
        """Let the pump run, if it doesn't."""
        if self._open and not self._pumping:
            self._pumping = True
            self._nursery.start_soon(self._pump)

    def wake_later(self, seconds: float) -> None:
        """`wake` after a while."""

        async def wake() -> None:
            await trio.sleep(seconds)
            self.wake()

        self._nursery.start_soon(wake)

    async def _pump(self) -> None:
        try:
            # One turn of the event loop: what is put meanwhile goes out in the same system call.
            await trio.lowlevel.checkpoint()
            while self._open:
                if self._queue:
                    await self._write()
                # No await between its False and the end: what is put later wakes a new pump.
                elif not await self.refill():
                    break
        except trio.TooSlowError:
            self._cut_off()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The reader may not know it yet; it learns it from the closed stream.
            self.abort()
        finally:
            self._pumping = False
            self._tell()

    async def _write(self) -> None:
        if self._fd is None:
            sizes = accumulate(len(entry.data) for entry in self._queue)
            count = next((number for number, size in enumerate(sizes, 1) if size >= _JOIN_BYTES), len(self._queue))
            # From here on they belong to the stream; a drop must not touch them.
            entries, self._queue = self._queue[:count], self._queue[count:]
            data = b"".join([entry.data[entry.start :] for entry in entries])
            with trio.fail_after(self._stall_limit):
                await self._stream.send_all(data)
            self.waiting -= len(data)
            for entry in entries:
                if entry.written is not None:
                    entry.written.set()
        else:
            try:
                self._advance(os.writev(self._fd, self._buffers()))
            except BlockingIOError:
                await self.writable()
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
            else:
                self._look_again()
                # A peer that takes as fast as we write must not keep the event loop.
                await trio.lowlevel.checkpoint()
        self._tell()

    def _buffers(self) -> list[bytes | memoryview]:
        first, *rest = self._queue[:_MAX_BUFFERS]
        return [memoryview(first.data)[first.start :] if first.start else first.data, *(entry.data for entry in rest)]

    def _advance(self, written: int) -> None:
        self.waiting -= written
        done = 0
        for entry in self._queue:
            left = len(entry.data) - entry.start
            if written < left:
                entry.start += written
                break
            written -= left
            done += 1
            if entry.written is not None:
                entry.written.set()
        del self._queue[:done]

    def _must_be_open(self) -> None:
        # Before each use of the descriptor: its number may be another connection's by now.
        if not self._open:
            raise trio.ClosedResourceError("the connection was closed")

    # --- the end ---------------------------------------------------------------------------------------------------

    def _cut_off(self) -> None:
        """The peer took nothing for too long: say so if a frame still fits, and reset."""
        self.stalled = True
        torn = bool(self._queue) and self._queue[0].start > 0
        if self._fd is not None and self._open and not torn:
            with suppress(OSError):
                os.write(self._fd, close_frame(4008, "took nothing for too long"))
        self.abort()

    def abort(self) -> None:
        """Reset the connection at once; what waits is dropped. Harmless when it is closed already."""
        if not self._open:
            return
        plain = self._stream
        while not isinstance(plain, trio.SocketStream) and hasattr(plain, "transport_stream"):
            plain = cast("trio.abc.Stream", plain.transport_stream)
        self._end()
        if isinstance(plain, trio.SocketStream):
            with suppress(OSError):
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            plain.socket.close()
        else:
            self._nursery.start_soon(trio.aclose_forcefully, self._stream)

    def _end(self) -> None:
        self._open = False
        self._ready = None
        waiting, self._queue = self._queue, []
        self.waiting = 0
        for entry in waiting:
            if entry.written is not None:
                entry.written.set()
        self._tell()
        self.on_closed()

    # --- as a stream, for trio-websocket ---------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue ``data`` and wait until it is written. Cancelled: it is written nevertheless."""
        await trio.lowlevel.checkpoint()
        self._must_be_open()
        self.put(bytes(data))
        # trio-websocket sends one frame at a time.
        if data[:1] == _CLOSE_OPCODE:
            self._said_goodbye = True
            self._look_again()
        if self._queue:
            last = self._queue[-1]
            last.written = last.written or trio.Event()
            await last.written.wait()
        if not self._open:
            raise trio.BrokenResourceError("the peer is gone")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until nothing waits."""
        await trio.lowlevel.checkpoint()
        await self.room(0)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What the peer sent. Raises `trio.ClosedResourceError` when the connection is closed on our side."""
        while self._receiving:
            await self._wait()
        self._must_be_open()
        max_bytes = max_bytes or _RECEIVE_BYTES
        data: bytes | bytearray
        self._receiving = True
        try:
            if self._first:
                await trio.lowlevel.checkpoint()
                data, self._first = self._first[:max_bytes], self._first[max_bytes:]
            elif self._fd is None:
                data = await self._stream.receive_some(max_bytes)
            else:
                # As Trio's own stream, whose six calls inside each other take 1.5 KiB of each connection that only listens.
                await trio.lowlevel.wait_readable(self._fd)
                self._must_be_open()
                data = os.read(self._fd, max_bytes)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._receiving = False
            self._tell()
        self.last_received = trio.current_time()
        self.unheard += len(data)
        if self.max_unheard is not None and self.unheard > self.max_unheard:
            self.abort()
            raise trio.BrokenResourceError("the peer sends and sends, and never a whole message")
        return data

    async def linger(self, seconds: float) -> None:
        """Let the peer read what was sent last: end our side, and throw away what still comes until it ends its own.

        Closing with bytes unread would reset the connection, and the reset overtakes what was sent. trio-websocket may still be
        reading, once: it looks whether it should only before it handles what it has read, not before it reads on.
        """
        with trio.move_on_after(seconds), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while await self.receive_some(_RECEIVE_BYTES):
                pass

    async def aclose(self) -> None:
        """Close the connection; what waits is dropped."""
        if self._open:
            self._end()
            await self._stream.aclose()
        else:
            await trio.lowlevel.checkpoint()
