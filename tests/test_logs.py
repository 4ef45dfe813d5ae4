"""What the operator reads: the right form for the place, ids on the line, and no secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from agentstream.logs import choose_format, configure
from agentstream.redaction import Redactor
from agentstream.settings import LogFormat, LogSettings

KEY = "sk-test-0123456789"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(log_format: LogFormat, level: Any = "info") -> tuple[Any, io.StringIO]:
    stream = io.StringIO()
    configure(LogSettings(format=log_format, level=level), stream, redactor=Redactor({"KEY": KEY}))
    return structlog.get_logger("agentstream"), stream


@pytest.mark.parametrize(
    ("configured", "terminal", "journald", "chosen"),
    [
        ("auto", True, False, "console"),
        ("auto", False, False, "json"),
        ("auto", False, True, "journald"),
        ("json", True, True, "json"),
        ("console", False, True, "console"),
    ],
)
def test_the_form_follows_the_place(configured: LogFormat, terminal: bool, journald: bool, chosen: LogFormat) -> None:
    assert choose_format(configured, terminal=terminal, journald=journald) == chosen


def test_json_has_one_object_a_line_with_the_ids_that_were_bound() -> None:
    log, stream = lines("json")
    with structlog.contextvars.bound_contextvars(run_id="r1", work_order_id="w1"):
        log.info("run started", command=["claude", "-p"])
    record = json.loads(stream.getvalue())
    assert (record["level"], record["event"], record["run_id"]) == ("info", "run started", "r1")
    assert record["command"] == ["claude", "-p"]
    assert list(record)[:3] == ["timestamp", "level", "event"]


@pytest.mark.parametrize("log_format", ["console", "json", "journald"])
def test_secrets_are_redacted_also_in_tracebacks_and_in_the_lines_of_libraries(log_format: LogFormat) -> None:
    log, stream = lines(log_format)
    log.warning("refused", header=f"Bearer {KEY}", nested={"a": [KEY]})
    try:
        raise ValueError(KEY)
    except ValueError:
        log.exception("failed")
    logging.getLogger("hypercorn.error").error("library says %s", KEY)
    text = stream.getvalue()
    assert KEY not in text
    assert text.count("[redacted:KEY]") >= 4
    assert "ValueError" in text
    assert "library says" in text


def test_journald_lines_carry_their_priority_each() -> None:
    log, stream = lines("journald")
    log.info("run started", run_id="r1", prompt='say "hi"\nnow')
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first == '<6>run started run_id=r1 prompt="say \\"hi\\"\\nnow"'
    assert rest[0] == "<3>failed"
    assert all(line.startswith("<3>") for line in rest)


def test_lines_below_the_level_are_not_shown() -> None:
    log, stream = lines("json", "warning")
    log.info("quiet")
    logging.getLogger("library").info("quiet")
    log.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_configuring_again_replaces_the_first() -> None:
    log, before = lines("json")
    _, after = lines("json")
    log.info("once")
    assert before.getvalue() == ""
    assert after.getvalue().count("once") == 1
