"""How long a run waits for what."""

from __future__ import annotations

import math
from typing import Any

from agentstream.runs.patience import Due, Patience


def patience(**fields: Any) -> Patience:
    return Patience(
        **{
            "idle_timeout": 100.0,
            "result_grace": 10.0,
            "background_grace": 60.0,
            "interactive": False,
            "last_activity": 0.0,
            **fields,
        }
    )


def due(state: Patience, now: float) -> list[Due]:
    return [action for action, _ in state.due(now)]


def test_silence_stops_a_run() -> None:
    state = patience()
    assert state.next_deadline() == 100
    assert due(state, 99) == []
    assert due(state, 100) == [Due.STOP_IDLE]


def test_without_an_idle_limit_nothing_is_ever_due() -> None:
    assert patience(idle_timeout=None).next_deadline() == math.inf


def test_silence_while_a_permission_is_asked_for_is_no_idleness() -> None:
    state = patience(approvals={"r": 300.0}, input_open=True)
    assert due(state, 299) == []
    assert state.due(300) == [(Due.EXPIRE_APPROVAL, "r")]


def test_an_agent_that_finished_and_does_not_exit_is_stopped_after_its_grace() -> None:
    assert due(patience(finished_at=5.0), 14.9) == []
    assert due(patience(finished_at=5.0), 15) == [Due.STOP_FINISHED]


def test_background_tasks_get_more_time() -> None:
    assert due(patience(finished_at=5.0, in_flight=1), 64) == []
    assert due(patience(finished_at=5.0, in_flight=1), 65) == [Due.STOP_FINISHED]


def test_input_of_an_agent_that_asks_for_approvals_closes_after_its_result() -> None:
    assert due(patience(finished_at=5.0, input_open=True), 5) == [Due.CLOSE_INPUT]


def test_input_is_not_closed_while_a_task_runs_in_the_background() -> None:
    state = patience(finished_at=5.0, input_open=True, in_flight=1)
    assert due(state, 64) == []
    assert due(state, 65) == [Due.CLOSE_INPUT]


def test_an_interactive_run_waits_for_the_next_message_until_it_is_idle() -> None:
    state = patience(interactive=True, input_open=True, finished_at=5.0, last_activity=5.0)
    assert due(state, 104) == []
    assert due(state, 105) == [Due.CLOSE_INPUT]


def test_an_interactive_run_ends_after_its_turn_when_it_is_told() -> None:
    state = patience(interactive=True, input_open=True, close_requested=True)
    assert due(state, 50) == []
    state.finished_at = 50
    assert due(state, 50) == [Due.CLOSE_INPUT]


def test_nothing_is_due_while_the_run_is_being_stopped() -> None:
    assert patience(stopping=True, finished_at=0.0, approvals={"r": 0.0}).next_deadline() == math.inf
