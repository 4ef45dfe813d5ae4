"""Which Host and Origin come in: one table, read as a list of attacks and of people who must not be kept out."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentstream.errors import ConfigError, Forbidden
from agentstream.server.auth import Rules, bearer, check_host, check_origin, host_allowed, origin_allowed, parse_host
from agentstream.settings import ServerSettings


def rules(**server: object) -> Rules:
    return Rules.of(ServerSettings(data_dir=Path("/data"), **server))  # type: ignore[arg-type]


NAMED = {"allowed_hosts": ("agents.example", "only.example:8443"), "allowed_origins": ("https://board.example",)}


@pytest.mark.parametrize("host", ["localhost:7171", "127.0.0.1:7171", "[::1]:7171", "LOCALHOST:7171"])
def test_loopback_names_with_our_port_are_served(host: str) -> None:
    assert host_allowed(host, port=7171, secure=False, rules=rules())


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "localhost",
        "localhost:80",
        "localhost:71710",
        "localhost:",
        "localhost:7171:7171",
        "evil.example:7171",
        "localhost.evil.example:7171",
        "127.0.0.1.evil.example:7171",
        "localhost.:7171",
        "user@localhost:7171",
        "localhost:7171/",
        "localhost:7171 ",
        "lo\u0441alhost:7171",
        "localhost:\u0667\u0661\u0667\u0661",
        "[::1:7171",
        "::1:7171",
        "0.0.0.0:7171",
        "192.0.2.7:7171",
        "a" * 100_000,
    ],
)
def test_other_names_are_not(host: str | None) -> None:
    assert not host_allowed(host, port=7171, secure=False, rules=rules())


def test_the_address_listened_on_is_served() -> None:
    assert host_allowed("192.0.2.7:7171", port=7171, secure=False, rules=rules(host="192.0.2.7"))
    assert host_allowed("[2001:db8::7]:7171", port=7171, secure=False, rules=rules(host="2001:DB8::7"))


def test_a_default_port_need_not_be_written() -> None:
    assert host_allowed("localhost", port=80, secure=False, rules=rules())
    assert host_allowed("localhost", port=443, secure=True, rules=rules())
    assert not host_allowed("localhost", port=443, secure=False, rules=rules())


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("agents.example", True),
        ("agents.example:1234", True),
        ("Agents.Example", True),
        ("only.example:8443", True),
        ("only.example", False),
        ("only.example:443", False),
        ("sub.agents.example", False),
    ],
)
def test_configured_names_are_served(host: str, served: bool) -> None:
    assert host_allowed(host, port=7171, secure=False, rules=rules(**NAMED)) is served


def test_on_a_unix_socket_the_port_means_nothing() -> None:
    assert host_allowed("localhost", port=None, secure=False, rules=rules())
    assert not host_allowed("evil.example", port=None, secure=False, rules=rules())


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://localhost:7171", "localhost:7171", True),
        ("http://LOCALHOST:7171", "localhost:7171", True),
        ("http://[::1]:7171", "[::1]:7171", True),
        ("http://localhost", "localhost:80", True),
        ("https://agents.example", "agents.example", True),
        ("https://agents.example:443", "agents.example", True),
        ("https://board.example", "localhost:7171", True),
        ("https://BOARD.example", "localhost:7171", True),
        ("http://board.example", "localhost:7171", False),
        ("https://board.example.evil.example", "localhost:7171", False),
        ("http://localhost:7172", "localhost:7171", False),
        ("http://127.0.0.1:7171", "localhost:7171", False),
        ("https://evil.example", "localhost:7171", False),
        ("https://agents.example", "agents.example:8443", False),
        ("null", "localhost:7171", False),
        ("", "localhost:7171", False),
        ("file://", "localhost:7171", False),
        ("localhost:7171", "localhost:7171", False),
        ("ftp://localhost:7171", "localhost:7171", False),
        ("http://localhost:7171@evil.example", "localhost:7171", False),
        ("http://localhost:7171/", "localhost:7171", False),
        ("http://localhost:7171", None, False),
    ],
)
def test_an_origin_is_our_own_or_a_configured_one(origin: str, host: str | None, allowed: bool) -> None:
    for has_token in (True, False):
        assert origin_allowed(origin, host=host, has_token=has_token, rules=rules(**NAMED)) is allowed


def test_no_origin_is_fine_with_a_token_and_where_none_is_asked_for() -> None:
    assert origin_allowed(None, host="localhost:7171", has_token=True, rules=rules())
    assert not origin_allowed(None, host="localhost:7171", has_token=False, rules=rules())
    assert origin_allowed(None, host="localhost:7171", has_token=False, rules=rules(auth=False))


@pytest.mark.parametrize(
    ("fetch_site", "allowed"),
    [(None, True), ("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False)],
)
def test_without_tokens_a_browsers_cross_site_get_is_refused(fetch_site: str | None, allowed: bool) -> None:
    def check() -> None:
        check_origin(None, host="localhost:7171", fetch_site=fetch_site, has_token=False, rules=rules(auth=False))

    if allowed:
        check()
    else:
        with pytest.raises(Forbidden):
            check()


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(Forbidden, match="allowed_hosts"):
        check_host("evil.example", port=1, secure=False, rules=rules())
    with pytest.raises(Forbidden, match="allowed_origins"):
        check_origin("https://evil.example", host="localhost:1", fetch_site=None, has_token=True, rules=rules())
    with pytest.raises(Forbidden, match="needs a token"):
        check_origin(None, host="localhost:1", fetch_site=None, has_token=False, rules=rules())


def test_the_websocket_side_gets_the_same_rules() -> None:
    listener = rules(**NAMED)
    assert listener.host_check(7171, secure=False)("localhost:7171")
    assert not listener.host_check(7171, secure=False)("")
    assert listener.origin_check()("https://board.example", "localhost:7171", True)
    assert not listener.origin_check()("https://evil.example", "localhost:7171", True)


@pytest.mark.parametrize("bad", [{"allowed_hosts": ("https://x",)}, {"allowed_origins": ("x.example",)}])
def test_rules_that_could_never_match_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        rules(**bad)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("", None), (None, None)],
)
def test_the_bearer_token_is_taken_from_its_header(header: str | None, token: str | None) -> None:
    assert bearer(header) == token


def test_a_host_is_read_into_name_and_port() -> None:
    host = parse_host("[2001:DB8::1]:80")
    assert host is not None
    assert (host.name, host.port) == ("2001:db8::1", 80)
