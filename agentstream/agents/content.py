"""What agents print, read without trusting it. Pure.

A line can't hurt (promise 9): it may be cut off, carry half a surrogate pair, nest a thousand levels deep, or have a list where
a string belongs. `load` gives JSON that our own encoder can write again; the small readers below give a value of the right type
or say that it isn't one. Tool results become text that people can read; base64 never gets into an event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from agentstream.model.names import camel

#: orjson reads 1,024 levels but writes only 254, and recursion in Python ends near 1,000 frames. Real tool input has under 20.
MAX_DEPTH: Final = 64
#: Larger integers don't survive JavaScript; no token count comes near.
_MAX_INT: Final = 2**53 - 1

#: One JSON escape at a time, so that an escaped backslash before a "u" is not taken for one.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


class Malformed(Exception):
    """A line that is no JSON object. ``kind`` groups what is told only once a run, ``why`` is for people."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(kind, why)
        self.kind = kind
        self.why = why


def load(line: bytes) -> dict[str, Any]:
    """The JSON object in ``line``, at most `MAX_DEPTH` levels deep; raises `Malformed`."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        value = _load_repaired(line, error)
    if not isinstance(value, dict):
        raise Malformed("not an object", "is JSON, but not an object")
    # Counting brackets is a fast upper bound for the depth; most lines end here.
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        return {key: _pruned(item, MAX_DEPTH - 1) for key, item in value.items()}
    return value


def _load_repaired(line: bytes, error: orjson.JSONDecodeError) -> Any:
    r"""Node writes a string that was cut inside an emoji as ``"\ud83d"``: legal there, refused by orjson."""
    repaired = _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], line) if b"\\u" in line else line
    if repaired != line:
        try:
            return orjson.loads(repaired)
        except orjson.JSONDecodeError:
            pass
    try:
        line.decode()
    except UnicodeDecodeError as undecodable:
        raise Malformed("not UTF-8", f"is not UTF-8 (byte {undecodable.start + 1})") from None
    raise Malformed("broken JSON", f"is not JSON ({error.msg}, character {error.pos + 1})") from None


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        below: list[Any] = []
        for item in level:
            inner = item.values() if type(item) is dict else item
            below += [child for child in inner if type(child) is dict or type(child) is list]
        if not below:
            return False
        level = below
    return True


def _pruned(value: Any, levels: int) -> Any:
    if type(value) is dict:
        return {key: _pruned(item, levels - 1) for key, item in value.items()} if levels else "[nested too deep]"
    if type(value) is list:
        return [_pruned(item, levels - 1) for item in value] if levels else "[nested too deep]"
    return value


# --- a value of the right type, or not ---------------------------------------------------------------------------


def string(item: Mapping[str, Any], key: str) -> str:
    """The string at ``key``; raises TypeError when there is none, which makes the line an ``agent_raw``."""
    value = item.get(key)
    if not isinstance(value, str):
        raise TypeError(key)
    return value


def maybe_string(item: Mapping[str, Any], key: str) -> str | None:
    """The string at ``key``, or None; an empty one counts as none."""
    value = item.get(key)
    return value if type(value) is str and value else None


def mapping(value: Any) -> dict[str, Any]:
    """``value`` when it is an object, otherwise an empty one."""
    return value if type(value) is dict else {}


def number(value: Any) -> float | None:
    """``value`` when it is a number that is not negative, otherwise None."""
    return float(value) if type(value) in (int, float) and value >= 0 else None


def count(value: Any) -> int:
    """``value`` as a count: 0 when it is none."""
    return min(int(value), _MAX_INT) if type(value) in (int, float) and value > 0 else 0


def time_of(seconds: Any) -> datetime | None:
    """Seconds since 1970 as a time; None when they are none, or out of range."""
    try:
        return datetime.fromtimestamp(seconds, UTC) if type(seconds) in (int, float) else None
    except (ValueError, OverflowError, OSError):
        return None


def picked(item: Mapping[str, Any], *names: str) -> dict[str, Any] | None:
    """Those of ``names`` that ``item`` has, by their names on our wire."""
    return {camel(name): item[name] for name in names if item.get(name) is not None} or None


# --- text for people -----------------------------------------------------------------------------------------------


def readable(content: Any) -> str:
    """A tool result's content (a string, a block, or a list of blocks) as text, without base64."""
    if type(content) is str:
        return content
    if type(content) is list:
        return "\n".join([_block_text(block) for block in content])
    return "" if content is None else _block_text(content)


def _block_text(block: Any) -> str:
    if type(block) is str:
        return block
    if type(block) is not dict:
        return orjson.dumps(block).decode()
    kind = block.get("type")
    text = block.get("text")
    if type(text) is str:
        return text
    if kind in ("image", "document"):
        return f"[{kind}{_source_text(mapping(block.get('source')))}]"
    name = maybe_string(block, "tool_name") or maybe_string(block, "title") or maybe_string(block, "error_code")
    return f"[{kind if type(kind) is str else 'content'}{' ' + name if name else ''}]"


def _source_text(source: Mapping[str, Any]) -> str:
    media = maybe_string(source, "media_type")
    data = source.get("data")
    if type(data) is not str:
        url = maybe_string(source, "url")
        return f" {url[:200]}" if url and not url.startswith("data:") else ""
    size = len(data) // 4 * 3 - data.count("=", -2) if source.get("type") == "base64" else len(data)
    return f" {media or 'data'}, {max(size, 0)} bytes"


def preview(text: str, limit: int | None) -> str:
    """The first ``limit`` characters, then ``...`` when there are more; None: all of it."""
    return text if limit is None or len(text) <= limit else text[:limit] + "..."
