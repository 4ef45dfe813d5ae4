"""What the daemon measures of itself, for Prometheus. No global registry: each `Metrics` has its own.

State is read from the parts' ``statistics()`` when somebody scrapes; nothing is kept twice. Only what has no state to read is
counted here, as plainly as possible: prometheus-client's counters and histograms take a lock and 1 us a call, ours are a dict and
a list, because every event passes them. All of it belongs to the one Trio thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Protocol

import attrs
import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from agentstream.journal.base import JournalStatistics, Record
from agentstream.orchestration.base import OrchestratorStatistics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds; from what a good path takes to what a broken one does.
_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: Seconds between two looks at the event loop's lag.
_LAG_INTERVAL: Final = 0.25


class Histogram:
    """Observations in seconds, sorted into buckets. ``observe`` takes 0.2 us."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """``count`` things took ``seconds`` each."""
        self._counts[bisect_left(_BUCKETS, seconds)] += count
        self._sum += seconds * count

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum, as Prometheus wants them."""
        bounds = [*(f"{bound:g}" for bound in _BUCKETS), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True)), self._sum


class OrchestrationSource(Protocol):
    """Of the orchestrator, what is scraped."""

    def statistics(self) -> OrchestratorStatistics:
        """A frozen look."""


class JournalSource(Protocol):
    """Of the journal, what is scraped."""

    def statistics(self) -> JournalStatistics:
        """A frozen look."""


class BroadcastNumbers(Protocol):
    """What the broadcaster tells of itself."""

    @property
    def subscribers(self) -> int:
        """Open WebSocket connections."""

    @property
    def backlog_bytes(self) -> int:
        """Frames that wait in memory, of all subscribers."""

    @property
    def catching_up(self) -> int:
        """Subscribers that read from the journal at the moment."""

    @property
    def catch_ups(self) -> int:
        """How often one fell back to the journal."""

    @property
    def delivered(self) -> int:
        """Frames handed to sockets."""

    @property
    def stalled(self) -> int:
        """Subscribers that were closed with 4008."""


class BroadcastSource(Protocol):
    """Of the broadcaster, what is scraped."""

    def statistics(self) -> BroadcastNumbers:
        """A frozen look."""


@attrs.frozen(kw_only=True)
class _Sources:
    orchestration: OrchestrationSource
    journal: JournalSource
    broadcast: BroadcastSource


class Metrics:
    """The daemon's measurements. The parts get it to observe; ``watch`` names the parts whose state is scraped."""

    def __init__(self) -> None:
        #: From reading an agent's line to handing it to a socket.
        self.delivery = Histogram()
        #: One transaction of the journal, as those who wait for it see it.
        self.commit = Histogram()
        #: How much later than asked for the event loop comes back.
        self.loop_lag = Histogram()
        #: HTTP requests, from head to last byte; event streams are left out.
        self.requests = Histogram()
        self._events: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._sources: _Sources | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def watch(self, *, orchestration: OrchestrationSource, journal: JournalSource, broadcast: BroadcastSource) -> None:
        """Scrape these from now on."""
        self._sources = _Sources(orchestration=orchestration, journal=journal, broadcast=broadcast)

    def published(self, records: Sequence[Record]) -> None:
        """These events were published."""
        events = self._events
        for record in records:
            events[record.type] += 1

    def answered(self, method: str, path: str, status: int, seconds: float | None) -> None:
        """An HTTP request was answered. ``path`` is the route's, with its placeholders, so that the series are few."""
        self._answers[method, path, status] += 1
        if seconds is not None:
            self.requests.observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus scrapes (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    async def sample_loop_lag(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Measure the event loop's lag for ever."""
        task_status.started()
        due = trio.current_time() + _LAG_INTERVAL
        while True:
            await trio.sleep_until(due)
            late = trio.current_time() - due
            self.loop_lag.observe(max(0.0, late))
            due += late + _LAG_INTERVAL

    def describe(self) -> Iterable[Metric]:
        """For the registry: nothing, so that registering doesn't scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """For the registry: everything, as it is now."""
        if self._sources is not None:
            yield from _orchestration(self._sources.orchestration.statistics())
            yield from _journal(self._sources.journal.statistics())
            yield from _broadcast(self._sources.broadcast.statistics())
        events = CounterMetricFamily("agentstream_events", "Events published, by type.", labels=["type"])
        for kind, number in self._events.items():
            events.add_metric([kind], number)
        yield events
        answers = CounterMetricFamily(
            "agentstream_http_requests", "HTTP requests answered.", labels=["method", "path", "status"]
        )
        for (method, path, status), number in self._answers.items():
            answers.add_metric([method, path, str(status)], number)
        yield answers
        for name, text, histogram in (
            ("delivery", "From reading an agent's line to handing it to a subscriber's socket.", self.delivery),
            ("journal_commit", "One transaction of the journal.", self.commit),
            ("event_loop_lag", "How much later than asked for the event loop comes back.", self.loop_lag),
            ("http_request", "From an HTTP request's head to its last byte, event streams left out.", self.requests),
        ):
            buckets, total = histogram.buckets()
            yield HistogramMetricFamily(f"agentstream_{name}_seconds", text, buckets=buckets, sum_value=total)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"agentstream_{name}", text, value=value)


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"agentstream_{name}", text, value=value)


def _orchestration(now: OrchestratorStatistics) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "agentstream_work_orders", "Work orders that have not ended, by status.", labels=["status"]
    )
    states.add_metric(["queued"], now.queued)
    states.add_metric(["running"], now.running)
    yield states
    outcomes = CounterMetricFamily("agentstream_runs", "Runs that ended, by outcome.", labels=["outcome"])
    for outcome, number in now.outcomes.items():
        outcomes.add_metric([outcome], number)
    yield outcomes
    yield _gauge("max_concurrent_runs", "The limit on running work orders.", now.max_concurrent_runs)
    yield _gauge("approvals_open", "Permission requests that wait for an answer.", now.open_approvals)
    yield _gauge("accepting", "1 while work orders are taken.", now.accepting)
    yield _count("malformed_lines", "Lines of agents that could not be read.", now.malformed_lines)


def _journal(now: JournalStatistics) -> Iterator[Metric]:
    yield _gauge("journal_head", "The highest seq.", now.head)
    yield _gauge("journal_events", "Events kept.", now.events)
    yield _gauge("journal_size_bytes", "Size of the journal on disk.", now.size_bytes)
    yield _gauge("journal_pending", "Events handed over and not yet committed.", now.pending)
    yield _gauge("journal_trouble", "1 while the disk can't be written.", now.trouble is not None)
    yield _count("journal_not_journalled", "Events that a failing disk could not take.", now.not_journalled)


def _broadcast(now: BroadcastNumbers) -> Iterator[Metric]:
    yield _gauge("subscribers", "Open WebSocket connections.", now.subscribers)
    yield _gauge("backlog_bytes", "Frames that wait in memory for slow subscribers.", now.backlog_bytes)
    yield _gauge("subscribers_catching_up", "Subscribers that read from the journal now.", now.catching_up)
    yield _count("catch_ups", "How often a subscriber fell back to the journal.", now.catch_ups)
    yield _count("deliveries", "Frames handed to sockets.", now.delivered)
    yield _count("stalled_subscribers", "Subscribers closed because they took nothing.", now.stalled)
