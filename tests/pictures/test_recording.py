"""The recording in the README: how it is made, and what it must not have in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.cells import cell_len
from wcwidth import wcswidth

from agentstream.cli.lines import TOOL_STYLES, line
from tests.cli.samples import SAMPLES
from tests.pictures.film import BASELINE, ROW_HEIGHT, Frame, Row, Span, svg
from tests.pictures.recording import RECORDING
from tests.pictures.terminal import Terminal


def test_a_terminal_is_filmed(tmp_path: Path) -> None:
    with Terminal(["sh"], columns=40, rows=3, env={"PATH": os.environ["PATH"], "PS1": "% "}, cwd=tmp_path) as terminal:
        terminal.until("% ")
        terminal.type("printf '\\033[1;31m  <&>  \\033[0m end'")
        terminal.until("<&>   end")
    frames = terminal.frames
    assert [frame.at for frame in frames] == sorted(frame.at for frame in frames)
    assert frames[0].rows[0][0].text == "%"
    red, plain = frames[-1].rows[1][:2]
    assert red == Span(2, "<&>", "red", bold=True)
    assert (plain.column, plain.text[:3], plain.colour) == (8, "end", "default")


def test_the_film_shows_each_frame_at_its_time() -> None:
    same: Row = (Span(0, "same"),)
    frames = [
        Frame(0.0, (same, ())),
        Frame(1.0, (same, (Span(3, "<b> & c", "3a3a3a", bold=True),))),
        Frame(3.0, (same, same)),
    ]
    text = svg(frames, columns=20, rows=2, title="a & b", hold=1.0, still=1)
    root = ET.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    rows = {f"#{group.get('id')}": "".join(group.itertext()) for group in root.iterfind(f"{name}defs/{name}g")}
    assert sorted(rows.values()) == ["<b> & c", "same"]
    shown = [
        [(rows[use.get("href", "")], use.get("y")) for use in frame]
        for frame in root.iterfind(f"{name}svg/{name}g/{name}g")
    ]
    first, second = str(BASELINE), str(ROW_HEIGHT + BASELINE)
    assert shown == [[("same", first)], [("same", first), ("<b> & c", second)], [("same", first), ("same", second)]]
    assert "0.000%{transform:translateY(0px)}25.000%{transform:translateY(-34px)}75.000%{" in text


def test_the_recording_fetches_nothing_and_names_nobody() -> None:
    text = RECORDING.read_text()
    assert len(text.encode()) < 300_000
    assert ET.fromstring(text).tag.endswith("svg")
    assert "<script" not in text
    assert set(re.findall(r"[a-z]+://[^\"<\s]*", text)) == {"http://www.w3.org/2000/svg"}
    # The one directory that is seen is made for the recording.
    assert set(re.findall(r"/tmp/[^/<\s]+", text)) == {"/tmp/agentstream-demo"}
    assert not re.search(r"/(home|root|Users)\b", text)


@pytest.mark.parametrize("words", ["? allow", "[y/n]", "succeeded", "tool calls", "Implementing"])
def test_the_recording_shows_what_the_program_says_today(words: str) -> None:
    assert words in "".join(ET.fromstring(RECORDING.read_text()).itertext())


@pytest.mark.parametrize("tool", ["Read", "Write", "Edit", "Bash", "Grep", "Glob"])
def test_the_recording_has_the_symbols_of_today(tool: str) -> None:
    symbol, _ = TOOL_STYLES[tool]  # type: ignore[index]
    assert f"{symbol} {tool}" in RECORDING.read_text()


def test_terminals_agree_on_the_width_of_every_line() -> None:
    for event, _ in SAMPLES:
        for text in line(event).plain.splitlines():
            assert cell_len(text) == wcswidth(text) == len(text), text
