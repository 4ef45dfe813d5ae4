"""Any chunking of the bytes gives the same lines, and no line can hurt."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.runs.framing import Line, LineFramer


def lines_of(*chunks: bytes, max_line_bytes: int = 1024) -> list[Line]:
    framer = LineFramer(max_line_bytes=max_line_bytes)
    lines = [line for chunk in chunks for line in framer.push(chunk)]
    return lines + framer.finish()


def data_of(*chunks: bytes) -> list[bytes]:
    return [line.data for line in lines_of(*chunks)]


def test_only_newline_ends_a_line() -> None:
    text = "a\u2028b\x0b\x0c\x85c\rd\n".encode()
    assert data_of(text) == [text[:-1]]


def test_one_carriage_return_before_the_end_is_dropped() -> None:
    assert data_of(b"a\r\nb\r\r\nc\r", b"\nd\r") == [b"a", b"b\r", b"c", b"d"]


def test_empty_lines_are_lines_but_an_empty_rest_is_none() -> None:
    assert data_of(b"\n\nx\n") == [b"", b"", b"x"]
    assert data_of(b"\r\n", b"", b"\n") == [b"", b""]
    assert data_of(b"") == []


def test_a_last_line_without_its_end_is_not_lost() -> None:
    assert data_of(b'{"a":1}\n{"b"', b":2}") == [b'{"a":1}', b'{"b":2}']


def test_nothing_comes_before_its_end_is_there() -> None:
    framer = LineFramer()
    assert framer.push(b"half") == []
    assert framer.push(b" a line\nnext") == [Line(b"half a line", 11)]


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_a_line_over_the_bound_is_cut_and_told_and_the_next_one_is_whole(chunk: int) -> None:
    data = b"x" * 25 + b"\r\n" + b"y" * 10 + b"\r\n" + b"z" * 11 + b"\n"
    chunks = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    long, fits, longer = lines_of(*chunks, max_line_bytes=10)
    assert (long.data, long.length, long.truncated) == (b"x" * 10, 25, True)
    assert (fits.data, fits.length, fits.truncated) == (b"y" * 10, 10, False)
    assert (longer.data, longer.length, longer.truncated) == (b"z" * 10, 11, True)


def test_the_default_bound_takes_a_line_of_30_megabytes() -> None:
    framer = LineFramer()
    chunk = b"0123456789abcdef" * 4096
    for _ in range(480):
        assert framer.push(chunk) == []
    (line,) = framer.push(b"\n")
    assert not line.truncated
    assert line.data == chunk * 480


def test_an_endless_line_takes_bounded_memory() -> None:
    framer = LineFramer(max_line_bytes=1024 * 1024)
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(1600):
            framer.push(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (line,) = framer.finish()
    assert line.length == 1600 * 65_536
    assert len(line.data) == 1024 * 1024
    assert peak < 4 * 1024 * 1024


def test_a_bound_below_one_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LineFramer(max_line_bytes=0)


@given(
    data=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bcd", b"\xff\x00", "\u2028".encode()])).map(b"".join),
    cuts=st.lists(st.integers(0, 200)),
    bound=st.integers(1, 12),
)
def test_any_chunking_gives_the_same_lines(data: bytes, cuts: list[int], bound: int) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(edges)]

    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    whole = [line[:-1] if line.endswith(b"\r") else line for line in expected]

    lines = lines_of(*chunks, max_line_bytes=bound)
    assert [line.data for line in lines] == [line[:bound] for line in whole]
    assert [line.length for line in lines] == [len(line) for line in whole]
