"""Which directory a run works in: below one of the workspace roots, symbolic links resolved; or a fresh one of our own.

The check is made when a work order is submitted, and again before each of its runs: what was a directory then may be a symbolic
link out of the roots now. All functions are blocking; call them in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from agentstream.errors import Forbidden, InvalidMessage
from agentstream.model.orders import WorkspaceSource


def resolve(source: WorkspaceSource, *, roots: Sequence[Path], fresh: Path) -> str:
    """The absolute path of a workspace. A ``fresh`` one is made at ``fresh``.

    Raises `InvalidMessage` when a local one is not named, does not exist, or is no directory, and `Forbidden` when it is not
    below a root.
    """
    if source.type == "fresh":
        fresh.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(fresh)
    if not source.path:
        raise InvalidMessage(
            "workspaceSource.path: expected the path of a directory, it is missing",
            details={"field": "workspaceSource.path"},
        )
    if "\0" in source.path:
        raise InvalidMessage("workspaceSource.path: expected a path, got one with a NUL byte")
    try:
        path = Path(source.path).expanduser().resolve()
        inside = any(path.is_relative_to(root.resolve()) for root in roots)
        usable = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidMessage(f"workspaceSource.path: {source.path} can't be resolved: {error}") from error
    # Checked first: whether something outside the roots exists is nobody's business.
    if not inside:
        names = ", ".join(map(str, roots))
        raise Forbidden(
            f"the workspace {source.path} is not below a workspace root ({names}); serve it with --workspace-root"
        )
    if not usable:
        raise InvalidMessage(
            f"workspaceSource.path: the workspace {source.path} does not exist or is no directory; create it first",
            details={"field": "workspaceSource.path"},
        )
    return str(path)


def check_again(workspace: str, *, roots: Sequence[Path], fresh: Path) -> None:
    """Raise `Forbidden` when a workspace has come to lie outside the roots since it was resolved."""
    real = Path(os.path.realpath(workspace))
    if not any(real.is_relative_to(root.resolve()) for root in (*roots, fresh)):
        raise Forbidden(f"the workspace {workspace} is not below a workspace root any more")
