"""How often a client may ask: one token bucket each. Pure; time is an argument.

A bucket holds ``burst`` tokens and gets ``rate`` back each second; a request takes one. The table of clients is bounded: the
one that was quiet for longest is forgotten, which gives it a full bucket, as its silence nearly always has already.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Clients that are remembered; a bucket takes about 200 bytes.
MAX_CLIENTS: Final = 10_000


class RateLimiter:
    """Token buckets by client. ``rate`` in requests per second."""

    def __init__(self, rate: float, burst: int, *, max_clients: int = MAX_CLIENTS) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._max_clients = max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, now: float) -> float:
        """0.0 when the request may pass at ``now`` (monotonic seconds), otherwise the seconds until one may."""
        tokens, then = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - then) * self._rate)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate
        self._buckets[client] = (tokens if wait else tokens - 1.0, now)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        return wait
