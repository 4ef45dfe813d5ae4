"""A hostile workspace: it leads out, never ends, or has names that are no text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.house import Daemon, Subscriber


def submit(daemon: Daemon, path: str, prompt: str = "echo ran", **fields: Any) -> tuple[int, Any]:
    source = {"type": "local", "path": path}
    body = {"taskPrompt": prompt, "workspaceSource": source, "agentType": "command", **fields}
    return daemon.http("POST", "/api/v1/work-orders", body)


def run(daemon: Daemon, workspace: Path, prompt: str, order: str) -> Subscriber:
    """Run it to its end; what a subscriber saw."""
    with daemon.subscriber() as watcher:
        watcher.subscribe(order)
        assert submit(daemon, str(workspace), prompt, id=order)[0] == 201
        assert watcher.until_ended(order)["status"] == "succeeded"
        return watcher


def test_a_link_out_of_the_root_and_dots_lead_nowhere(daemon: Daemon, tmp_path: Path) -> None:
    (daemon.root / "out").symlink_to(tmp_path)
    (daemon.root / "loop").symlink_to("loop")
    inside = daemon.root.name
    for path in ("out", "out/below", "..", f"../{inside}/..", "../../../../../../etc", "out/../../.."):
        status, answer = submit(daemon, f"{daemon.root}/{path}")
        assert (status, answer["error"]["code"]) == (403, "FORBIDDEN"), path
    for path in ("/etc", "/", "/proc/self/root", "~", "etc"):
        assert submit(daemon, path)[0] in (400, 403), path
    for path in (f"{daemon.root}/loop", f"{daemon.root}/a\0b", f"{daemon.root}/{'x' * 5000}", ""):
        status, answer = submit(daemon, path)
        assert (status, answer["error"]["code"]) == (400, "INVALID_MESSAGE"), path
    # Whether something outside exists is not told.
    answers = [submit(daemon, path)[1]["error"]["message"] for path in ("/etc/passwd", "/etc/nothing")]
    assert answers[0].replace("passwd", "") == answers[1].replace("nothing", "")


def test_a_workspace_that_becomes_a_link_out_while_it_waits_is_not_used(daemon: Daemon, tmp_path: Path) -> None:
    moved = daemon.root / "moved"
    moved.mkdir()
    with daemon.subscriber() as watcher:
        watcher.subscribe("moved")
        # The first run swaps its own workspace for a link; a further one would work outside.
        swap = f"cd ..; rmdir moved; ln -s {tmp_path} moved"
        assert submit(daemon, str(moved), swap, id="moved")[0] == 201
        watcher.until_ended("moved")
        status, _ = daemon.http("POST", "/api/v1/work-orders/moved/runs", {"taskPrompt": "touch escaped"})
        assert status in (201, 202)
        assert watcher.until_ended("moved")["status"] == "failed"
        assert watcher.events("run_failed")[-1]["errorCode"] in ("FORBIDDEN", "WORKSPACE")
    assert not (tmp_path / "escaped").exists()


def test_a_fifo_holds_nobody_up(daemon: Daemon) -> None:
    workspace = daemon.root / "fifo"
    workspace.mkdir()
    os.mkfifo(workspace / "pipe")
    watcher = run(daemon, workspace, "mkfifo other; touch file", "fifo")
    assert "file" in [event["path"] for event in watcher.events("file_changed")]
    assert submit(daemon, str(workspace / "pipe"))[0] == 400


def test_links_in_the_workspace_are_not_followed(daemon: Daemon, tmp_path: Path) -> None:
    workspace = daemon.root / "links"
    workspace.mkdir()
    (tmp_path / "outside").mkdir()
    (workspace / "out").symlink_to(tmp_path / "outside")
    (workspace / "root").symlink_to("/")
    (workspace / "again").symlink_to(".")
    watcher = run(daemon, workspace, "touch out/hidden; touch file", "links")
    assert [event["path"] for event in watcher.events("file_changed")] == ["file"]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.txt", b"line\nbreak", b"\x1b[31mred", "\u202etxt.exe".encode(), b"a" * 255]
)
def test_names_that_are_no_plain_text(daemon: Daemon, name: bytes) -> None:
    workspace = daemon.root / f"names-{name.hex()[:20]}"
    workspace.mkdir()
    script = f"""python3 -c 'import os; open(bytes.fromhex("{name.hex()}"), "w").close()'"""
    watcher = run(daemon, workspace, script, workspace.name)
    [changed] = watcher.events("file_changed")
    assert changed["path"] == name.decode(errors="replace")
    assert changed["action"] == "created"


def test_a_hundred_thousand_files(daemon: Daemon) -> None:
    workspace = daemon.root / "many"
    for number in range(100):
        directory = workspace / str(number)
        directory.mkdir(parents=True)
        for other in range(1000):
            os.close(os.open(directory / str(other), os.O_CREAT | os.O_WRONLY))
    watcher = run(daemon, workspace, "touch 5/new 99/new; rm 50/500", "many")
    changed = {(event["path"], event["action"]) for event in watcher.events("file_changed")}
    # The watch is bounded at about that many files, and what is beyond is not told; nothing false is.
    assert ("50/500", "deleted") in changed
    assert changed <= {("5/new", "created"), ("99/new", "created"), ("50/500", "deleted")}
