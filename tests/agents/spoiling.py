"""Lines of real programs with something wrong in them, for hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def spoilt(draw: st.DrawFn, lines: Sequence[bytes]) -> bytes:
    """One of ``lines`` with one of its values, at any depth, replaced by anything."""
    line = orjson.loads(draw(st.sampled_from(lines)))
    holder: Any = line
    while True:
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            holder[key] = draw(JSON)
            return orjson.dumps(line)
        holder = inner
