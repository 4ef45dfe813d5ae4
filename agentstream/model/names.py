"""snake_case in Python, camelCase on the wire."""

from __future__ import annotations

from functools import cache


@cache
def camel(name: str) -> str:
    """``work_order_id`` -> ``workOrderId``."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
