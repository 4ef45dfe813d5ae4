"""When the connections are asked about: when a token may have become worthless, and not otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
import trio.testing

from agentstream.server.recheck import INTERVAL, watch_tokens
from agentstream.server.tokens import TokenStore, prepare_data_dir

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def test_they_are_asked_about_after_a_revocation_and_after_an_expiry(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    prepare_data_dir(tmp_path / "data")
    clock = [NOON]
    store = TokenStore(tmp_path / "data", now=lambda: clock[-1])
    short = store.token(store.create("short", "read", expires_at=NOON + timedelta(minutes=1)))
    long = store.token(store.create("long", "read"))
    assert short is not None
    assert long is not None
    told: list[tuple[bool, bool]] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_tokens, store, [lambda: told.append((store.still(short), store.still(long)))])
        await trio.sleep(10 * INTERVAL)
        assert told == []
        clock.append(NOON + timedelta(minutes=1))
        await trio.sleep(2 * INTERVAL)
        assert told == [(False, True)]
        # By somebody else: the command line, which is another process.
        TokenStore(tmp_path / "data").revoke("long")
        await trio.sleep(2 * INTERVAL)
        assert told == [(False, True), (False, False)]
        nursery.cancel_scope.cancel()


def test_a_new_token_of_the_same_name_and_another_scope_are_other_callers(tmp_path: Path) -> None:
    prepare_data_dir(tmp_path / "data")
    store = TokenStore(tmp_path / "data")
    first = store.token(store.create("name", "read"))
    assert first is not None
    store.revoke("name")
    second = store.token(store.create("name", "read"))
    assert second is not None
    assert (store.still(first), store.still(second)) == (False, True)
    file = tmp_path / "data" / "tokens.json"
    file.write_text(file.read_text().replace('"read"', '"control"'))
    assert not store.still(second)


def test_who_needed_no_token_stays_as_long_as_none_is_needed(tmp_path: Path) -> None:
    prepare_data_dir(tmp_path / "data")
    open_house = TokenStore(tmp_path / "data", auth=False)
    anybody = open_house.anonymous()
    assert anybody is not None
    assert open_house.still(anybody)
    assert not TokenStore(tmp_path / "data").still(anybody)
