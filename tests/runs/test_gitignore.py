"""``.gitignore`` files are understood as git does, and none of them can hurt."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from agentstream.runs.gitignore import ignored, parse


def is_ignored(text: str, path: str) -> bool:
    """As a walk finds it: parents first, nothing in an ignored directory."""
    files = [parse("", text)]
    parts = path.split("/")
    parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    return any(ignored(files, parent, directory=True) for parent in parents) or ignored(files, path, directory=False)


LINES = [
    "*.log",
    "!keep.log",
    "/dist",
    "build/",
    "docs/*.txt",
    "a/**/z",
    "**/tmp",
    "out/**",
    "!out/kept",
    "# a comment",
    r"\#name",
    "trailing   ",
    "[Bb]in/",
    "?.o",
    "*.egg-info",
    "cache/*",
    "!cache/.gitkeep",
    "x*y*z",
]
PATHS = [
    "a.log", "keep.log", "sub/keep.log", "dist", "sub/dist", "dist/x", "build", "build/x", "sub/build/x", "docs/a.txt",
    "docs/sub/a.txt", "a/z", "a/b/z", "a/b/c/z", "b/z", "tmp", "q/tmp/x", "out/x", "out/kept", "out/sub/kept", "#name",
    "trailing", "bin/x", "Bin/x", "n.o", "nn.o", "p.egg-info/x", "cache/x", "cache/.gitkeep", "xyz", "xaybzcz", "xzy",
    "plain.py",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge here")
@pytest.mark.parametrize("lines", [LINES, LINES[::-1], LINES[:9], ["*", "!*.py"], ["/*", "!/docs/", "*.txt"]])
def test_the_verdict_is_that_of_git(tmp_path: Path, lines: list[str]) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    text = "\r\n".join(lines)
    (tmp_path / ".gitignore").write_bytes(text.encode())
    answer = subprocess.run(
        ["git", "-C", tmp_path, "-c", "core.excludesFile=", "check-ignore", "--no-index", "--stdin"],
        input="\n".join(PATHS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode in (0, 1), answer.stderr
    assert [path for path in PATHS if is_ignored(text, path)] == answer.stdout.splitlines()


def test_an_inner_file_overrules_the_outer_one() -> None:
    outer = parse("", "*.log\n/sub/x")
    inner = parse("sub/", "!keep.log\n/y")
    files = [outer, inner]
    assert not ignored(files, "sub/keep.log", directory=False)
    assert ignored(files, "sub/other.log", directory=False)
    assert ignored(files, "sub/x", directory=False)
    assert ignored(files, "sub/y", directory=False)
    assert not ignored(files, "sub/sub/y", directory=False)
    assert not ignored([outer], "y", directory=False)


@pytest.mark.parametrize("line", ["!", "\\", "[z-a]", "[", "***", "\0", "a[", "/", "//", "!!", "\ud800\udcff"])
def test_a_line_that_is_no_pattern_does_no_harm_to_the_others(line: str) -> None:
    assert is_ignored(f"{line}\n*.log", "a.log")


@pytest.mark.parametrize(
    "text",
    [
        "*a" * 30 + "b",
        "*?" * 30 + "b",
        "*[a-z]" * 30 + "b",
        "*[]a]" * 30 + "b",
        "**/a" * 8 + "/b",
        "\n".join(f"**/a/**/b{number}" for number in range(2000)),
        "\n".join(f"*a*a*b{number}" for number in range(50_000)),
        "*" * 10_000,
    ],
)
def test_a_hostile_file_is_answered_all_the_same(text: str) -> None:
    assert not is_ignored(text, "a/" * 100 + "a" * 255 + "c") or text.startswith("*" * 99)


def test_patterns_beyond_the_budget_are_not_honoured() -> None:
    file = parse("", "a\n# comment\n\nb\nc", budget=2)
    assert file.cost == 2
    assert [ignored([file], name, directory=False) for name in "abc"] == [True, True, False]


@pytest.mark.filterwarnings("ignore:Possible (nested )?set:FutureWarning")
@given(pattern=st.text("ab*?[]!-\\", min_size=1, max_size=10), name=st.text("abc", min_size=1, max_size=8))
def test_taking_the_first_place_that_fits_changes_no_verdict(pattern: str, name: str) -> None:
    try:
        expected = GitIgnoreSpec.from_lines([pattern]).match_file(name)
    except (ValueError, re.error):
        expected = False
    assert is_ignored(pattern, name) == expected
