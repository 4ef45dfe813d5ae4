"""JSON Schema (2020-12) of the attrs classes, for OpenAPI, AsyncAPI and the documentation. Pure.

What `wire` does is what is said here: names in camelCase, JSON's types not coerced, unknown keys ignored, bounds from attrs'
validators, and None where a field may be None: a client may send null for it, we leave it out. So the schemas of what comes in
allow null and those of what goes out don't; a class that is used in both directions is described as it comes in. Descriptions
are the classes' docstrings and the ``#:`` comments above their fields.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin

import attrs

from agentstream.model import wire
from agentstream.model.names import camel

_SCALARS: Final[dict[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    datetime: {"type": "string", "format": "date-time"},
    Any: {},
}
_BOUNDS: Final = {">=": "minimum", "<=": "maximum", ">": "exclusiveMinimum", "<": "exclusiveMaximum"}

JsonSchema = dict[str, Any]


class Schemas:
    """Collects the schemas of classes and of what they refer to, each once, under its class's name.

    ``reference`` makes the pointer to a class: ``#/components/schemas/NAME`` in OpenAPI.
    """

    def __init__(self, reference: Callable[[str], str] = "#/components/schemas/{}".format) -> None:
        self._reference = reference
        self._components: dict[str, JsonSchema] = {}

    @property
    def components(self) -> Mapping[str, JsonSchema]:
        """All schemas so far, by name."""
        return dict(sorted(self._components.items()))

    def incoming(self, cls: type[Any]) -> JsonSchema:
        """A reference to ``cls`` as we accept it: null is allowed where a field is optional."""
        return self._class(cls, nullable=True)

    def outgoing(self, cls: type[Any]) -> JsonSchema:
        """A reference to ``cls`` as we send it: an absent optional field is left out."""
        return self._class(cls, nullable=False)

    def add(self, name: str, schema: JsonSchema) -> JsonSchema:
        """Keep a schema that is no class's under ``name``; returns the reference to it."""
        self._components[name] = schema
        return {"$ref": self._reference(name)}

    def fields(self, cls: type[Any], *, nullable: bool) -> Iterator[tuple[attrs.Attribute[Any], JsonSchema]]:
        """Each field of ``cls`` with its schema: for query parameters, which are no JSON object."""
        hints = wire.hints(cls)
        told = _comments(cls)
        for field in attrs.fields(cls):
            schema = self._of(hints[field.name], nullable=nullable)
            _bound(schema, field.validator)
            if field.name in told and "$ref" not in schema:
                schema["description"] = told[field.name]
            if field.default not in (attrs.NOTHING, None) and isinstance(field.default, str | int | float):
                schema["default"] = field.default
            yield field, schema

    def _class(self, cls: type[Any], *, nullable: bool) -> JsonSchema:
        name = cls.__name__
        if name not in self._components:
            self._components[name] = {}
            self._components[name] = self._object(cls, nullable=nullable)
        return {"$ref": self._reference(name)}

    def _object(self, cls: type[Any], *, nullable: bool) -> JsonSchema:
        properties: dict[str, JsonSchema] = {}
        required = []
        for field, schema in self.fields(cls, nullable=nullable):
            if field.name == "type" and not field.init:
                schema = {"const": field.default}
            properties[camel(field.name)] = schema
            if field.default is attrs.NOTHING or not field.init:
                required.append(camel(field.name))
        described = {"description": inspect.cleandoc(cls.__doc__)} if cls.__doc__ else {}
        return {"type": "object", **described, "properties": properties, **({"required": required} if required else {})}

    def _of(self, kind: Any, *, nullable: bool) -> JsonSchema:
        if kind in _SCALARS:
            return dict(_SCALARS[kind])
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        if origin in (Union, types.UnionType):
            (inner,) = [argument for argument in arguments if argument is not type(None)]
            schema = self._of(inner, nullable=nullable)
            return _or_null(schema) if nullable else schema
        if origin in (list, tuple):
            return {"type": "array", "items": self._of(arguments[0], nullable=nullable)}
        if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
            return {"type": "object", "additionalProperties": self._of(arguments[1], nullable=nullable)}
        if attrs.has(kind):
            return self._class(kind, nullable=nullable)
        raise TypeError(f"no schema for {kind!r}")


def _or_null(schema: JsonSchema) -> JsonSchema:
    if "enum" in schema:
        return {**schema, "type": ["string", "null"], "enum": [*schema["enum"], None]}
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema


def _bound(schema: JsonSchema, validator: Any) -> None:
    """Add what attrs' validators demand. They keep it in public attributes of classes that have no public name."""
    if validator is None:
        return
    for inner in getattr(validator, "_validators", ()):
        _bound(schema, inner)
    if hasattr(validator, "validator"):
        _bound(schema, validator.validator)
    if hasattr(validator, "bound"):
        schema[_BOUNDS[validator.compare_op]] = validator.bound
    if hasattr(validator, "min_length"):
        schema["minLength"] = validator.min_length
    if hasattr(validator, "max_length"):
        schema["maxLength"] = validator.max_length
    if hasattr(validator, "pattern"):
        schema["pattern"] = f"^(?:{validator.pattern.pattern})$"


def _comments(cls: type[Any]) -> Mapping[str, str]:
    """The ``#:`` comment above each field, by name, also of inherited fields."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if attrs.has(base):
            found |= _comments_of_module(base.__module__).get(base.__qualname__, {})
    return found


@cache
def _comments_of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    # The whole module at once: inspect.getsource(cls) parses all of it again for each class.
    source = inspect.getsource(sys.modules[module])
    lines = [line.strip() for line in source.splitlines()]
    return {
        statement.name: _comments_above_fields(statement, lines)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.ClassDef)
    }


def _comments_above_fields(definition: ast.ClassDef, lines: list[str]) -> dict[str, str]:
    found = {}
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            above: list[str] = []
            number = statement.lineno - 2
            while number >= 0 and lines[number].startswith("#:"):
                above.insert(0, lines[number].removeprefix("#:").strip())
                number -= 1
            if above:
                found[statement.target.id] = " ".join(above)
    return found


def one_of(references: Iterable[JsonSchema], tags: Iterable[str]) -> JsonSchema:
    """Any of several messages, told apart by ``type``."""
    references = list(references)
    mapping = {tag: reference["$ref"] for tag, reference in zip(tags, references, strict=True)}
    return {"oneOf": references, "discriminator": {"propertyName": "type", "mapping": mapping}}
