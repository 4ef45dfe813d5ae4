"""The documentation says what the code does: generated pages are current, nothing is left out, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import agentstream
from agentstream.agents.endings import ERROR_CODES
from agentstream.agents.registry import ADAPTERS
from agentstream.cli import main
from agentstream.model.events import EVENT_CLASSES
from agentstream.model.messages import CLIENT_MESSAGES, SERVER_MESSAGES
from agentstream.model.wire import type_of
from agentstream.reference import pages
from agentstream.settings import show

ROOT = Path(agentstream.__file__).parent.parent
DOCS = ROOT / "docs"
PROSE = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("name", list(pages()))
def test_generated_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run `make docs` and commit what it writes"


@pytest.mark.parametrize("cls", [*EVENT_CLASSES, *CLIENT_MESSAGES, *SERVER_MESSAGES], ids=type_of)
def test_every_event_and_message_is_in_the_protocol(cls: type) -> None:
    assert f"`{type_of(cls)}`" in (DOCS / "protocol.md").read_text()


def test_every_error_code_is_documented_and_every_code_in_the_source_is_in_the_table() -> None:
    text = (DOCS / "errors.md").read_text()
    assert all(f"`{row.code}`" in text for row in ERROR_CODES)
    known = {row.code for row in ERROR_CODES}
    used: set[str] = set()
    for path in (ROOT / "agentstream" / "runs").glob("*.py"):
        source = path.read_text()
        used |= set(re.findall(r'(?:_error\(|failure\(|error_code=|code=)\s*"([A-Z][A-Z_]+)"', source))
    assert used <= known


def test_every_setting_is_documented() -> None:
    from agentstream import config

    text = (DOCS / "reference" / "configuration.md").read_text()
    for item in show(config.load({}, environ={"HOME": "/nonexistent"})):
        assert f"`{item.name.rpartition('.')[2]}`" in text


CONTEXT = click.Context(main)


def commands(group: click.Group, path: str) -> list[str]:
    found: list[str] = []
    for name in group.list_commands(CONTEXT):
        command = group.get_command(CONTEXT, name)
        found.append(f"{path} {name}")
        if isinstance(command, click.Group):
            found += commands(command, f"{path} {name}")
    return found


@pytest.mark.parametrize("name", commands(main, "agentstream"))
def test_every_command_is_documented(name: str) -> None:
    assert f"## `{name}`" in (DOCS / "reference" / "command-line.md").read_text()


@pytest.mark.parametrize("agent_type", ADAPTERS)
def test_every_agent_type_is_named(agent_type: str) -> None:
    assert any(f"`{agent_type}`" in path.read_text() for path in PROSE)


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_page_is_reachable_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                todo.append(page.parent / target)
    assert {path.resolve() for path in PROSE} <= seen


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_command_lines_in_the_docs_name_commands_and_options_that_exist(path: Path) -> None:
    for line in re.findall(r"^\$ (?:sudo )?agentstream (.*)$", path.read_text(), flags=re.MULTILINE):
        words = line.split("#")[0].split()
        command: click.Command = main
        while words and isinstance(command, click.Group) and (named := command.get_command(CONTEXT, words[0])):
            command = named
            words.pop(0)
        assert command is not main, f"agentstream {line}"
        # What stands in for a value is no option of ours.
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}, line
