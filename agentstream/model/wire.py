"""THE converter: between our attrs classes and JSON on the wire and in the journal.

Outward: camelCase keys, ``type`` first, optional fields that are None left out, times as ISO 8601 UTC with milliseconds and ``Z``.
Inward: strict. JSON's types are not coerced ("5" is no number, 1 is no boolean); unknown keys are ignored; the first thing
that is wrong becomes one `InvalidMessage` that names the field by its path on the wire and says what was expected.
Nothing else in the package may build a cattrs converter.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
import orjson
from cattrs import ClassValidationError, Converter, IterableValidationError
from cattrs.fns import identity
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn_from_attrs, override

from agentstream.errors import InvalidMessage, ParseFailed
from agentstream.model.events import EVENT_CLASSES, Event, UnknownEvent
from agentstream.model.messages import CLIENT_MESSAGES, ClientMessage, Filters, Submit
from agentstream.model.names import camel
from agentstream.model.orders import WorkOrderRequest

T = TypeVar("T")

#: How deep a refused value is quoted in a message, in characters.
_QUOTED = 60


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]


@lru_cache(maxsize=16)
def format_time(moment: datetime) -> str:
    """ISO 8601, UTC, milliseconds, ``Z``. Raises ``TypeError`` for a time without a zone."""
    # Events come many to the moment and many to the second: formatting each would be the dearest part of encoding them.
    seconds, milliseconds = divmod((moment - _EPOCH) // _MILLISECOND, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


class _Expected(Exception):
    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected)
        self.expected = expected
        self.value = value


def _exactly(kind: type, expected: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _Expected(expected, value)
        return value

    return structure


def _integer(value: Any, _: Any) -> int:
    # JSON has one kind of number: 5.0 is an integer (JSON Schema 2020-12, and so our documents), as far as floats can tell.
    if type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if type(value) is not int:
        raise _Expected("an integer", value)
    return value


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise _Expected("a number", value)
    return float(value)


def _time(value: Any, _: Any) -> datetime:
    if type(value) is str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise _Expected("an ISO 8601 time, 2026-01-31T12:00:00Z for example", value)


def _object(value: Any, _: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise _Expected("an object", value)
    return value


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _literal(value: Any, kind: Any) -> Any:
    allowed = get_args(kind)
    if value not in allowed or type(value) is bool:
        raise _Expected("one of " + ", ".join(map(str, allowed)), value)
    return value


def _optional_of(kind: Any) -> Any | None:
    if get_origin(kind) not in (Union, types.UnionType):
        return None
    inner = [arg for arg in get_args(kind) if arg is not type(None)]
    return inner[0] if len(inner) == 1 and len(get_args(kind)) == 2 else None


def _is_json(kind: Any) -> bool:
    """Whether the values of a type go into JSON as they are. ``Any`` in our classes is always parsed JSON."""
    if kind in (str, int, float, bool, Any, type(None)) or get_origin(kind) is Literal:
        return True
    return get_origin(kind) in (Union, types.UnionType, list, dict) and all(map(_is_json, get_args(kind)))


def _make_converter() -> Converter:
    # detailed_validation gives the path of a wrong field; the generated code is as fast for what is right.
    converter = Converter(detailed_validation=True, forbid_extra_keys=False)

    def unstructure_attrs(cls: type) -> Callable[[Any], dict[str, Any]]:
        fields = attrs.fields(attrs.resolve_types(cls))
        overrides: Any = {
            field.name: override(rename=camel(field.name), omit_if_default=field.default is None) for field in fields
        }
        type_first = sorted(fields, key=lambda field: field.name != "type")
        return make_dict_unstructure_fn_from_attrs(
            type_first, cls, converter, _cattrs_include_init_false=True, **overrides
        )

    def structure_attrs(cls: type) -> Callable[[Any, Any], Any]:
        fields = attrs.fields(attrs.resolve_types(cls))
        overrides: Any = {field.name: override(rename=camel(field.name)) for field in fields}
        generated: Callable[[Any, Any], Any] = make_dict_structure_fn(cls, converter, **overrides)

        def structure(value: Any, kind: Any) -> Any:
            if type(value) is not dict:
                raise _Expected("an object", value)
            return generated(value, kind)

        return structure

    def structure_optional(kind: Any) -> Callable[[Any, Any], Any]:
        inner: Any = _optional_of(kind)

        def structure(value: Any, _: Any) -> Any:
            return None if value is None else converter.structure(value, inner)

        return structure

    def structure_list(kind: Any) -> Callable[[Any, Any], Any]:
        (inner,) = get_args(kind)

        def structure(value: Any, _: Any) -> Any:
            if type(value) is not list:
                raise _Expected("a list", value)
            return [_indexed(converter, item, inner, index) for index, item in enumerate(value)]

        return structure

    def structure_mapping(kind: Any) -> Callable[[Any, Any], Any]:
        _, inner = get_args(kind)

        def structure(value: Any, _: Any) -> Any:
            if type(value) is not dict:
                raise _Expected("an object", value)
            return {key: _indexed(converter, item, inner, key) for key, item in value.items()}

        return structure

    converter.register_unstructure_hook_factory(_is_json, lambda _: identity)
    converter.register_unstructure_hook_factory(attrs.has, unstructure_attrs)
    converter.register_structure_hook_factory(attrs.has, structure_attrs)
    converter.register_structure_hook_factory(lambda kind: _optional_of(kind) is not None, structure_optional)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is list, structure_list)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is dict, structure_mapping)
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook(str, _exactly(str, "a string"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(datetime, _time)
    converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
    converter.register_unstructure_hook(datetime, format_time)
    return converter


class _AtIndex(Exception):
    def __init__(self, index: object, cause: BaseException) -> None:
        super().__init__(index)
        self.index = index
        self.cause = cause


def _indexed(converter: Converter, item: Any, kind: Any, index: object) -> Any:
    try:
        return converter.structure(item, kind)
    except Exception as error:
        raise _AtIndex(index, error) from error


converter = _make_converter()


# --- outward -------------------------------------------------------------------------------------------------------


def to_json(value: Any) -> bytes:
    """One of our classes as compact JSON text (UTF-8)."""
    return orjson.dumps(converter.unstructure(value))


def to_dict(value: Any) -> dict[str, Any]:
    """One of our classes as what `to_json` would print."""
    return cast("dict[str, Any]", converter.unstructure(value))


#: Looked up once: the converter's own dispatch takes longer than the unstructuring, and this is done for every event.
_UNSTRUCTURE_EVENT: dict[type[Event], Callable[[Event], dict[str, Any]]] = {
    cls: converter.get_unstructure_hook(cls) for cls in EVENT_CLASSES
}


def event_body(event: Event) -> bytes:
    """An event's JSON text as the journal stores it. Its ``seq``, if any, is left out: see `with_seq`."""
    if event.seq is not None:
        event = attrs.evolve(event, seq=None)
    unstructure = _UNSTRUCTURE_EVENT.get(type(event))
    value = unstructure(event) if unstructure is not None else converter.unstructure(event)
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def not_journalled(body: bytes) -> bytes:
    """Splice ``journalled: false`` into a body: what subscribers get while the disk takes nothing (C.7)."""
    return b'{"journalled":false,%b' % body[1:]


def with_seq(body: bytes, seq: int) -> bytes:
    """Splice ``seq`` into a stored body: what a subscriber gets. The event is encoded once, whatever its ``seq``."""
    return b'{"seq":%d,%b' % (seq, body[1:])


# --- inward --------------------------------------------------------------------------------------------------------


def type_of(cls: type[Any]) -> str:
    """The ``type`` tag of an event or message class."""
    return cast("str", attrs.fields_dict(cls)["type"].default)


_EVENTS: dict[str, type[Event]] = {type_of(cls): cls for cls in EVENT_CLASSES}
_CLIENT_MESSAGES: dict[str, type[ClientMessage]] = {type_of(cls): cls for cls in CLIENT_MESSAGES}
_FILTER_KEYS = tuple(camel(field.name) for field in attrs.fields(Filters))


def json_object(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object; `ParseFailed` says what it is instead."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ParseFailed(f"not JSON: {error}; send one JSON object per message") from None
    if type(value) is not dict:
        raise ParseFailed(f"expected a JSON object, got {_quote(value)}")
    return cast("dict[str, Any]", value)


def structure(value: Mapping[str, Any], cls: type[T]) -> T:
    """Make ``cls`` of a JSON object; `InvalidMessage` names the first wrong field."""
    try:
        return converter.structure(value, cls)
    except Exception as error:  # noqa: BLE001 - cattrs and validators raise anything; all of it is the sender's fault
        raise _invalid(error) from None


def event_from_dict(value: Mapping[str, Any]) -> Event:
    """An event as a client got it. A type that this version doesn't know becomes `UnknownEvent`."""
    cls = _EVENTS.get(value.get("type", ""))
    if cls is None:
        base = structure({"workOrderId": "", **value}, Event)
        return UnknownEvent(
            type=str(value.get("type", "")),
            work_order_id=base.work_order_id,
            timestamp=base.timestamp,
            seq=base.seq,
            data=dict(value),
        )
    return structure(value, cls)


def client_message(text: str | bytes) -> ClientMessage:
    """A client's message; `ParseFailed` or `InvalidMessage` when it isn't one."""
    value = json_object(text)
    kind = value.get("type")
    cls = _CLIENT_MESSAGES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise _problem("type", "one of " + ", ".join(_CLIENT_MESSAGES), kind, missing="type" not in value)
    if "filters" in _wire_keys(cls):
        at_top = {key: value[key] for key in _FILTER_KEYS if key in value}
        if at_top and type(value.get("filters", {})) is dict:
            value = {**value, "filters": {**at_top, **value.get("filters", {})}}
    if cls is Submit:
        message_id = value.get("id")
        if message_id is not None and type(message_id) is not str:
            raise _problem("id", "a string", message_id)
        body = {**value, "id": value.get("workOrderId", message_id)}
        return Submit(id=message_id, request=structure(body, WorkOrderRequest))
    return structure(value, cls)


def _wire_keys(cls: type) -> set[str]:
    return {camel(field.name) for field in attrs.fields(cls)}


# --- one clear message ----------------------------------------------------------------------------------------------


def _quote(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = orjson.dumps(value, default=repr).decode()
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."


def _problem(path: str, expected: str, value: object, *, missing: bool = False) -> InvalidMessage:
    got = "it is missing" if missing else f"got {_quote(value)}"
    return InvalidMessage(
        f"{path or 'message'}: expected {expected}, {got}", details={"field": path, "expected": expected}
    )


def _invalid(error: BaseException) -> InvalidMessage:
    path: list[str] = []
    while True:
        match error:
            case ClassValidationError():
                first = error.exceptions[0]
                for note in getattr(first, "__notes__", ()):
                    if (name := getattr(note, "name", None)) is not None:
                        path.append(camel(name))
                if isinstance(first, KeyError):
                    # The missing key, already by its name on the wire.
                    key = str(first.args[0])
                    if not path or path[-1] != key:
                        path.append(key)
                    return _problem(".".join(path), "a value", None, missing=True)
                error = first
            case IterableValidationError():
                error = error.exceptions[0]
            case _AtIndex():
                path.append(str(error.index))
                error = error.cause
            case _Expected():
                return _problem(".".join(path), error.expected, error.value)
            case InvalidMessage():
                return error
            case _:
                return _from_validator(path, error)


#: What the fields look like whose validator is a regular expression.
_FORMS: Final = {
    "id": "letters, digits and ._:- (at most 128)",
    "traceparent": "a W3C trace context, 00-TRACE-PARENT-FLAGS",
}


def _from_validator(path: list[str], error: BaseException) -> InvalidMessage:
    """What attrs' own validators say: they raise ValueError about the attribute by its Python name."""
    text = str(error)
    field = next((arg.name for arg in error.args if isinstance(arg, attrs.Attribute)), None)
    if field is None and text.startswith("'"):
        field = text[1:].partition("'")[0]
    elif field is None and "'" in text:
        field = text.split("'")[1]
    where = [*path, camel(field)] if field else path
    rule = text.partition(" must be ")[2] or text
    rule = rule.partition(" (")[0].partition(":")[0]
    if "Length of" in text:
        rule = "not empty" if ">= 1" in text else "of length " + text.partition(" must be ")[2]
    elif isinstance(error.args[0] if error.args else None, str) and "match regex" in text:
        rule = _FORMS[field or ""]
    expected = f"a value {rule}" if rule[:1] in "<>=" else rule
    return InvalidMessage(
        f"{'.'.join(where) or 'message'}: expected {expected}", details={"field": ".".join(where), "expected": expected}
    )


def hints(cls: type[Any]) -> dict[str, Any]:
    """Resolved annotations of an attrs class, by field name; for the generated schemas."""
    return typing.get_type_hints(cls)
