"""The journal's files: opening them, the connections to them, and setting a damaged one aside. Blocking.

``PATH`` with its ``-wal`` and ``-shm`` is an SQLite database in WAL mode; ``PATH.lock`` is held (flock) for as long as
it is open, because two daemons on one journal would hand out the same ``seq``; the kernel lets go of it however the
holder dies. Files are for the owner only: prompts and outputs are in them.

A damaged database is renamed to ``PATH.corrupt-TIME``, never deleted, and a new one begun with a new epoch. Order
matters: the companions are renamed first, so that a crash between can't leave a WAL behind that SQLite would play into
the new file; connections are closed after the renaming, because SQLite checkpoints into, and deletes the WAL of, a file
that it closes last, but not when the file was moved. Within the process ``seq`` goes on rising over the change: the new
file begins above a ``floor`` that counts as trimmed, so no cursor held in memory ever points at the wrong event.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from agentstream.errors import JournalError
from agentstream.journal.reader import Reader
from agentstream.journal.schema import migrate
from agentstream.journal.trouble import Kind, explain, kind_of
from agentstream.journal.writer import Writer

T = TypeVar("T")

#: How long a lock of another program is waited for. Longer would hold up live events, which wait for the commit.
BUSY_SECONDS: Final = 0.5
#: Page cache of the writing connection and of each reading one, in KiB: the former holds the right edge of both b-trees.
_WRITER_CACHE_KIB: Final = 64 * 1024
_READER_CACHE_KIB: Final = 8 * 1024
#: Pages (4 KiB) of WAL at which a commit checkpoints by itself. Quiet moments normally come first (`SqliteJournal`).
_AUTOCHECKPOINT: Final = 8_000
#: The WAL file is cut down to this once it was written back, in bytes.
_WAL_LIMIT: Final = 64 * 1024 * 1024


class NotOpen(Exception):
    """The database that was meant is not open any more: it was set aside, and perhaps there is no new one yet."""


class Store:
    """One writing connection and a pool of reading ones.

    `write`, `probe`, `begin_anew` and `close` are for one thread at a time, whichever it is; `read` for any number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _lock(path)
        self._connection: sqlite3.Connection | None = None
        self._readers: list[Reader] = []
        self._inode = 0
        #: Counts databases: what was learnt of one must not be applied to the next.
        self.generation = 0
        self.epoch = ""
        self.writer: Writer
        #: Where damaged files were set aside since the start.
        self.set_aside: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Store:
        """Open or create a journal; a damaged one is set aside (`set_aside`).

        Raises `JournalError`: another process has it, it is another program's or of a newer version, or the disk refuses.
        """
        try:
            store = cls(Path(path))
            try:
                store._open()
            except BaseException:
                store.release()
                raise
        except JournalError as error:
            raise JournalError(f"{path}: {error.message}") from error
        except OSError as error:
            raise JournalError(f"{path}: the journal can't be opened: {error.strerror}") from error
        except sqlite3.Error as error:
            if kind_of(error) is Kind.BUG:
                raise
            raise JournalError(f"{path}: the journal can't be opened: {explain(error)}") from error
        return store

    def _open(self) -> None:
        try:
            self._connect(floor=0, floor_at=0)
        except sqlite3.DatabaseError as error:
            if kind_of(error) is not Kind.CORRUPT:
                raise
            self.begin_anew(floor=0, floor_at=0)

    def write(self, generation: int, work: Callable[[Writer], T]) -> T:
        """Do ``work`` on the writing connection. Raises `NotOpen` unless the database is still of that generation."""
        if self._connection is None or generation != self.generation:
            raise NotOpen
        return work(self.writer)

    def read(self, question: Callable[[Reader], T]) -> T:
        """Answer ``question`` on a reading connection that nobody else uses meanwhile."""
        reader = self._readers.pop() if self._readers else self._reader()
        try:
            answer = question(reader)
        except sqlite3.Error:
            reader.close()
            raise
        except BaseException:
            self._readers.append(reader)
            raise
        self._readers.append(reader)
        return answer

    def probe(self, floor: int, floor_at: int) -> None:
        """Whether the disk takes something; where there is no database any more, whether a new one can be made."""
        if self._connection is None:
            self._connect(floor, floor_at)
        self.writer.probe()

    def gone(self) -> bool:
        """Somebody moved or deleted the open database. SQLite doesn't notice by itself in WAL mode."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

    def begin_anew(self, floor: int, floor_at: int) -> None:
        """Set the files aside and begin new ones, with a new epoch, above ``floor``. Nobody may be reading."""
        self._move_aside()
        self.release(keep_lock=True)
        self._connect(floor, floor_at)

    def close(self, last_seq: int) -> None:
        """The orderly end. Numbers above ``last_seq`` were never given to anybody."""
        try:
            if self._connection is not None:
                self._close_readers()
                self.writer.seal(last_seq)
        finally:
            self.release()

    def release(self, *, keep_lock: bool = False) -> None:
        """Close what is open, without writing anything."""
        self._close_readers()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(sqlite3.Error):
                connection.close()
        if not keep_lock and self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _connect(self, floor: int, floor_at: int) -> None:
        connection = _connect(self._path)
        try:
            if connection.execute("PRAGMA page_count").fetchone() == (0,):
                # Possible only before the first table. Somebody else's file must not be touched.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            migrate(connection)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise JournalError(  # noqa: TRY301 - the connection must be closed
                    "this file system can't do write-ahead logging; choose a local directory"
                )
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_AUTOCHECKPOINT}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            # Debian's SQLite overwrites with zeros whatever is deleted; FAST does so where it costs no further I/O.
            connection.execute("PRAGMA secure_delete = FAST")
            self.epoch = _epoch(connection, floor, floor_at)
            self.writer = Writer(connection)
            self._inode = os.stat(self._path).st_ino
        except BaseException as error:
            if isinstance(error, sqlite3.Error) and kind_of(error) is Kind.CORRUPT:
                self._move_aside()  # Before it is closed: see above.
            connection.close()
            raise
        self._connection = connection
        self.generation += 1

    def _reader(self) -> Reader:
        if self._connection is None:
            raise NotOpen
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        connection.execute("PRAGMA query_only = ON")
        return Reader(connection)

    def _close_readers(self) -> None:
        while self._readers:
            with suppress(sqlite3.Error):
                self._readers.pop().close()

    def _move_aside(self) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = f"{self._path}.corrupt-{stamp}"
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")
                if not suffix:
                    self.set_aside += (aside,)


def _connect(path: Path) -> sqlite3.Connection:
    # SQLite gives -wal and -shm the mode of the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _lock(path: Path) -> int:
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise JournalError("another agentstream uses this journal; end it, or choose another data directory") from None
    except OSError:
        os.close(lock)
        raise
    return lock


def _epoch(connection: sqlite3.Connection, floor: int, floor_at: int) -> str:
    """The journal's epoch; in a new one, after filling ``meta``."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    if row is None:
        row = (secrets.token_hex(8),)
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('epoch', ?), ('reserved', ?), ('floor', ?), ('floor_at', ?),"
            " ('trimmed', ?), ('trimmed_at', ?)",
            (row[0], floor, floor, floor_at, floor, floor_at),
        )
    return str(row[0])
