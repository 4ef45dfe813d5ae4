"""The recordings of real programs, and what they are expected to become.

``tests/recordings/CLI/CASE.events.json`` lists the events, the summary and the outcome of a recording as they were reviewed.
After a change of a parser, ``AGENTSTREAM_UPDATE_EXPECTATIONS=1`` in the environment of pytest writes them anew; read the difference
before you commit it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs

from agentstream.agents.base import Adapter, Exit, Moment, Parser, RunRequest
from agentstream.model import wire
from agentstream.model.events import Event

RECORDINGS: Final = Path(__file__).parent.parent / "recordings"
START: Final = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
#: The same in every event of a recording, or volatile.
_LEFT_OUT: Final = ("workOrderId", "runId", "timestamp")
#: Lists of an installation's tools are long and say nothing.
_LONG: Final = 8


def moment(index: int) -> Moment:
    """A quarter of a second passes from line to line."""
    return Moment(START + timedelta(seconds=index / 4), 100.0 + index / 4)


def request(**changes: Any) -> RunRequest:
    """A request; only what matters to the test is given."""
    return RunRequest(**{"prompt": "do it", "cwd": "/workspace", "work_order_id": "w", "run_id": "r", **changes})


@attrs.frozen
class Recording:
    """What a real program printed in one run, and how it ended."""

    cli: str
    case: str

    @property
    def meta(self) -> dict[str, Any]:
        """The recorder's notes."""
        loaded: dict[str, Any] = json.loads((RECORDINGS / self.cli / f"{self.case}.meta.json").read_text())
        return loaded

    @property
    def lines(self) -> list[bytes]:
        """stdout, split as the framing does."""
        return (RECORDINGS / self.cli / f"{self.case}.jsonl").read_bytes().split(b"\n")[:-1]

    @property
    def exit(self) -> Exit:
        """How the process ended; the recorder notes a signal as a negative code, or by its name."""
        meta = self.meta
        return Exit(code=meta["exit_code"], signal=meta["signal"])

    @property
    def expectation(self) -> Path:
        """The reviewed file."""
        return RECORDINGS / self.cli / f"{self.case}.events.json"


def recordings(cli: str) -> list[Recording]:
    """All recordings of one program."""
    return [Recording(cli, path.stem) for path in sorted((RECORDINGS / cli).glob("*.jsonl"))]


def play(parser: Parser, lines: list[bytes]) -> list[Event]:
    """Everything that a parser makes of a run."""
    events = [event for index, line in enumerate(lines) for event in parser.parse(line, moment(index))]
    return [*events, *parser.close(moment(len(lines)))]


def observed(adapter: Adapter, recording: Recording) -> dict[str, Any]:
    """What the adapter makes of a recording, as it is written to the expectation."""
    parser = adapter.parser(request())
    events = play(parser, recording.lines)
    outcome = adapter.outcome(parser.summary, recording.exit, recording.meta["stderr"])
    return {
        "outcome": _plain(wire.to_dict(outcome)),
        "summary": _plain(wire.to_dict(parser.summary)),
        "events": [_short(wire.to_dict(event)) for event in events],
    }


def check(adapter: Adapter, recording: Recording) -> None:
    """Compare with the expectation, or write it."""
    found = observed(adapter, recording)
    if os.environ.get("AGENTSTREAM_UPDATE_EXPECTATIONS"):
        recording.expectation.write_text("".join(_written(found)))
    expected = json.loads(recording.expectation.read_text())
    assert found["events"] == expected["events"]
    assert found == expected


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in json.loads(json.dumps(value)).items() if item is not None}


def _short(event: dict[str, Any]) -> dict[str, Any]:
    tools = event.get("tools")
    if tools is not None and len(tools) > _LONG:
        event["tools"] = [*tools[:2], f"and {len(tools) - 2} more"]
    return {key: item for key, item in event.items() if key not in _LEFT_OUT}


def _written(found: dict[str, Any]) -> Iterator[str]:
    """JSON with one event a line: a reviewer reads it from top to bottom."""
    yield "{\n"
    for key in ("outcome", "summary"):
        yield f'"{key}": {json.dumps(found[key], ensure_ascii=False, indent=1)},\n'
    events = ",\n".join(json.dumps(event, ensure_ascii=False) for event in found["events"])
    yield f'"events": [\n{events}\n]\n' if events else '"events": []\n'
    yield "}\n"
