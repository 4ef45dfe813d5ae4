"""Text of strangers on a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.cli.text import count, duration, money, one_line, safe, safe_json, size


@settings(deadline=None)
@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    left = {character for character in safe(text) if unicodedata.category(character) == "Cc"}
    assert left <= {"\n", "\t"}
    assert not {character for character in safe(text) if unicodedata.bidirectional(character) in _BIDI}


_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_what_was_there_is_shown() -> None:
    assert safe("a\x1b[31mb\rc\r\nd\te") == "a␛[31mb␍c\nd\te"
    assert safe("\x9b2J \u202e") == "<9B>2J <202E>"


@settings(deadline=None)
@given(st.text())
def test_json_for_a_terminal_means_the_same(text: str) -> None:
    written = safe_json(json.dumps({"content": text}, ensure_ascii=False))
    assert json.loads(written) == {"content": text}
    assert not {character for character in written if unicodedata.category(character) == "Cc"}


@settings(deadline=None)
@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_bounded_line(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (duration(-1), "0.0 s"),
        (duration(9.96), "10.0 s"),
        (duration(8.9, ticking=True), "8 s"),
        (duration(59.9), "59 s"),
        (duration(61), "1:01"),
        (duration(7384), "2:03:04"),
        (count(999), "999"),
        (count(12_345), "12.3k"),
        (count(4_000_000), "4.0M"),
        (size(1023), "1023 B"),
        (size(1536), "1.5 KiB"),
        (size(3 * 1024 * 1024), "3.0 MiB"),
        (money(0.0123), "$0.0123"),
        (money(1.234), "$1.23"),
    ],
)
def test_numbers_for_people(made: str, expected: str) -> None:
    assert made == expected
