"""The agent's to-do list, kept from its to-do tools. Pure.

Older programs write the whole list at each change (``TodoWrite``); newer ones create and update single tasks, whose numbers are
only told in the result of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentstream.agents.content import maybe_string
from agentstream.model.events import PlanItem

#: Entries that are kept. A plan is read by people; beyond this new ones are left out.
MAX_ITEMS: Final = 500


class Plan:
    """Each change returns whether it made a difference."""

    def __init__(self) -> None:
        self._items: dict[str, PlanItem] = {}

    def items(self) -> list[PlanItem]:
        """The list as it is now, in the order of creation."""
        return list(self._items.values())

    def replace(self, entries: Any) -> bool:
        """The whole list, as `TodoWrite` and ``TaskList`` tell it; entries of another shape are left out."""
        if type(entries) is not list:
            return False
        items: dict[str, PlanItem] = {}
        for index, entry in enumerate(entries[:MAX_ITEMS]):
            if type(entry) is dict and (content := _text(entry)) is not None:
                key = maybe_string(entry, "id") or f"#{index}"
                items[key] = PlanItem(content=content, status=maybe_string(entry, "status") or "pending")
        return self._become(items)

    def create(self, key: str, content: str) -> bool:
        """One more entry, pending."""
        if key not in self._items and len(self._items) >= MAX_ITEMS:
            return False
        return self._become({**self._items, key: PlanItem(content=content, status="pending")})

    def update(self, key: str, change: Mapping[str, Any]) -> bool:
        """Change an entry; one that we have not seen belongs to an earlier run of the session, and is made up."""
        status = maybe_string(change, "status")
        if status == "deleted":
            return self._become({name: item for name, item in self._items.items() if name != key})
        old = self._items.get(key)
        if old is None:
            if len(self._items) >= MAX_ITEMS:
                return False
            old = PlanItem(content=f"Task #{key}", status="pending")
        new = PlanItem(content=_text(change) or old.content, status=status or old.status)
        return self._become({**self._items, key: new})

    def _become(self, items: dict[str, PlanItem]) -> bool:
        changed = list(items.items()) != list(self._items.items())
        self._items = items
        return changed


def _text(entry: Mapping[str, Any]) -> str | None:
    return maybe_string(entry, "content") or maybe_string(entry, "subject")
