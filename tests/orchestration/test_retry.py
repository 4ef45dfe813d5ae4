"""When to try again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agentstream.orchestration.retry import BASE_DELAY, MAX_DELAY, delay_before

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def delay(attempt: int, *, retry_at: datetime | None = None, random: float = 0.0) -> float | None:
    return delay_before(attempt, now=NOW, retry_at=retry_at, random=random)


def test_each_further_attempt_waits_twice_as_long_up_to_a_bound() -> None:
    waits = [delay(attempt, random=0.999_999) for attempt in (2, 3, 4, 50)]
    assert waits == [
        pytest.approx(value, rel=0.001) for value in (BASE_DELAY, BASE_DELAY * 2, BASE_DELAY * 4, MAX_DELAY)
    ]


def test_jitter_keeps_runs_apart_that_failed_together() -> None:
    assert delay(2, random=0.0) == BASE_DELAY / 2


def test_a_rate_limit_is_waited_for_until_it_resets() -> None:
    assert delay(2, retry_at=NOW + timedelta(hours=3)) == 3 * 3600


def test_a_rate_limit_that_has_reset_is_an_ordinary_failure() -> None:
    assert delay(2, retry_at=NOW - timedelta(hours=1)) == BASE_DELAY / 2


def test_who_would_wait_for_days_does_not_try_again() -> None:
    assert delay(2, retry_at=NOW + timedelta(days=5)) is None
