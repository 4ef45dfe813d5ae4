"""What the ``.gitignore`` files of a workspace say, also when somebody hostile wrote them. Pure.

pathspec turns each pattern into a regular expression; this module joins them, so that a path is matched against a whole file in
one or two calls, and bounds what a match can cost: it holds the interpreter's lock, also in a worker thread, and
``*a*a*a*a*b`` would be tried in every way for seconds. Here every star of a path component but the last one takes the first place
that fits, which is as good as any other place for a glob; and there is a budget.

Directories are asked about before what is in them, and nothing is asked of what is in an ignored one. So the last pattern that
matches decides, as in gitignore(5).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final

import attrs
from pathspec import GitIgnoreSpec

#: Bytes of a file that are worth reading: GitHub's longest template has 8 KiB.
MAX_FILE_BYTES: Final = 64 * 1024
#: Patterns that are honoured for one path, in all the files that apply to it; a whole template has up to 400.
PATH_BUDGET: Final = 1000
#: What a pattern with two ``**`` counts: its cost grows with the square of the path's length. One with three is not honoured.
_DEEP_COST: Final = 200
#: Characters of a line; what is longer can't name a file anyway, but would take long to compile.
_MAX_LINE: Final = 1024

_STAR: Final = r"\[\^/\]\*"
_TOKEN: Final = r"(?:\[\^/\](?!\*)|\\.|\[(?:\\.|[^\]\\/])+\]|[^/\\()\[\]*+?.$^|])"
_STAR_BEFORE_STAR: Final = re.compile(f"{_STAR}({_TOKEN}*)(?={_STAR})")
_GREEDY_STAR: Final = re.compile(rf"{_STAR}(?!\?)")
_ANYWHERE: Final = "^(?:.+/)?"
#: The slashes in an expression that stand for no separator, or for the one after a directory's name.
_NO_SEPARATOR: Final = re.compile(r"\[\^/\]|\(\?:\(\?:/\)\|\$\)$|\(\?:/\)$")
_GROUP_NAME: Final = re.compile(r"\(\?P<\w+>")


@attrs.frozen(eq=False)
class _Group:
    """Neighbouring patterns of one file that do the same. Those for a name in any directory need not look at the path."""

    ignores: bool
    names: re.Pattern[str] | None
    paths: re.Pattern[str] | None

    def matches(self, name: str, path: str) -> bool:
        return bool((self.names and self.names.match(name)) or (self.paths and self.paths.match(path)))


@attrs.frozen(eq=False)
class IgnoreFile:
    """One ``.gitignore`` file, in the directory ``base`` (relative to the workspace, ``""`` or ending in ``/``)."""

    base: str
    #: The last ones of the file first.
    groups: tuple[_Group, ...]
    #: Its part of the budget.
    cost: int


def parse(base: str, text: str, budget: int = PATH_BUDGET) -> IgnoreFile:
    """Read a file. Lines that are no patterns, that cost too much, or come when the budget is spent, are skipped."""
    spent = 0
    patterns: list[tuple[bool, str]] = []
    for line in text.split("\n"):
        pattern = _compile(line.removesuffix("\r"))
        if pattern is None:
            continue
        cost = _DEEP_COST if pattern[1].count(".+") > 1 else 1
        if spent + cost > budget:
            break
        spent += cost
        patterns.append(pattern)
    groups = [
        _group(ignores, [regex for _, regex in group])
        for ignores, group in itertools.groupby(reversed(patterns), key=lambda pattern: pattern[0])
    ]
    return IgnoreFile(base, tuple(groups), spent)


def ignored(files: Sequence[IgnoreFile], path: str, *, directory: bool) -> bool:
    """Whether ``files``, outermost first, ignore ``path`` (relative to the workspace), none of whose parents they ignore."""
    if directory:
        path += "/"
    name = path[path.rfind("/", 0, -1) + 1 :]
    for file in reversed(files):
        relative = path[len(file.base) :]
        for group in file.groups:
            if group.matches(name, relative):
                return group.ignores
    return False


def _group(ignores: bool, regexes: Sequence[str]) -> _Group:
    names, paths = [], []
    for regex in regexes:
        name = regex.removeprefix(_ANYWHERE)
        if name != regex and "/" not in _NO_SEPARATOR.sub("", name):
            names.append("^" + name)
        else:
            paths.append(regex)
    return _Group(ignores, _any_of(names), _any_of(paths))


def _any_of(regexes: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(regexes)) if regexes else None


def _compile(line: str) -> tuple[bool, str] | None:
    if len(line) > _MAX_LINE:
        return None
    try:
        (pattern,) = GitIgnoreSpec.from_lines([line]).patterns
        if pattern.include is None or pattern.regex is None:
            return None
    except (ValueError, re.error, FutureWarning):
        return (
            None  # git skips such lines too; what Python will once read otherwise is a warning, an error with -W error
        )
    regex = _GROUP_NAME.sub("(?:", pattern.regex.pattern)
    # The group is atomic: once something fitted, no other place is tried.
    regex = _STAR_BEFORE_STAR.sub(r"(?>[^/]*?\1)", regex)
    if regex.endswith("/"):
        regex += "."  # "a/**" is what is in the directory, not the directory itself
    if regex.count(".+") > 2 or len(_GREEDY_STAR.findall(regex)) > line.count("/") + 1:
        return None
    return bool(pattern.include), regex
