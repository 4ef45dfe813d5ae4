"""Whatever schemathesis asks a real daemon over HTTP, the answer is one that the OpenAPI document of the same daemon tells of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.specs.openapi import checks as of_openapi

from agentstream.agents.demo import program_command
from agentstream.agents.registry import ADAPTERS
from agentstream.server import openapi
from tests.end_to_end.house import PATIENCE, Daemon

#: For each call, spread over: what it takes, what it doesn't, and about a work order that there is. The same ones each time, so
#: that what fails here fails again; few, because `make test` must end. With 400 each nothing else was found.
EXAMPLES = 25
CHECKS = [
    checks.not_a_server_error,
    of_openapi.status_code_conformance,
    of_openapi.content_type_conformance,
    of_openapi.response_headers_conformance,
    of_openapi.response_schema_conformance,
]
DOCUMENT = openapi.document("0")
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
MODES = schemathesis.GenerationMode


@attrs.frozen
class Fuzzed:
    """A daemon to be asked, and what there is in it."""

    schema: Any
    session: requests.Session
    known: dict[str, str]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    # Nobody's prompt is run as a command line here: every program is /bin/true, but the demo, which takes none.
    agents = {kind: {"command": ["/bin/true"]} for kind in ADAPTERS}
    agents["demo"] = {"command": [*program_command(), "--pace=0"]}
    env = {
        "AGENTSTREAM_AGENTS": json.dumps(agents),
        "AGENTSTREAM_SERVER_REQUESTS_PER_SECOND": "100000",
        "AGENTSTREAM_RUNS_SHUTDOWN_GRACE_SECONDS": "0",
    }
    with Daemon(tmp_path_factory.mktemp("home"), env=env) as daemon:
        with daemon.subscriber() as watcher:
            watcher.subscribe("known")
            daemon.submit("anything", agentType="demo", id="known", workspaceSource={"type": "fresh"})
            watcher.until_ended("known")
            tool = watcher.events("agent_tool_call")[0]
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {daemon.token}"
            schema = schemathesis.openapi.from_url(f"{daemon.address}/openapi.json", headers=dict(session.headers))
            known = {"work-orders": "known", "runs": tool["runId"], "toolUseId": tool["toolUseId"]}
            yield Fuzzed(schema, session, known)
        assert daemon.stop() == 0


@pytest.mark.parametrize("called", OPERATIONS, ids=" ".join)
def test_every_answer_is_documented(fuzzed: Fuzzed, called: tuple[str, str]) -> None:
    method, path = called
    operation = fuzzed.schema[path][method]
    about_known: dict[str, Any] = {}
    kind = path.removeprefix("/api/v1/").partition("/")[0]
    if "{id}" in path:
        ids = {"id": fuzzed.known[kind], "toolUseId": fuzzed.known["toolUseId"]}
        about_known["path_parameters"] = {name: value for name, value in ids.items() if f"{{{name}}}" in path}
    elif path == "/api/v1/runs":
        about_known["query"] = {"workOrderId": fuzzed.known["work-orders"]}
    described = DOCUMENT["paths"][path][method.lower()]
    cases = [operation.as_strategy(), operation.as_strategy(**about_known)]
    if described.get("parameters") or "requestBody" in described:
        cases.append(operation.as_strategy(generation_mode=MODES.NEGATIVE))

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=st.one_of(cases))
    def ask(case: Any) -> None:
        if called == ("POST", "/api/v1/work-orders") and isinstance(case.body, dict) and len(case.body) > 1:
            # Random paths are workspaces of nobody; this way some of the work orders are taken.
            case.body["workspaceSource"] = {"type": "fresh"}
        case.call_and_validate(session=fuzzed.session, checks=CHECKS, timeout=PATIENCE)

    ask()
