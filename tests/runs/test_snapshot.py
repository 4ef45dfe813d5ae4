"""What changed follows from two states of a directory, whoever owns it and whatever is in it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentstream.runs.snapshot import Change, Snapshot


def scan_all(snapshot: Snapshot) -> list[Change]:
    directories = snapshot.directories()
    while directories:
        directories = snapshot.scan(directories).found
    return snapshot.take_changes()


def taken(root: Path, *, max_files: int = 1000, max_directories: int = 1000) -> Snapshot:
    snapshot = Snapshot(os.path.realpath(root), max_files=max_files, max_directories=max_directories)
    assert scan_all(snapshot) == []
    return snapshot


def created(path: str, size: int) -> Change:
    return Change(path, "created", size)


def modified(path: str, size: int) -> Change:
    return Change(path, "modified", size)


def deleted(path: str) -> Change:
    return Change(path, "deleted", None)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_is_there_at_the_beginning_is_given(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "a")
    write(tmp_path / "sub/deep/b.txt", "b")
    snapshot = taken(tmp_path)
    assert snapshot.directories() == ["", "sub", "sub/deep"]
    assert scan_all(snapshot) == []


def test_created_modified_deleted(tmp_path: Path) -> None:
    write(tmp_path / "edited", "before")
    write(tmp_path / "gone", "x")
    snapshot = taken(tmp_path)
    write(tmp_path / "edited", "after it")
    (tmp_path / "gone").unlink()
    write(tmp_path / "new/deep/file", "12345")
    assert scan_all(snapshot) == [deleted("gone"), modified("edited", 8), created("new/deep/file", 5)]
    assert scan_all(snapshot) == []


def test_a_file_that_came_and_went_is_nothing_and_one_that_was_replaced_is_modified(tmp_path: Path) -> None:
    write(tmp_path / "config", "old")
    snapshot = taken(tmp_path)
    write(tmp_path / "config.tmp", "new")
    (tmp_path / "config.tmp").rename(tmp_path / "config")
    assert scan_all(snapshot) == [modified("config", 3)]


def test_changes_that_were_not_taken_yet_are_summed_up(tmp_path: Path) -> None:
    write(tmp_path / "old", "1")
    snapshot = taken(tmp_path)
    write(tmp_path / "a", "1")
    write(tmp_path / "b", "1")
    (tmp_path / "old").unlink()
    snapshot.scan([""])
    write(tmp_path / "a", "22")
    (tmp_path / "b").unlink()
    write(tmp_path / "old", "again")
    snapshot.scan([""])
    assert snapshot.take_changes() == [created("a", 2), modified("old", 5)]


def test_renames_are_a_deletion_and_a_creation_also_of_directories(tmp_path: Path) -> None:
    write(tmp_path / "a", "1")
    write(tmp_path / "dir/x/y", "22")
    snapshot = taken(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "dir").rename(tmp_path / "moved")
    assert scan_all(snapshot) == [deleted("a"), deleted("dir/x/y"), created("b", 1), created("moved/x/y", 2)]
    assert snapshot.directories() == ["", "moved", "moved/x"]


def test_a_file_may_become_a_directory_and_back(tmp_path: Path) -> None:
    write(tmp_path / "x", "1")
    snapshot = taken(tmp_path)
    (tmp_path / "x").unlink()
    write(tmp_path / "x/y", "22")
    assert scan_all(snapshot) == [deleted("x"), created("x/y", 2)]
    shutil.rmtree(tmp_path / "x")
    write(tmp_path / "x", "1")
    assert scan_all(snapshot) == [deleted("x/y"), created("x", 1)]


def test_some_directories_are_never_looked_at(tmp_path: Path) -> None:
    for name in (".git", "node_modules", ".venv", "sub/__pycache__"):
        (tmp_path / name).mkdir(parents=True)
    snapshot = taken(tmp_path)
    for name in (".git", "node_modules", ".venv", "sub/__pycache__"):
        write(tmp_path / name / "file", "x")
    assert scan_all(snapshot) == []
    assert snapshot.directories() == ["", "sub"]


def test_what_is_excluded_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "data/deep").mkdir(parents=True)
    snapshot = Snapshot(os.path.realpath(tmp_path), exclude=[os.path.realpath(tmp_path / "data/deep")])
    scan_all(snapshot)
    write(tmp_path / "data/deep/journal", "x")
    write(tmp_path / "data/file", "x")
    assert scan_all(snapshot) == [created("data/file", 1)]


def test_gitignore_files_of_all_directories_count(tmp_path: Path) -> None:
    write(tmp_path / ".gitignore", "*.log\n/dist/\n")
    write(tmp_path / "sub/.gitignore", "!keep.log\n/local\n")
    (tmp_path / "dist").mkdir()
    snapshot = taken(tmp_path)
    for name in ("a.log", "dist/x", "sub/b.log", "sub/keep.log", "sub/local", "sub/deep/local", "sub/deep/c.log"):
        write(tmp_path / name, "x")
    assert scan_all(snapshot) == [created("sub/deep/local", 1), created("sub/keep.log", 1)]
    assert snapshot.directories() == ["", "sub", "sub/deep"]


def test_what_comes_into_view_or_goes_out_of_it_was_neither_created_nor_deleted(tmp_path: Path) -> None:
    write(tmp_path / ".gitignore", "hidden*\n")
    write(tmp_path / "hidden.txt", "x")
    write(tmp_path / "hidden/deep/x", "x")
    write(tmp_path / "seen/a.tmp", "x")
    write(tmp_path / "build/x", "x")
    snapshot = taken(tmp_path)
    write(tmp_path / ".gitignore", "*.tmp\nbuild\n")
    write(tmp_path / "seen/b.txt", "x")
    assert scan_all(snapshot) == [modified(".gitignore", 12), created("seen/b.txt", 1)]
    assert snapshot.directories() == ["", "hidden", "hidden/deep", "seen"]
    write(tmp_path / "hidden/deep/x", "changed")
    assert scan_all(snapshot) == [modified("hidden/deep/x", 7)]


@pytest.mark.parametrize("hostile", ["directory", "link", "fifo", "binary"])
def test_a_gitignore_that_is_none_is_not_waited_for(tmp_path: Path, hostile: str) -> None:
    path = tmp_path / ".gitignore"
    match hostile:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/dev/zero")
        case "fifo":
            os.mkfifo(path)
        case _:
            path.write_bytes(bytes(range(256)) * 1000)
    snapshot = taken(tmp_path)
    write(tmp_path / "file", "x")
    assert created("file", 1) in scan_all(snapshot)


def test_links_are_files_and_never_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    write(outside / "secret", "x")
    root.mkdir()
    snapshot = taken(root)
    (root / "directory").symlink_to(outside)
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to(".")
    changes = scan_all(snapshot)
    assert [(change.path, change.action) for change in changes] == [
        ("broken", "created"),
        ("directory", "created"),
        ("loop", "created"),
    ]
    assert snapshot.directories() == [""]


def test_a_directory_that_was_swapped_for_a_link_leads_nowhere(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    write(outside / "sub/secret", "x")
    write(root / "a/sub/file", "x")
    snapshot = taken(root)
    shutil.rmtree(root / "a")
    (root / "a").symlink_to(outside)
    snapshot.scan(["a", "a/sub"])
    assert snapshot.take_changes() == []
    assert [(change.path, change.action) for change in scan_all(snapshot)] == [
        ("a/sub/file", "deleted"),
        ("a", "created"),
    ]


def test_only_regular_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = taken(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        server.bind("socket")
        assert scan_all(snapshot) == []


def test_a_name_need_not_be_utf_8(tmp_path: Path) -> None:
    snapshot = taken(tmp_path)
    name = os.fsdecode(b"caf\xe9")
    write(tmp_path / name / name, "x")
    assert scan_all(snapshot) == [created(f"{name}/{name}", 1)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_can_not_be_read_for_a_while_stays_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "sub/file", "x")
    snapshot = taken(tmp_path)
    (tmp_path / "sub").chmod(0)
    assert scan_all(snapshot) == []
    (tmp_path / "sub").chmod(0o700)
    assert scan_all(snapshot) == []


def test_a_root_that_vanishes_takes_its_files_with_it_and_may_come_back(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "a", "x")
    write(root / "sub/b", "x")
    snapshot = taken(root)
    shutil.rmtree(root)
    assert scan_all(snapshot) == [deleted("a"), deleted("sub/b")]
    assert scan_all(snapshot) == []
    write(root / "sub/b", "xx")
    assert scan_all(snapshot) == [created("sub/b", 2)]


def test_a_root_that_never_was_is_empty(tmp_path: Path) -> None:
    assert scan_all(taken(tmp_path / "missing")) == []


def test_beyond_the_bound_on_files_it_goes_on_with_what_it_has(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / str(number), "x")
    snapshot = taken(tmp_path, max_files=6)
    for number in range(5, 20):
        write(tmp_path / str(number), "x")
    write(tmp_path / "0", "changed")
    changes = scan_all(snapshot)
    assert snapshot.too_large
    assert [change.action for change in changes].count("created") == 1
    assert modified("0", 7) in changes
    for number in range(20):
        (tmp_path / str(number)).unlink()
    changes = scan_all(snapshot)
    assert [change.action for change in changes] == ["deleted"] * 6


def test_where_something_was_left_out_nothing_is_taken_for_new(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / str(number), "x")
    snapshot = taken(tmp_path, max_files=5)
    assert snapshot.too_large
    for path in list(tmp_path.iterdir())[:5]:
        path.unlink()
    assert all(change.action == "deleted" for change in scan_all(snapshot))


def test_replacing_all_files_at_the_bound_is_not_too_large(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"old{number}", "x")
    snapshot = taken(tmp_path, max_files=5)
    for number in range(5):
        (tmp_path / f"old{number}").rename(tmp_path / f"new{number}")
    assert len(scan_all(snapshot)) == 10
    assert not snapshot.too_large


def test_directories_are_bounded_too(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"d{number}/file", "x")
    snapshot = taken(tmp_path, max_directories=4)
    assert snapshot.too_large
    assert len(snapshot.directories()) == 4
    deepest = tmp_path / "deep"
    for _ in range(50):
        deepest /= "x" * 100
        deepest.mkdir(parents=True, exist_ok=True)
        if len(str(deepest)) > 3000:
            break
    deep = taken(tmp_path / "deep")
    assert deep.too_large
    assert max(map(len, deep.directories())) < 1200


def test_an_interrupted_scan_keeps_what_it_saw(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    snapshot = taken(tmp_path)
    write(tmp_path / "a/x", "1")
    write(tmp_path / "b/x", "1")
    turns = iter([None, None])
    with pytest.raises(StopIteration):
        snapshot.scan(["", "a", "b"], lambda: next(turns))
    assert scan_all(snapshot) == [created("a/x", 1), created("b/x", 1)]


Step = Callable[[Path], None]
PATHS = ["a", "b", "d/a", "d/e/a", "f/a"]


def step(kind: str, path: str, other: str) -> Step:
    def carry_out(root: Path) -> None:
        target, source = root / path, root / other
        try:
            if kind == "write":
                write(target, other * 3)
            elif kind == "delete":
                target.unlink()
            elif kind == "remove":
                shutil.rmtree(target.parent if target.parent != root else root / "d")
            else:
                source.rename(target)
        except OSError:
            pass  # it is not there

    return carry_out


STEPS = st.builds(
    step, st.sampled_from(["write", "delete", "remove", "rename"]), st.sampled_from(PATHS), st.sampled_from(PATHS)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(STEPS, st.booleans()), max_size=25))
def test_the_changes_lead_from_one_state_to_the_other(tmp_path: Path, steps: list[tuple[Step, bool]]) -> None:
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    write(root / "a", "first")
    write(root / "d/e/a", "first")
    snapshot = taken(root)
    known = {"a": 5, "d/e/a": 5}

    def follow() -> None:
        for change in scan_all(snapshot):
            assert (change.path in known) == (change.action != "created")
            if change.size is None:
                del known[change.path]
            else:
                known[change.path] = change.size

    for carry_out, look in steps:
        carry_out(root)
        if look:
            follow()
    follow()
    assert known == {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}
