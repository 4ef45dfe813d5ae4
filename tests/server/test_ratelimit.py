"""Token buckets: a burst at once, then the rate, each client by itself, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentstream.server.ratelimit import RateLimiter


def test_a_burst_passes_then_the_rate() -> None:
    limiter = RateLimiter(2.0, 3)
    assert [limiter.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limiter.take("a", 0.25) == 0.25
    assert limiter.take("a", 0.5) == 0.0
    assert limiter.take("a", 0.5) == 0.5


def test_clients_do_not_share_and_a_quiet_one_gets_its_burst_back() -> None:
    limiter = RateLimiter(1.0, 1)
    assert limiter.take("a", 0.0) == 0.0
    assert limiter.take("b", 0.0) == 0.0
    assert limiter.take("a", 0.0) == 1.0
    assert limiter.take("a", 1000.0) == 0.0
    assert limiter.take("a", 1000.0) == 1.0


def test_the_table_is_bounded_and_forgets_the_quietest() -> None:
    limiter = RateLimiter(1.0, 1, max_clients=2)
    for client in ("a", "b", "a", "c"):
        limiter.take(client, 0.0)
    assert len(limiter) == 2
    assert limiter.take("a", 0.0) > 0
    assert limiter.take("b", 0.0) == 0.0


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.1, 20), st.integers(1, 10))
def test_never_more_than_the_burst_and_the_rate(pauses: list[float], rate: float, burst: int) -> None:
    limiter, now, passed = RateLimiter(rate, burst), 0.0, 0
    for pause in pauses:
        now += pause
        passed += limiter.take("a", now) == 0.0
    assert passed <= burst + now * rate + 1e-6
