"""Imports point one way (docs/architecture.md), and what must stay outside a layer does."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentstream

PACKAGE = Path(agentstream.__file__).parent

#: Layers from the bottom to the top. A module may import from its own layer and those below it.
LAYERS = [
    ["errors", "settings", "config", "redaction", "logs"],
    ["model"],
    ["agents"],
    ["runs", "journal", "broadcast"],
    ["orchestration"],
    ["server", "client"],
    ["daemon", "assembly", "entrances", "reload", "traces", "systemd", "systemd_unit", "collector"],
    ["cli", "__main__", "reference"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
#: Run by their file path or as programs of their own; nobody imports them and they import nothing of ours.
PROGRAMS = {"runs/supervisor.py", "agents/demo_program.py"}

MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(module: str) -> str:
    """``agentstream.runs.executor`` -> ``runs``."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path, *, at_run_time: bool = False) -> Iterator[str]:
    """Every module that is imported anywhere in a file, also inside functions; what is only for types can be left out."""
    tree = ast.parse(path.read_text())
    ignored: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and at_run_time:
            ignored.update(inner for child in node.body for inner in ast.walk(child))
        if node in ignored:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "agentstream")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_one_way(module: Path) -> None:
    own = module.parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} has no layer; give it one here and in docs/architecture.md"
    above = [
        name
        for name in imports(PACKAGE / module, at_run_time=True)
        if name.startswith("agentstream.") and LEVEL.get(room(name), -1) > LEVEL[own]
    ]
    assert above == [], f"{module} imports from a layer above its own"


@pytest.mark.parametrize("module", [path for path in MODULES if path.parts[0] in ("agents", "model")], ids=str)
def test_the_pure_layers_know_no_trio_and_no_clock(module: Path) -> None:
    if str(module) in PROGRAMS:
        return
    foreign = {"trio", "time", "socket", "subprocess", "threading", "sqlite3", "anyio"}
    assert not {name.partition(".")[0] for name in imports(PACKAGE / module)} & foreign


def test_trio_websocket_is_behind_one_file_on_each_side() -> None:
    users = {
        str(module)
        for module in MODULES
        if any(name.partition(".")[0] in ("trio_websocket", "wsproto") for name in imports(PACKAGE / module))
    }
    assert len([user for user in users if user.startswith("server/")]) <= 1
    assert len([user for user in users if user.startswith("client")]) <= 1
    assert all(user.startswith(("server/", "client")) for user in users)


def test_only_config_reads_the_environment() -> None:
    readers = {
        str(module)
        for module in MODULES
        if str(module) not in PROGRAMS and "os.environ" in ast.unparse(ast.parse((PACKAGE / module).read_text()))
    }
    assert readers <= {"config.py"}


def test_there_is_one_converter() -> None:
    makers = {str(module) for module in MODULES if any(n.startswith("cattrs") for n in imports(PACKAGE / module))}
    assert makers == {"model/wire.py"}


@pytest.mark.parametrize("name", agentstream.__all__)
def test_public_names_are_importable(name: str) -> None:
    assert getattr(agentstream, name) is not None


def test_the_package_has_no_cycle_at_import() -> None:
    for module in MODULES:
        if str(module) not in PROGRAMS and module.name != "__main__.py":
            importlib.import_module("agentstream." + ".".join(module.with_suffix("").parts).removesuffix(".__init__"))
