"""Which run happens next: the invariants of the plan, for any state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentstream.orchestration.planner import Plan, Waiting, plan

NAMES = st.sampled_from("abcdefgh")
WAITING = st.lists(st.builds(Waiting, work_order_id=NAMES, not_before=st.floats(0, 10)), max_size=12)


def waiting(*names: str) -> list[Waiting]:
    return [Waiting(work_order_id=name) for name in names]


def test_the_oldest_start_first_as_long_as_there_is_room() -> None:
    assert plan(waiting("a", "b", "c"), {"x"}, max_concurrent=3, now=0).start == ("a", "b")


def test_nothing_starts_when_there_is_no_room() -> None:
    assert plan(waiting("a"), {"x", "y"}, max_concurrent=2, now=0) == Plan(start=(), ask_again_at=None)


def test_one_that_waits_for_its_retry_lets_others_pass_and_is_asked_for_in_time() -> None:
    orders = [Waiting(work_order_id="a", not_before=5), Waiting(work_order_id="b")]
    assert plan(orders, (), max_concurrent=1, now=1) == Plan(start=("b",), ask_again_at=5)
    assert plan(orders, (), max_concurrent=2, now=5).start == ("a", "b")


@given(WAITING, st.sets(NAMES), st.integers(1, 5), st.floats(0, 10))
def test_invariants(orders: list[Waiting], running: set[str], max_concurrent: int, now: float) -> None:
    decided = plan(orders, running, max_concurrent=max_concurrent, now=now)
    assert len(set(decided.start)) == len(decided.start)
    assert not set(decided.start) & running
    assert len(decided.start) <= max(0, max_concurrent - len(running))
    ready = [order.work_order_id for order in orders if order.not_before <= now and order.work_order_id not in running]
    unique = list(dict.fromkeys(ready))
    assert list(decided.start) == unique[: len(decided.start)]
    if len(decided.start) < max_concurrent - len(running):
        assert len(decided.start) == len(unique)
