"""Secrets don't get through, in whatever spelling and however the bytes are cut; everything else does, unchanged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.redaction import Redactor, secrets_in

KEY = "sk-test-0123456789"
QUOTED = 'pa"ss\\wörd\nwith 🔑 inside'


def test_a_secret_is_replaced_by_its_name() -> None:
    redactor = Redactor({"API_KEY": KEY})
    assert redactor.data(b"key=" + KEY.encode() + b".") == b"key=[redacted:API_KEY]."
    assert redactor.text(f"{KEY}{KEY}") == "[redacted:API_KEY][redacted:API_KEY]"


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_secret_inside_json_and_inside_json_inside_json_is_found(ascii_only: bool) -> None:
    redactor = Redactor({"PASSWORD": QUOTED})
    once = json.dumps({"value": QUOTED}, ensure_ascii=ascii_only)
    twice = json.dumps({"value": once}, ensure_ascii=ascii_only)
    assert json.loads(redactor.text(once)) == {"value": "[redacted:PASSWORD]"}
    assert json.loads(json.loads(redactor.text(twice))["value"]) == {"value": "[redacted:PASSWORD]"}


def test_a_secret_that_begins_with_another_one_is_replaced_whole() -> None:
    assert Redactor({"SHORT": KEY, "LONG": KEY + "-and-more"}).text(KEY + "-and-more") == "[redacted:LONG]"


def test_lines_of_a_key_file_are_secrets_of_their_own() -> None:
    pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END KEY-----"
    assert "MIIE" not in Redactor({"PEM": pem}).text("the line MIIEvQIBADANBgkqhkiG9w0B alone")


def test_short_values_are_no_secrets() -> None:
    assert Redactor({"DEBUG_TOKEN": "true"}).text("true story") == "true story"
    assert secrets_in({"A_TOKEN": "true", "B_TOKEN": KEY, "PATH": KEY}, ["*_TOKEN"]) == {"B_TOKEN": KEY}


def test_structures_are_redacted_to_their_leaves_and_keys() -> None:
    redactor = Redactor({"K": KEY})
    assert redactor.value({"a": [KEY, {"b" + KEY: (KEY.encode(), 5, None)}]}) == {
        "a": ["[redacted:K]", {"b[redacted:K]": [b"[redacted:K]", 5, None]}]
    }


def test_a_structure_too_deep_to_look_into_is_not_shown() -> None:
    value: object = KEY
    for _ in range(100):
        value = [value]
    assert KEY not in repr(Redactor({"K": KEY}).value(value))


def test_binary_data_and_lone_surrogates_pass() -> None:
    redactor = Redactor({"K": KEY})
    assert redactor.data(b"\xff\x00" + KEY.encode() + b"\xfe") == b"\xff\x00[redacted:K]\xfe"
    assert redactor.text("\ud800" + KEY) == "\ud800[redacted:K]"


def test_without_secrets_nothing_happens() -> None:
    redactor = Redactor()
    assert redactor.data(b"x") == b"x"
    assert redactor.stream().feed(b"x") == b"x"


@given(
    parts=st.lists(st.sampled_from([b"aaaaaaaa", b"aaaaaaaab", b"ab", b"a", b"\n", b"secret-one"]), max_size=12),
    cuts=st.lists(st.integers(1, 7), max_size=60),
)
def test_a_stream_is_redacted_the_same_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    redactor = Redactor({"A": "aaaaaaaa", "B": "aaaaaaaab", "ONE": "secret-one"})
    data = b"".join(parts)
    stream = redactor.stream()
    out, rest = b"", data
    for cut in cuts:
        out += stream.feed(rest[:cut])
        rest = rest[cut:]
    out += stream.feed(rest)
    assert out + stream.close() == redactor.data(data)
