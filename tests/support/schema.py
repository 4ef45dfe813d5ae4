"""Checks values against the part of JSON Schema that `agentstream.model.schema` writes; any other keyword is a failure.

A full validator is run over the same documents by schemathesis (`tests/end_to_end/test_openapi.py`); this one lets every test of
the HTTP API check every answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from tests.support.asgi import Answer

_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: (
        (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) and not isinstance(value, bool)
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}
_SAYS_NOTHING: Final = {"description", "default", "discriminator"}


def problems(value: Any, schema: Mapping[str, Any], document: Mapping[str, Any], path: str = "$") -> list[str]:
    """What is wrong with ``value``; empty when it is valid. ``document`` is where references point into."""
    found: list[str] = []
    for keyword, rule in schema.items():
        match keyword:
            case "$ref":
                target: Any = document
                for part in rule.removeprefix("#/").split("/"):
                    target = target[part]
                found += problems(value, target, document, path)
            case "type":
                kinds = [rule] if isinstance(rule, str) else rule
                if not any(_TYPES[kind](value) for kind in kinds):
                    found.append(f"{path}: {value!r} is no {kinds}")
            case "const" | "enum":
                if value not in ([rule] if keyword == "const" else rule):
                    found.append(f"{path}: {value!r} is not {rule!r}")
            case "required":
                found += [f"{path}.{name} is missing" for name in rule if name not in value]
            case "properties":
                for name, inner in rule.items():
                    if isinstance(value, dict) and name in value:
                        found += problems(value[name], inner, document, f"{path}.{name}")
            case "additionalProperties":
                for name, item in value.items() if isinstance(value, dict) else ():
                    found += problems(item, rule, document, f"{path}.{name}")
            case "items":
                for number, item in enumerate(value if isinstance(value, list) else ()):
                    found += problems(item, rule, document, f"{path}[{number}]")
            case "oneOf" | "anyOf":
                valid = sum(not problems(value, inner, document, path) for inner in rule)
                if valid == 0 or (keyword == "oneOf" and valid > 1):
                    found.append(f"{path}: {valid} of {keyword} fit {value!r}")
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                fits = {
                    "minimum": "__ge__",
                    "maximum": "__le__",
                    "exclusiveMinimum": "__gt__",
                    "exclusiveMaximum": "__lt__",
                }
                if isinstance(value, int | float) and not getattr(float(value), fits[keyword])(float(rule)):
                    found.append(f"{path}: {value!r} is not {keyword} {rule}")
            case "minLength":
                if isinstance(value, str) and len(value) < rule:
                    found.append(f"{path}: {value!r} is too short")
            case "pattern":
                # Unlike JavaScript's, Python's $ also matches before a last newline.
                if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", rule), value):
                    found.append(f"{path}: {value!r} does not match {rule}")
            case "format":
                assert rule == "date-time"
                if isinstance(value, str):
                    datetime.fromisoformat(value)
            case _:
                assert keyword in _SAYS_NOTHING, f"unknown keyword {keyword}"
    return found


class DocumentedAnswers:
    """Fails when an answer is one that the OpenAPI document does not tell of."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._paths = {path: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))) for path in document["paths"]}
        #: (method, path, status) that were checked.
        self.seen: set[tuple[str, str, int]] = set()

    def __call__(self, method: str, path: str, answer: Answer) -> None:
        """Check one answer."""
        template = next((name for name, pattern in self._paths.items() if pattern.fullmatch(path)), None)
        operation = self._document["paths"].get(template, {}).get(method.lower())
        if operation is None or method == "HEAD":
            return
        documented = operation["responses"].get(str(answer.status))
        assert documented is not None, f"{method} {template} answers {answer.status}, which no document tells of"
        media = answer.headers["content-type"].partition(";")[0]
        schema = documented["content"][media]["schema"]
        value = json.loads(answer.body) if media == "application/json" else answer.body.decode("utf-8", "replace")
        wrong = problems(value, schema, self._document)
        assert not wrong, f"{method} {template} {answer.status}: {wrong}"
        self.seen.add((method, template or "", answer.status))
