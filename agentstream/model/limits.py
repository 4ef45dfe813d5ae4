"""Every event fits into 64 KiB on the wire (PROTOCOL.md, "Events"). Pure.

Output and thinking that are longer are split into several events whose contents joined are the whole. Long strings anywhere
else are cut, and ``truncated`` says by path how long they were, in characters. The whole call and result stay available from
the run's raw stdout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import orjson

from agentstream.model.events import AgentOutput, AgentOutputDelta, AgentThinking, Event
from agentstream.model.names import camel

#: Existing clients expect no larger message (PROTOCOL.md). In bytes of UTF-8 JSON, with the ``seq`` spliced in.
MAX_EVENT_BYTES: Final = 64 * 1024
#: Left for the envelope of an event (ids, timestamp, seq), in bytes: ids are at most 128 characters.
_ENVELOPE: Final = 1536
_BUDGET: Final = MAX_EVENT_BYTES - _ENVELOPE
#: Strings are cut to ever smaller lengths (characters) until the event fits.
_CUTS: Final = (16_384, 4_096, 1_024, 256, 64, 16, 0)
#: What is left of a list or object with too many entries.
_MAX_ENTRIES: Final = 100

_SPLIT = (AgentOutput, AgentThinking, AgentOutputDelta)
#: Fields that are never cut: clients join on them.
_WHOLE = frozenset({"type", "work_order_id", "run_id", "timestamp", "seq", "journalled", "truncated"})


def encoded_size(value: Any) -> int:
    """Bytes of ``value`` as JSON."""
    return len(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str))


def split_text(text: str, budget: int = _BUDGET) -> Iterator[str]:
    """Pieces of ``text``, each at most ``budget`` bytes as a JSON string; joined they are the text."""
    # No character takes more than six bytes (an escaped control character), and most take one: try for more before settling
    # for what is certain.
    sizes = (budget - 2, budget // 2, budget // 3, (budget - 2) // 6)
    start = 0
    while start < len(text):
        piece = next(
            (piece for size in sizes if encoded_size(piece := text[start : start + size]) <= budget),
            text[start : start + sizes[-1]],
        )
        yield piece
        start += len(piece)


def fit(event: Event) -> list[Event]:
    """``event`` as one or more events that are each small enough. Nearly always ``[event]``, after one cheap look."""
    if _is_small(event):
        return [event]
    if isinstance(event, _SPLIT):
        return [attrs.evolve(event, content=piece) for piece in split_text(event.content)]
    return [_cut(event)]


def _is_small(event: Event) -> bool:
    match event:
        case AgentOutput() | AgentThinking() | AgentOutputDelta():
            return len(event.content) * 6 <= _BUDGET or encoded_size(event.content) <= _BUDGET
        case _:
            return _payload_size(event) <= _BUDGET


def _payload_size(event: Event) -> int:
    values = (getattr(event, field.name) for field in attrs.fields(type(event)) if field.name not in _WHOLE)
    return sum(
        encoded_size(_plain(value))
        for value in values
        if isinstance(value, str | list | dict) or attrs.has(type(value))
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [attrs.asdict(item) if attrs.has(type(item)) else item for item in value]
    return attrs.asdict(value) if attrs.has(type(value)) else value


def _cut(event: Event) -> Event:
    names = [field.name for field in attrs.fields(type(event)) if field.name not in _WHOLE]
    can_tell = "truncated" in attrs.fields_dict(type(event))
    smaller = event
    for longest in _CUTS:
        cut: dict[str, int] = {}
        changed = {name: _shorten(getattr(event, name), camel(name), longest, cut) for name in names}
        if can_tell:
            changed["truncated"] = dict(list(cut.items())[:_MAX_ENTRIES])
        smaller = attrs.evolve(event, **{name: value for name, value in changed.items() if name != "type"})
        if _payload_size(smaller) + encoded_size(changed.get("truncated")) <= _BUDGET:
            return smaller
    return smaller


def _shorten(value: Any, path: str, longest: int, cut: dict[str, int]) -> Any:
    match value:
        case str() if len(value) > longest:
            cut[path] = len(value)
            return value[:longest]
        case dict():
            if len(value) > _MAX_ENTRIES and longest < _CUTS[0]:
                cut[path] = len(value)
                value = dict(list(value.items())[:_MAX_ENTRIES])
            return {
                key[:256] if isinstance(key, str) else key: _shorten(item, f"{path}.{str(key)[:64]}", longest, cut)
                for key, item in value.items()
            }
        case list():
            if len(value) > _MAX_ENTRIES and longest < _CUTS[0]:
                cut[path] = len(value)
                value = value[:_MAX_ENTRIES]
            return [_shorten(item, f"{path}.{index}", longest, cut) for index, item in enumerate(value)]
        case _ if attrs.has(type(value)):
            names = [field.name for field in attrs.fields(type(value))]
            return attrs.evolve(
                value, **{name: _shorten(getattr(value, name), f"{path}.{camel(name)}", longest, cut) for name in names}
            )
        case _:
            return value
