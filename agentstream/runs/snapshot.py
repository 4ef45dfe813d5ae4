"""What is in a workspace, and what has changed since it was last looked at.

A snapshot is the truth about the workspace: for each directory that counts its files with time, size and inode. `Snapshot.scan`
lists directories again, one by one, and notes the differences. So what a change *was* follows from two states, never from the
order in which events about it came: a file that came and went in between is nothing, one that was replaced by a rename is
modified, a rename is a deletion and a creation.

Nothing in here trusts the workspace, whose owner may be hostile, and is busy while we look:

- Only `lstat` is asked of files; nothing is opened but directories and regular ``.gitignore`` files. Symbolic links are files.
  Sockets, FIFOs and devices are nothing.
- A directory is listed only if it really is where it is said to be: the kernel tells the path of the opened directory. So a
  directory that was swapped for a symbolic link leads nowhere.
- At most so many files and directories are kept. Where something was left out, nothing is added any more, since it could not be
  told whether it is new.

A file whose being ignored changed is neither created nor deleted: it comes into view, or goes out of it.

Blocks; meant for a worker thread. One call at a time.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

import attrs

from agentstream.model.events import FileAction
from agentstream.runs import gitignore
from agentstream.runs.gitignore import IgnoreFile

_T = TypeVar("_T")

#: Never looked at, wherever they are.
ALWAYS_IGNORED: Final = frozenset({".git", "node_modules", ".venv", "__pycache__"})
#: About 25 MB, and 1 s for a look at all of them.
MAX_FILES: Final = 100_000
#: Each costs an inotify watch, of which a user has 65,536 or more.
MAX_DIRECTORIES: Final = 10_000
#: Bytes of a path below the workspace. Deeper directories are left out: agents make no such paths, and patterns cost more on them.
_MAX_PATH: Final = 1024
#: ``.gitignore`` patterns of all directories together. They take 0.3 ms each to compile.
_MAX_PATTERNS: Final = 10_000


class _Stamp(NamedTuple):
    mtime_ns: int
    size: int
    inode: int


@attrs.frozen
class Change:
    """One difference. ``path`` is relative to the root; ``size`` in bytes, None when the file is gone."""

    path: str
    action: FileAction
    size: int | None


@attrs.frozen
class Scan:
    """What a scan found out about directories: those that are new or must be looked at again, and those that are gone."""

    found: list[str]
    gone: list[str]


@attrs.define
class _Directory:
    #: The first listing takes what is there as given.
    baseline: bool
    files: dict[str, _Stamp] = attrs.field(factory=dict)
    #: Names.
    directories: set[str] = attrs.field(factory=set)
    #: Something was left out.
    partial: bool = False
    #: None until the first listing; then the ignore files of all parents, and with its own one.
    inherited: tuple[IgnoreFile, ...] | None = None
    rules: tuple[IgnoreFile, ...] = ()
    own: IgnoreFile | None = None
    own_stamp: _Stamp | None = None


@attrs.define
class _Seen:
    """What a listing showed of one directory, as far as it is looked at."""

    files: dict[str, _Stamp] = attrs.field(factory=dict)
    directories: set[str] = attrs.field(factory=set)
    #: Known names that are still there, but ignored.
    ignored: set[str] = attrs.field(factory=set)


class Snapshot:
    """The state of the directory ``root``, an absolute path without symbolic links. ``exclude``: absolute paths to leave out."""

    def __init__(
        self,
        root: str,
        *,
        exclude: Iterable[str] = (),
        max_files: int = MAX_FILES,
        max_directories: int = MAX_DIRECTORIES,
    ) -> None:
        self.root = root
        self._excluded = frozenset(os.path.relpath(path, root) for path in exclude)
        self._max_files = max_files
        self._max_directories = max_directories
        self._directories = {"": _Directory(baseline=True)}
        self._files = 0
        self._patterns = 0
        self._too_large = False
        # Path -> how it was when its first change was noted, and how it is now.
        self._noted: dict[str, tuple[_Stamp | None, _Stamp | None]] = {}

    @property
    def too_large(self) -> bool:
        """Something was left out, at some time."""
        return self._too_large

    def directories(self) -> list[str]:
        """All directories that are looked at, relative to the root, which is ``""``; parents first."""
        return sorted(self._directories)

    def absolute(self, directory: str) -> str:
        """The absolute path of a directory."""
        return os.path.join(self.root, directory) if directory else self.root

    def scan(self, directories: Iterable[str], interrupt: Callable[[], object] = lambda: None) -> Scan:
        """List these directories again, without those below them. The caller passes what was found to the next scan.

        ``interrupt`` is called before each directory and may raise. What was seen before is kept.
        """
        scan = Scan([], [])
        for directory in sorted(directories):
            interrupt()
            record = self._directories.get(directory)
            if record is not None:
                self._scan(directory, record, scan)
        return scan

    def take_changes(self) -> list[Change]:
        """The differences since the last call: deletions first, then by path."""
        noted, self._noted = self._noted, {}
        changes = []
        for path, (before, after) in noted.items():
            if after is None:
                if before is not None:
                    changes.append(Change(path, "deleted", None))
            elif before != after:
                changes.append(Change(path, "created" if before is None else "modified", after.size))
        return sorted(changes, key=lambda change: (change.action != "deleted", change.path))

    def _scan(self, directory: str, record: _Directory, scan: Scan) -> None:
        first = record.inherited is None
        old_rules = record.rules
        try:
            with self._opened(directory) as fd:
                self._read_rules(directory, record, fd)
                changed = not first and record.rules is not old_rules
                seen = self._list(directory, record, fd, trusted=not first and not changed)
        except (FileNotFoundError, NotADirectoryError):
            # The parent's listing tells that it is gone. Only the root has no parent.
            if not directory:
                seen, changed = _Seen(), False
            else:
                return
        except OSError:
            return  # unreadable for now: what was known of it stays
        prefix = directory + "/" if directory else ""

        def came_into_view(name: str, *, directory: bool) -> bool:
            return record.baseline or (changed and gitignore.ignored(old_rules, prefix + name, directory=directory))

        for name, stamp in seen.files.items():
            before = record.files.get(name)
            if before != stamp and not (before is None and came_into_view(name, directory=False)):
                self._note(prefix + name, before, stamp)
        for name in record.files.keys() - seen.files.keys() - seen.ignored:
            self._note(prefix + name, record.files[name], None)
        for name in record.directories - seen.directories:
            self._forget(prefix + name, scan, silent=name in seen.ignored)
        for name in seen.directories - record.directories:
            self._directories[prefix + name] = _Directory(baseline=came_into_view(name, directory=True))
        again = seen.directories if changed else seen.directories - record.directories
        scan.found.extend(prefix + name for name in again)
        self._files += len(seen.files) - len(record.files)
        record.files = seen.files
        record.directories = seen.directories
        record.baseline = False

    @contextlib.contextmanager
    def _opened(self, directory: str) -> Iterator[int]:
        path = self.absolute(directory)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.readlink(f"/proc/self/fd/{fd}") != path:
                raise FileNotFoundError(path)
            yield fd
        finally:
            os.close(fd)

    def _read_rules(self, directory: str, record: _Directory, fd: int) -> None:
        inherited = self._directories[os.path.dirname(directory)].rules if directory else ()
        try:
            status = os.stat(".gitignore", dir_fd=fd, follow_symlinks=False)
            stamp = _stamp(status) if stat.S_ISREG(status.st_mode) else None
        except OSError:
            stamp = None
        if record.inherited is inherited and record.own_stamp == stamp:
            return
        if record.own_stamp != stamp:
            self._patterns -= record.own.cost if record.own else 0
            record.own = self._read_ignore_file(directory, inherited, fd) if stamp else None
            self._patterns += record.own.cost if record.own else 0
        record.inherited = inherited
        record.own_stamp = stamp
        record.rules = (*inherited, record.own) if record.own else inherited

    def _read_ignore_file(self, directory: str, inherited: tuple[IgnoreFile, ...], fd: int) -> IgnoreFile | None:
        budget = min(gitignore.PATH_BUDGET - sum(file.cost for file in inherited), _MAX_PATTERNS - self._patterns)
        try:
            # It may have been swapped for something else a moment ago: neither follow it nor wait for it.
            file = os.open(".gitignore", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    return None
                data = os.read(file, gitignore.MAX_FILE_BYTES)
            finally:
                os.close(file)
        except OSError:
            return None
        return gitignore.parse(directory + "/" if directory else "", os.fsdecode(data), budget)

    def _list(self, directory: str, record: _Directory, fd: int, *, trusted: bool) -> _Seen:
        """``trusted``: what is known was visible by the same rules, so that they need not be asked again."""
        seen = _Seen()
        files: list[os.DirEntry[str]] = []
        new_files: list[os.DirEntry[str]] = []
        new_directories: list[str] = []
        prefix = directory + "/" if directory else ""
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if name in ALWAYS_IGNORED or not (
                    is_directory or entry.is_file(follow_symlinks=False) or entry.is_symlink()
                ):
                    continue
                known = name in (record.directories if is_directory else record.files)
                if not (known and trusted) and self._is_ignored(record, prefix + name, directory=is_directory):
                    if name in record.files or name in record.directories:
                        seen.ignored.add(name)
                elif known and is_directory:
                    seen.directories.add(name)
                elif known:
                    files.append(entry)
                elif is_directory and len(new_directories) <= self._max_directories:
                    new_directories.append(name)
                elif not is_directory and len(new_files) <= self._max_files:
                    new_files.append(entry)
            # What is gone from here makes room for what is new here.
            others = self._files - len(record.files)
            partial = record.partial or len(prefix) > _MAX_PATH
            files += self._admitted(record, new_files, self._max_files - others - len(files), partial=partial)
            room = self._max_directories - len(self._directories)
            seen.directories.update(self._admitted(record, new_directories, room, partial=partial))
            for entry in files:
                with contextlib.suppress(OSError):  # gone in the meantime
                    seen.files[entry.name] = _stamp(entry.stat(follow_symlinks=False))
        return seen

    def _is_ignored(self, record: _Directory, path: str, *, directory: bool) -> bool:
        return path in self._excluded or gitignore.ignored(record.rules, path, directory=directory)

    def _admitted(self, record: _Directory, new: list[_T], room: int, *, partial: bool) -> list[_T]:
        admitted = [] if partial else new[: max(room, 0)]
        if len(admitted) < len(new):
            record.partial = True
            self._too_large = True
        return admitted

    def _forget(self, directory: str, scan: Scan, *, silent: bool) -> None:
        # No recursion: directories may be nested deeper than Python's stack.
        pending = [directory]
        while pending:
            path = pending.pop()
            record = self._directories.pop(path)
            scan.gone.append(path)
            self._files -= len(record.files)
            self._patterns -= record.own.cost if record.own else 0
            if not silent:
                for name, stamp in record.files.items():
                    self._note(f"{path}/{name}", stamp, None)
            pending += [f"{path}/{name}" for name in record.directories]

    def _note(self, path: str, before: _Stamp | None, after: _Stamp | None) -> None:
        first = self._noted.get(path)
        self._noted[path] = (before if first is None else first[0], after)


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_mtime_ns, status.st_size, status.st_ino)
