"""The HTTP API as its callers meet it: every call, every kind of refusal, and bad input of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from agentstream.model.events import AgentOutput
from tests.support.asgi import Client
from tests.support.door import BODY, SECRET, Door, open_door
from tests.support.orchestration import NOON


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        yield opened


# --- work orders -----------------------------------------------------------------------------------------------------


async def test_a_work_order_is_submitted_read_listed_and_cancelled(door: Door) -> None:
    made = await door.control.post("/api/v1/work-orders", {**BODY, "id": "mine"})
    assert made.status == 201
    assert (made.data["id"], made.data["status"], made.data["request"]["taskPrompt"]) == ("mine", "queued", "tidy up")
    assert (await door.read.get("/api/v1/work-orders/mine")).data == made.data
    assert (await door.read.get("/api/v1/work-orders?status=queued")).data == {"items": [made.data]}
    assert (await door.read.get("/api/v1/work-orders?status=failed")).data == {"items": []}
    gone = await door.control.request("DELETE", "/api/v1/work-orders/mine?reason=enough")
    assert gone.data["status"] == "canceled"
    assert door.orchestration.asked == [("cancel", "mine", "enough")]


async def test_the_same_submission_again_is_answered_by_200_and_another_body_by_409(door: Door) -> None:
    assert (await door.control.post("/api/v1/work-orders", {**BODY, "id": "a"})).status == 201
    assert (await door.control.post("/api/v1/work-orders", {**BODY, "id": "a"})).status == 200
    other = await door.control.post("/api/v1/work-orders", {**BODY, "id": "a", "taskPrompt": "other"})
    assert (other.status, other.code) == (409, "CONFLICT")


async def test_lists_are_paged_by_cursor(door: Door) -> None:
    for number in range(5):
        await door.control.post("/api/v1/work-orders", {**BODY, "id": f"w{number}"})
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await door.read.get(f"/api/v1/work-orders?limit=2{cursor}")).data
        seen += [item["id"] for item in page["items"]]
        if "cursor" not in page:
            break
        cursor = f"&cursor={page['cursor']}"
    assert sorted(seen) == [f"w{number}" for number in range(5)]
    assert len(seen) == 5
    bad = await door.read.get("/api/v1/work-orders?cursor=nonsense")
    assert (bad.status, bad.code) == (400, "INVALID_MESSAGE")


async def test_the_values_of_an_environment_are_not_shown(door: Door) -> None:
    made = await door.control.post("/api/v1/work-orders", {**BODY, "id": "e", "env": {"PASSWORD": "hunter2"}})
    for answer in (
        made,
        await door.read.get("/api/v1/work-orders/e"),
        await door.read.get("/api/v1/work-orders"),
        await door.control.request("DELETE", "/api/v1/work-orders/e"),
    ):
        assert b"hunter2" not in answer.body
        assert b"PASSWORD" in answer.body


async def test_a_further_run_needs_an_ended_work_order(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    assert (await door.control.post("/api/v1/work-orders/w/runs", {"resume": True})).code == "CONFLICT"
    await door.control.request("DELETE", "/api/v1/work-orders/w")
    again = await door.control.post("/api/v1/work-orders/w/runs", {"resume": True, "taskPrompt": "go on"})
    assert (again.status, again.data["status"]) == (201, "queued")
    assert door.orchestration.asked[-1] == ("further_run", "w", "go on", True)
    await door.control.request("DELETE", "/api/v1/work-orders/w")
    assert (await door.control.request("POST", "/api/v1/work-orders/w/runs")).status == 201


async def test_a_daemon_that_stops_takes_no_new_work_and_says_when_to_come_back(door: Door) -> None:
    door.orchestration.accepting = False
    for path, body in (("/api/v1/work-orders", BODY), ("/api/v1/work-orders/x/runs", {})):
        answer = await door.control.post(path, body)
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
    assert (await door.read.get("/api/v1/work-orders")).status == 200


# --- runs, approvals, agents -----------------------------------------------------------------------------------------


async def test_runs_are_read_and_steered(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.orchestration.start("w")
    (listed,) = (await door.read.get("/api/v1/runs?workOrderId=w")).data["items"]
    assert (await door.read.get("/api/v1/runs/run-1")).data == listed
    assert listed["status"] == "running"
    assert (await door.control.post("/api/v1/runs/run-1/messages", {"text": "and?"})).data == {}
    assert (await door.control.request("POST", "/api/v1/runs/run-1/interrupt")).data == {}
    assert (await door.control.request("POST", "/api/v1/runs/run-1/close-input")).data == {}
    assert (await door.control.request("POST", "/api/v1/runs/run-1/cancel")).data["status"] == "canceled"
    assert (await door.control.post("/api/v1/runs/run-1/cancel", {"reason": "twice"})).data["status"] == "canceled"
    assert door.orchestration.asked == [
        ("send_message", "run-1", "and?"),
        ("interrupt", "run-1"),
        ("close_input", "run-1"),
        ("cancel", "w", None),
        ("cancel", "w", "twice"),
    ]


async def test_raw_output_is_streamed_whole_and_redacted(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.orchestration.start("w")
    raw = (b"x" * 65_530 + SECRET.encode() + b"\xff\x00\n") * 5
    (door.orchestration.directory / "stdout").write_bytes(raw)
    answer = await door.read.get("/api/v1/runs/run-1/stdout")
    assert answer.body == raw.replace(SECRET.encode(), b"[redacted:API_KEY]")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    gone = await door.read.get("/api/v1/runs/run-1/stderr")
    assert (gone.status, gone.code) == (404, "NOT_FOUND")
    assert (await door.read.request("HEAD", "/api/v1/runs/run-1/stdout")).body == b""


async def test_a_tool_call_is_given_whole_and_redacted(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.orchestration.start("w")
    (door.orchestration.directory / "stdout").write_text(f"KEY={SECRET}" + "x" * 100_000)
    answer = await door.read.get("/api/v1/runs/run-1/tool-calls/toolu_1")
    assert answer.data["result"]["content"] == "KEY=[redacted:API_KEY]" + "x" * 100_000
    assert (await door.read.get("/api/v1/runs/run-1/tool-calls/toolu_2")).code == "NOT_FOUND"


async def test_the_secrets_of_a_work_order_do_not_show_in_what_its_agent_printed(door: Door) -> None:
    secret = "mine-and-nobody-elses"
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w", "env": {"DEPLOY_TOKEN": secret, "LANG": "C"}})
    await door.orchestration.start("w")
    (door.orchestration.directory / "stdout").write_text(f"token={secret}\n")
    assert (await door.read.get("/api/v1/runs/run-1/stdout")).body == b"token=[redacted:DEPLOY_TOKEN]\n"
    detail = await door.read.get("/api/v1/runs/run-1/tool-calls/toolu_1")
    assert detail.data["result"]["content"] == "token=[redacted:DEPLOY_TOKEN]\n"


async def test_approvals_are_listed_and_answered_once(door: Door) -> None:
    door.orchestration.ask_permission("req-1", "w")
    (asked,) = (await door.read.get("/api/v1/approvals")).data["items"]
    assert (asked["requestId"], asked["input"]) == ("req-1", {"command": "rm -r build"})
    answer = {"decision": "allow", "updatedInput": {"command": "ls"}}
    assert (await door.control.post("/api/v1/approvals/req-1", answer)).status == 200
    assert door.orchestration.asked == [("resolve_approval", "req-1", "allow", None, {"command": "ls"})]
    assert (await door.control.post("/api/v1/approvals/req-1", answer)).code == "NOT_FOUND"
    assert (await door.control.post("/api/v1/approvals/req-1", {"decision": "maybe"})).code == "INVALID_MESSAGE"


async def test_agents_are_listed(door: Door) -> None:
    (agent,) = (await door.read.get("/api/v1/agents")).data["items"]
    assert (agent["agentType"], agent["installed"], agent["capabilities"]["resume"]) == ("demo", True, True)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/work-orders/nope",
        "/api/v1/work-orders/nope/events",
        "/api/v1/runs/nope",
        "/api/v1/runs/nope/stdout",
        "/api/v1/runs/nope/tool-calls/x",
        "/api/v1/runs?workOrderId=nope",
        "/api/v1/nope",
        "/api/v1/work-orders/",
        "/nope",
        "/api/v1/runs/..%2F..%2Fetc%2Fpasswd/stdout",
        "/api/v1/work-orders/%00",
        "/api/v1/work-orders/" + "a" * 20_000,
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
async def test_what_is_not_there_is_404(door: Door, path: str) -> None:
    answer = await door.read.get(path)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert len(answer.body) < 1000


# --- events --------------------------------------------------------------------------------------------------------


async def test_events_are_paged_by_seq(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "other"})
    await door.orchestration.say("w", "one", "two", "three")
    await door.orchestration.say("other", "not this")
    events: list[dict[str, Any]] = []
    since = 0
    while True:
        page = (await door.read.get(f"/api/v1/work-orders/w/events?sinceSeq={since}&limit=2")).data
        events += page["items"]
        since = page["lastSeq"]
        if since >= page["head"]:
            break
    assert [event["type"] for event in events] == ["work_order_created", *["agent_output"] * 3]
    assert [event.get("content") for event in events[1:]] == ["one", "two", "three"]
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    assert page["epoch"] == door.journal.epoch
    everything = (await door.read.get("/api/v1/work-orders/*/events")).data["items"]
    assert len(everything) == 6


async def test_a_page_of_large_events_is_bounded_and_nothing_of_it_is_lost(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.orchestration.say("w", *(f"{number:05}" + "x" * 60_000 for number in range(60)))
    seen: list[str] = []
    since = 0
    while True:
        answer = await door.read.get(f"/api/v1/work-orders/w/events?sinceSeq={since}&limit=1000")
        assert len(answer.body) < 1_200_000
        page = answer.data
        seen += [event["content"][:5] for event in page["items"] if "content" in event]
        since = page["lastSeq"]
        if since >= page["head"]:
            break
    assert seen == [f"{number:05}" for number in range(60)]


async def test_another_journals_seq_is_answered_by_a_gap_and_everything(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    for query in ("sinceSeq=1&epoch=other", "sinceSeq=999999"):
        page = (await door.read.get(f"/api/v1/work-orders/w/events?{query}")).data
        assert page["gap"]["reason"] == "epoch"
        assert len(page["items"]) == 1
    page = (await door.read.get(f"/api/v1/work-orders/w/events?sinceSeq=1&epoch={door.journal.epoch}")).data
    assert "gap" not in page
    assert page["items"] == []


async def test_an_event_stream_replays_then_goes_on_live_and_resumes_without_hole_or_duplicate(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.orchestration.say("w", "one", "two")
    seen: list[tuple[int | None, Any]] = []
    async with door.read.stream("/api/v1/work-orders/w/events") as stream:
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        _, confirmed = await stream.message()
        assert (confirmed["type"], confirmed["epoch"]) == ("subscription_confirmed", door.journal.epoch)
        for _ in range(3):
            seen.append(await stream.message())
        assert (await stream.message())[1]["type"] == "replay_complete"
        await door.orchestration.say("elsewhere", "not this")
        await door.orchestration.say("w", "three")
        seen.append(await stream.message())
    await door.orchestration.say("w", "four", "five")
    async with door.read.stream("/api/v1/work-orders/w/events?sinceSeq=0", last_event_id=str(seen[-1][0])) as stream:
        assert (await stream.message())[1]["type"] == "subscription_confirmed"
        seen += [await stream.message(), await stream.message()]
        assert (await stream.message())[1]["type"] == "replay_complete"
    assert [data.get("content") for _, data in seen] == [None, "one", "two", "three", "four", "five"]
    assert [number for number, _ in seen] == [data["seq"] for _, data in seen]


async def test_events_that_come_while_the_stream_replays_are_neither_lost_nor_doubled(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.orchestration.say("w", *(str(number) for number in range(700)))
    seen: list[str] = []

    async def keep_talking() -> None:
        for number in range(700, 1500):
            await door.orchestration.say("w", str(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_talking)
        async with door.read.stream("/api/v1/work-orders/*/events") as stream:
            while len(seen) < 1500:
                _, data = await stream.message()
                if "content" in data:
                    seen.append(data["content"])
    assert seen == [str(number) for number in range(1500)]


async def test_a_browsers_event_stream_may_bring_its_token_in_the_query_but_nothing_else_may(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    token = door.read.token
    async with door.nobody.stream(
        f"/api/v1/work-orders/w/events?token={token}", origin="http://localhost:7171"
    ) as stream:
        assert stream.status == 200
    assert (await door.nobody.get(f"/api/v1/work-orders/w/events?token={token}")).status == 401
    assert (await door.nobody.get(f"/api/v1/work-orders?token={token}")).status == 401


# --- who gets in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("nobody", "GET", "/health", 200),
        ("nobody", "GET", "/health/ready", 200),
        ("nobody", "GET", "/metrics", 200),
        ("nobody", "GET", "/openapi.json", 401),
        ("nobody", "GET", "/asyncapi.json", 401),
        ("nobody", "GET", "/api/v1/work-orders", 401),
        ("nobody", "POST", "/api/v1/work-orders", 401),
        ("nobody", "DELETE", "/api/v1/work-orders/w", 401),
        ("read", "GET", "/api/v1/work-orders", 200),
        ("read", "GET", "/openapi.json", 200),
        ("read", "POST", "/api/v1/work-orders", 403),
        ("read", "DELETE", "/api/v1/work-orders/w", 403),
        ("read", "POST", "/api/v1/work-orders/w/runs", 403),
        ("read", "POST", "/api/v1/runs/r/messages", 403),
        ("read", "POST", "/api/v1/runs/r/interrupt", 403),
        ("read", "POST", "/api/v1/runs/r/close-input", 403),
        ("read", "POST", "/api/v1/runs/r/cancel", 403),
        ("read", "POST", "/api/v1/approvals/a", 403),
        ("control", "GET", "/api/v1/work-orders", 200),
        ("control", "DELETE", "/api/v1/work-orders/w", 404),
        ("admin", "DELETE", "/api/v1/work-orders/w", 404),
    ],
)
async def test_each_scope_opens_its_doors_only(door: Door, who: str, method: str, path: str, status: int) -> None:
    client: Client = getattr(door, who)
    answer = await client.request(method, path)
    assert answer.status == status
    if status == 401:
        assert answer.code == "UNAUTHORIZED"
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/health", "/api/v1/work-orders", "/", "/nope", "/metrics"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:7171", "localhost:80", "", None])
async def test_a_foreign_host_gets_nothing_whatever_it_brings(door: Door, path: str, host: str | None) -> None:
    answer = await door.admin.get(path, host=host)
    assert (answer.status, answer.code) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 200), ("http://localhost:7171", 200), ("https://evil.example", 403), ("null", 403), ("", 403)],
)
async def test_a_foreign_origin_gets_nothing_even_with_a_token(door: Door, origin: str | None, status: int) -> None:
    assert (await door.admin.get("/api/v1/work-orders", origin=origin)).status == status


async def test_a_configured_origin_may_call_from_its_pages(tmp_path: Path) -> None:
    async with open_door(tmp_path, allowed_origins=("https://Board.example",)) as door:
        asked = {"origin": "https://board.example", "access-control-request-method": "DELETE"}
        preflight = await door.nobody.request("OPTIONS", "/api/v1/work-orders/w", headers=asked)
        assert preflight.status == 200
        assert preflight.headers["access-control-allow-origin"] == "https://board.example"
        answer = await door.read.get("/api/v1/work-orders", origin="https://board.example")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://board.example")
        other = {**asked, "origin": "https://evil.example"}
        refused = await door.nobody.request("OPTIONS", "/api/v1/work-orders/w", headers=other)
        assert "access-control-allow-origin" not in refused.headers


async def test_without_auth_a_program_and_the_own_page_get_in_and_a_foreign_page_does_not(tmp_path: Path) -> None:
    async with open_door(tmp_path, auth=False) as door:
        assert (await door.nobody.post("/api/v1/work-orders", BODY)).status == 201
        assert (await door.nobody.get("/api/v1/work-orders", origin="http://localhost:7171")).status == 200
        assert (await door.nobody.get("/api/v1/work-orders", authorization="Bearer stale")).status == 200
        assert (await door.nobody.post("/api/v1/work-orders", BODY, origin="https://evil.example")).status == 403
        assert (await door.nobody.get("/api/v1/work-orders", sec_fetch_site="cross-site")).status == 403


async def test_a_unix_socket_serves_local_names(door: Door) -> None:
    client = attrs.evolve(door.read, server=None, client=None)
    assert (await client.get("/api/v1/work-orders", host="localhost")).status == 200
    assert (await client.get("/api/v1/work-orders", host="evil.example")).status == 403


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer \u00ff\u00fe", "Bearer " + "a" * 100_000]
)
async def test_wrong_tokens_are_refused(door: Door, header: str) -> None:
    answer = await door.nobody.get("/api/v1/work-orders", authorization=header)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


async def test_a_revoked_token_is_worthless_at_once(door: Door) -> None:
    assert (await door.read.get("/api/v1/work-orders")).status == 200
    door.tokens.revoke("reader")
    assert (await door.read.get("/api/v1/work-orders")).status == 401


async def test_metrics_need_a_token_from_elsewhere_and_through_a_proxy(door: Door, tmp_path: Path) -> None:
    far = attrs.evolve(door.nobody, client=("192.0.2.9", 1))
    assert (await far.get("/metrics")).status == 401
    assert (await attrs.evolve(door.read, client=("192.0.2.9", 1)).get("/metrics")).status == 200
    async with open_door(tmp_path / "proxied", behind_proxy=True) as proxied:
        assert (await proxied.nobody.get("/metrics")).status == 401


async def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with open_door(tmp_path, requests_per_second=2.0, request_burst=3) as door:
        for _ in range(3):
            assert (await door.read.get("/api/v1/agents")).status == 200
        answer = await door.read.get("/api/v1/agents")
        assert (answer.status, answer.code) == (429, "RATE_LIMITED")
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["details"]["retryAfterSeconds"] == 0.5
        assert (await door.control.get("/api/v1/agents")).status == 200
        assert (await door.nobody.get("/health")).status == 200
        door.now += 0.5
        assert (await door.read.get("/api/v1/agents")).status == 200
        assert [(await door.nobody.get("/api/v1/agents")).status for _ in range(4)] == [401, 401, 401, 429]


async def test_behind_a_proxy_clients_are_told_apart_by_what_the_proxy_appended(tmp_path: Path) -> None:
    async with open_door(tmp_path, request_burst=1, behind_proxy=True) as door:
        for forwarded in ("192.0.2.1", "192.0.2.2", "198.51.100.9, 192.0.2.3"):
            assert (await door.nobody.get("/api/v1/agents", x_forwarded_for=forwarded)).status == 401
        assert (await door.nobody.get("/api/v1/agents", x_forwarded_for="spoofed, 192.0.2.3")).status == 429


# --- bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "PARSE_ERROR"),
        (b"{", 400, "PARSE_ERROR"),
        (b"[]", 400, "PARSE_ERROR"),
        (b"null", 400, "PARSE_ERROR"),
        (b"\xff\xfe\x00\x01", 400, "PARSE_ERROR"),
        (b'{"taskPrompt":"\\ud800"}', 400, "PARSE_ERROR"),
        (b"[" * 100_000, 400, "PARSE_ERROR"),
        (b"{}", 400, "INVALID_MESSAGE"),
        (b'{"taskPrompt":5,"workspaceSource":{"type":"fresh"}}', 400, "INVALID_MESSAGE"),
        (b'{"taskPrompt":"x","workspaceSource":{"type":"moon"}}', 400, "INVALID_MESSAGE"),
        (b'{"taskPrompt":"x","workspaceSource":{"type":"fresh"},"id":"a/b"}', 400, "INVALID_MESSAGE"),
        (b'{"taskPrompt":"x","workspaceSource":{"type":"fresh"},"agentType":"unheard-of"}', 400, "INVALID_MESSAGE"),
        (b'{"taskPrompt":"x","workspaceSource":{"type":"local","path":"/etc"}}', 403, "FORBIDDEN"),
        (b"x" * 1_048_577, 413, "TOO_LARGE"),
    ],
)
async def test_a_bad_body_is_told_what_is_wrong(door: Door, body: bytes, status: int, code: str) -> None:
    answer = await door.control.request(
        "POST", "/api/v1/work-orders", body=body, headers={"content-type": "application/json"}
    )
    assert (answer.status, answer.code) == (status, code)


async def test_a_wrong_field_is_named(door: Door) -> None:
    answer = await door.control.post("/api/v1/work-orders", {**BODY, "maxTurns": 0})
    assert answer.json()["error"] == {
        "code": "INVALID_MESSAGE",
        "message": "maxTurns: expected a value >= 1",
        "details": {"field": "maxTurns", "expected": "a value >= 1"},
    }


@pytest.mark.parametrize("media", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_that_is_not_declared_as_json_is_refused(door: Door, media: str | None) -> None:
    answer = await door.control.request("POST", "/api/v1/work-orders", body=b"{}", headers={"content-type": media})
    assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_an_endless_body_is_cut_off_while_it_is_read(door: Door) -> None:
    def chunks() -> Any:
        while True:
            read.append(65_536)
            yield b"x" * 65_536

    read: list[int] = []
    answer = await door.control.request(
        "POST",
        "/api/v1/work-orders",
        body=[next(chunks()) for _ in range(40)],
        headers={"content-type": "application/json"},
    )
    assert (answer.status, answer.code) == (413, "TOO_LARGE")


@pytest.mark.parametrize("length", ["1048577", "99999999999999999999999999"])
async def test_a_body_announced_as_too_large_is_not_read(door: Door, length: str) -> None:
    answer = await door.control.request(
        "POST", "/api/v1/work-orders", headers={"content-length": length, "content-type": "application/json"}
    )
    assert answer.code == "TOO_LARGE"


@pytest.mark.parametrize(
    "query",
    [
        "sinceSeq=-1",
        "sinceSeq=x",
        "sinceSeq=1.5",
        "sinceSeq=",
        "sinceSeq=9223372036854775808",
        "sinceSeq=" + "9" * 5000,
        "sinceSeq=%D9%A3",
        "limit=0",
        "limit=1001",
        "limit=1_0",
    ],
)
async def test_bad_queries_are_told(door: Door, query: str) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    answer = await door.read.get(f"/api/v1/work-orders/w/events?{query}")
    assert (answer.status, answer.code) == (400, "INVALID_MESSAGE")
    assert len(answer.body) < 500


async def test_a_query_says_which_parameter_is_missing(door: Door) -> None:
    answer = await door.read.get("/api/v1/runs")
    assert answer.json()["error"]["message"] == "workOrderId: expected a value, it is missing"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
async def test_a_wrong_method_is_told_the_right_ones(door: Door, method: str) -> None:
    answer = await door.admin.request(method, "/api/v1/agents")
    assert (answer.status, answer.code) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in answer.headers["allow"]


async def test_every_method_of_a_path_is_told(door: Door) -> None:
    both = await door.admin.request("PATCH", "/api/v1/work-orders/w")
    assert set(both.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}
    assert (await door.admin.request("HEAD", "/api/v1/work-orders")).status == 200


async def test_something_broken_is_500_without_its_insides(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.orchestration.start("w")
    # The stand-in trips over the raw log that is not there.
    answer = await door.read.get("/api/v1/runs/run-1/tool-calls/toolu_1", x_request_id="find-me")
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
    assert b"stdout" not in answer.body
    assert "find-me" in answer.json()["error"]["message"]


async def test_secrets_in_errors_are_redacted(door: Door) -> None:
    answer = await door.read.get(f"/api/v1/runs/{SECRET}")
    assert SECRET.encode() not in answer.body


# --- every answer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["mine-1", "A.b:c_d"])
async def test_a_request_id_is_echoed(door: Door, given: str) -> None:
    assert (await door.read.get("/api/v1/agents", x_request_id=given)).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "<script>", "\u00e9"])
async def test_a_request_id_is_made_where_none_that_will_do_is_sent(door: Door, given: str | None) -> None:
    made = (await door.read.get("/api/v1/agents", x_request_id=given)).headers["x-request-id"]
    assert made != given
    assert len(made) == 32


@pytest.mark.parametrize("path", ["/health", "/api/v1/agents", "/nope", "/api/v1/work-orders/nope"])
async def test_every_answer_has_the_security_headers(door: Door, path: str) -> None:
    headers = (await door.read.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


async def test_the_page_and_its_files_are_served_to_anybody_and_nothing_else_of_the_directory_is(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page"
    (page / "views").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html>")
    (page / "views" / "tools.js").write_text("export {}")
    (page / "secret.py").write_text("x")
    async with open_door(tmp_path, dashboard=page) as door:
        answer = await door.nobody.get("/?token=whatever")
        assert (answer.status, answer.body) == (200, b"<!doctype html>")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        script = await door.nobody.get("/views/tools.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        again = await door.nobody.get("/views/tools.js", if_none_match=script.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        for path in ("/secret.py", "/views", "/views/..%2fsecret.py", "/views/../secret.py", "//etc/passwd"):
            assert (await door.nobody.get(path)).status == 404
        assert (await door.nobody.request("POST", "/")).status == 405


# --- health and metrics ----------------------------------------------------------------------------------------------------


async def test_health_tells_what_is_wrong(door: Door) -> None:
    assert (await door.nobody.get("/health")).json()["status"] == "ok"
    door.troubles.append(f"tokens.json is damaged near {SECRET}")
    live = await door.nobody.get("/health")
    assert (live.status, live.json()["status"]) == (200, "degraded")
    assert live.json()["problems"] == ["tokens.json is damaged near [redacted:API_KEY]"]
    ready = await door.nobody.get("/health/ready")
    assert (ready.status, ready.json()["status"]) == (503, "unready")
    door.troubles.clear()
    assert (await door.nobody.get("/health/ready")).status == 200
    door.orchestration.accepting = False
    ready = await door.nobody.get("/health/ready")
    assert (ready.status, ready.json()["problems"]) == (503, ["the daemon is stopping and takes no new work"])
    assert (await door.nobody.get("/health")).json()["status"] == "ok"


async def test_metrics_count_what_happened(door: Door) -> None:
    await door.control.post("/api/v1/work-orders", {**BODY, "id": "w"})
    await door.journal.append([AgentOutput(work_order_id="w", run_id="r", timestamp=NOON, content="x")] * 3)
    await door.read.get("/api/v1/work-orders/w")
    await door.read.get("/api/v1/work-orders/other")
    text = (await door.nobody.get("/metrics")).body.decode()
    for line in (
        'agentstream_events_total{type="agent_output"} 3.0',
        'agentstream_http_requests_total{method="GET",path="/api/v1/work-orders/{id}",status="200"} 1.0',
        'agentstream_http_requests_total{method="GET",path="/api/v1/work-orders/{id}",status="404"} 1.0',
        'agentstream_work_orders{status="queued"} 2.0',
        'agentstream_runs_total{outcome="succeeded"} 3.0',
        "agentstream_journal_head 4.0",
        "agentstream_journal_commit_seconds_count 2.0",
        "agentstream_journal_trouble 0.0",
        "agentstream_subscribers 5.0",
        'agentstream_http_request_seconds_bucket{le="+Inf"} 3.0',
    ):
        assert line in text.splitlines()


async def test_strangers_cannot_make_series_without_end(door: Door) -> None:
    for number in range(20):
        await door.nobody.request(f"M{number}", f"/path-{number}")
    text = (await door.nobody.get("/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("agentstream_http_requests_total{")]
    assert lines == ['agentstream_http_requests_total{method="other",path="(none)",status="404"} 20.0']
