"""Tokens: made once, found by hash, worthless when revoked or expired; and the directory they lie in is ours alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agentstream.errors import ConfigError, Conflict, InvalidMessage, NotFound
from agentstream.server.tokens import TokenStore, prepare_data_dir

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    prepare_data_dir(path)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_one_administrators_token(directory: Path) -> None:
    store = TokenStore(directory)
    assert store.ensure_first()
    text = (directory / "token").read_text()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    principal = store.token(text.strip())
    assert principal is not None
    assert (principal.name, set(principal.scopes)) == ("local", {"read", "control", "admin"})
    assert (mode(directory), mode(directory / "token"), mode(directory / "tokens.json")) == (0o700, 0o600, 0o600)
    assert text.strip() not in (directory / "tokens.json").read_text()


def test_later_starts_keep_it(directory: Path) -> None:
    assert TokenStore(directory).ensure_first()
    text = (directory / "token").read_text()
    assert not TokenStore(directory).ensure_first()
    assert (directory / "token").read_text() == text


def test_a_start_that_died_half_way_is_carried_on(directory: Path) -> None:
    TokenStore(directory).ensure_first()
    text = (directory / "token").read_text().strip()
    (directory / "tokens.json").unlink()
    store = TokenStore(directory)
    assert store.ensure_first()
    assert store.token(text) is not None


@pytest.mark.parametrize("trap", ["open", "symlink", "empty"])
def test_a_token_file_that_somebody_else_may_know_is_not_taken_up(directory: Path, trap: str, tmp_path: Path) -> None:
    plain = directory / "token"
    if trap == "symlink":
        (tmp_path / "elsewhere").write_text("x" * 50)
        plain.symlink_to(tmp_path / "elsewhere")
    else:
        plain.write_text("" if trap == "empty" else "x" * 50)
        plain.chmod(0o600 if trap == "empty" else 0o644)
    with pytest.raises(ConfigError, match="remove it"):
        TokenStore(directory).ensure_first()
    assert not (directory / "tokens.json").exists()


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o707, 0o722])
def test_a_directory_that_others_can_write_in_is_refused(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(ConfigError, match="chmod go-w"):
        prepare_data_dir(tmp_path)


def test_a_directory_that_others_can_only_read_is_fine_and_a_file_is_none(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    prepare_data_dir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be the data directory"):
        prepare_data_dir(tmp_path / "file")


@pytest.mark.parametrize(
    ("scope", "scopes"), [("read", {"read"}), ("control", {"read", "control"}), ("admin", {"read", "control", "admin"})]
)
def test_a_scope_includes_the_weaker_ones(directory: Path, scope: str, scopes: set[str]) -> None:
    store = TokenStore(directory)
    principal = store.token(store.create("mine", scope))  # type: ignore[arg-type]
    assert principal is not None
    assert (principal.name, set(principal.scopes)) == ("mine", scopes)


@pytest.mark.parametrize("text", ["", "x", "agentstream_", "agentstream_ü", "a" * 10_000_000, "\ud800", "\0"])
def test_what_is_no_token_belongs_to_nobody(directory: Path, text: str) -> None:
    store = TokenStore(directory)
    store.ensure_first()
    assert store.token(text) is None
    assert store.anonymous() is None


def test_without_auth_everybody_may_do_everything(directory: Path) -> None:
    anybody = TokenStore(directory, auth=False).anonymous()
    assert anybody is not None
    assert anybody.may("admin")


def test_a_token_expires(directory: Path) -> None:
    now = NOON
    store = TokenStore(directory, now=lambda: now)
    text = store.create("short", "read", expires_at=NOON + timedelta(hours=1))
    assert store.token(text) is not None
    now = NOON + timedelta(hours=1)
    assert store.token(text) is None
    with pytest.raises(InvalidMessage, match="expired"):
        store.create("late", "read", expires_at=NOON)


def test_another_process_revokes_it_and_the_daemon_knows_at_once(directory: Path) -> None:
    daemon, command_line = TokenStore(directory), TokenStore(directory)
    text = command_line.create("guest", "read")
    assert daemon.token(text) is not None
    command_line.revoke("guest")
    assert daemon.token(text) is None
    with pytest.raises(NotFound):
        command_line.revoke("guest")


def test_the_plain_file_goes_with_its_token_and_does_not_come_back(directory: Path) -> None:
    store = TokenStore(directory)
    store.ensure_first()
    store.revoke("local")
    assert not (directory / "token").exists()
    assert not TokenStore(directory).ensure_first()
    assert not (directory / "token").exists()


def test_names_are_unique_and_plain(directory: Path) -> None:
    store = TokenStore(directory)
    store.create("one", "read")
    with pytest.raises(Conflict, match="revoke it first"):
        store.create("one", "admin")
    for name in ("", "a b", "../x", "ü", "a" * 65):
        with pytest.raises(InvalidMessage):
            store.create(name, "read")
    with pytest.raises(InvalidMessage, match="read, control, admin"):
        store.create("two", "root")  # type: ignore[arg-type]


def test_two_command_lines_at_once_lose_nothing(directory: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: TokenStore(directory).create(f"t{number}", "read"), range(40)))
    assert {token.name for token in TokenStore(directory).tokens()} == {f"t{number}" for number in range(40)}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version":1}', '{"version":1,"tokens":[{"name":"x"}]}'])
def test_a_damaged_file_lets_nobody_in_at_the_start_and_keeps_who_was_in_later(directory: Path, damage: str) -> None:
    store = TokenStore(directory)
    text = store.create("mine", "read")
    (directory / "tokens.json").write_text(damage)
    assert store.token(text) is not None
    assert store.trouble is not None
    with pytest.raises(ConfigError, match="damaged"):
        TokenStore(directory).ensure_first()
    assert TokenStore(directory).token(text) is None


def test_hashes_are_not_shown(directory: Path) -> None:
    store = TokenStore(directory)
    store.create("mine", "read")
    assert store.tokens()[0].sha256 not in repr(store.tokens())
