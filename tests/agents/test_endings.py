"""The table of error codes, and programs that are judged by their exit status."""

from __future__ import annotations

import pytest

from agentstream.agents.base import Exit, Summary
from agentstream.agents.endings import BY_CODE, ERROR_CODES, exit_outcome, failure, last_line


def test_every_code_says_what_happened_and_what_to_do() -> None:
    assert len(BY_CODE) == len(ERROR_CODES)
    for row in ERROR_CODES:
        assert row.code.isupper()
        assert row.meaning[0].islower()
        assert not row.meaning.endswith(".")
        assert row.advice.endswith(".")


def test_a_failure_reads_as_one_text() -> None:
    outcome = failure("MAX_TURNS", "Reached 3.")
    assert outcome.error == (
        "the agent used up its turns before it was done: Reached 3. "
        "Raise maxTurns, or continue the session with a further run."
    )


@pytest.mark.parametrize(
    ("end", "stderr", "code", "said"),
    [
        (Exit(code=3), "first\nlast line\n\n", "EXIT_STATUS", "3: last line"),
        (Exit(code=137), "", "EXIT_STATUS", "137"),
        (Exit(signal="SIGKILL"), "", "KILLED", "SIGKILL"),
        (Exit(signal="SIGSEGV"), "", "CRASHED", "SIGSEGV"),
    ],
)
def test_a_program_that_nothing_is_known_of(end: Exit, stderr: str, code: str, said: str) -> None:
    outcome = exit_outcome(Summary(), end, stderr)
    assert outcome.error_code == code
    assert said in (outcome.error or "")
    assert exit_outcome(Summary(), Exit(code=0), "noise").success


def test_what_is_quoted_is_bounded() -> None:
    assert len(last_line("x" * 10_000)) < 600
    assert last_line(" \n\n") == ""
