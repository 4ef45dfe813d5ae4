"""What an error of SQLite means for the journal. Pure.

Three kinds: trouble with the disk, which may pass and is waited out while events go on without being journalled; a
corrupt file, which never heals and is set aside; and everything else, which is a bug of ours and must not be hidden.
Codes: https://www.sqlite.org/rescode.html. The low byte is the primary code.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Final


class Kind(enum.Enum):
    """What is to be done about an error."""

    DISK = "disk"
    CORRUPT = "corrupt"
    BUG = "bug"


_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

#: Primary code -> what is wrong, and what to do.
_DISK: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_IOERR: "the disk reports an error; look at the kernel's log",
    sqlite3.SQLITE_READONLY: "the file can't be written; check its owner, its mode and how the disk is mounted",
    sqlite3.SQLITE_PERM: "the file can't be written; check its owner and mode",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened; check the data directory",
    sqlite3.SQLITE_BUSY: "another program holds a lock on the file; end it",
    sqlite3.SQLITE_LOCKED: "another program holds a lock on the file; end it",
    sqlite3.SQLITE_PROTOCOL: "another program holds a lock on the file; end it",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}


def kind_of(error: sqlite3.Error) -> Kind:
    """Which of the three it is. An error without a code was raised by Python's module about how it is used: a bug."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return Kind.BUG
    primary = code & 0xFF
    return Kind.CORRUPT if primary in _CORRUPT else Kind.DISK if primary in _DISK else Kind.BUG


def explain(error: sqlite3.Error) -> str:
    """One sentence for people: what is wrong, what to do, and SQLite's own name for it."""
    primary = error.sqlite_errorcode & 0xFF
    meaning = "the file is damaged" if primary in _CORRUPT else _DISK.get(primary, str(error))
    return f"{meaning} ({error.sqlite_errorname})"


def probe_delays(first: float, longest: float) -> Iterator[float]:
    """Seconds between looks whether the disk is well again: doubling from ``first`` to ``longest``."""
    delay = first
    while True:
        yield delay
        delay = min(delay * 2, longest)
