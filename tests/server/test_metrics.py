"""Measurements that Prometheus can read, and that are right."""

from __future__ import annotations

import re
import time
from pathlib import Path

import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

import agentstream
from agentstream.server.metrics import Histogram, Metrics
from tests.support.service import open_service

ROOT = Path(agentstream.__file__).parent.parent


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return found.value
    return None


def test_a_histogram_counts_up_to_and_with_each_bound() -> None:
    histogram = Histogram()
    histogram.observe(0.0005)
    histogram.observe(0.3, count=2)
    histogram.observe(99.0)
    buckets, total = histogram.buckets()
    counts = dict(buckets)
    assert (counts["0.0005"], counts["0.25"], counts["0.5"], counts["10"], counts["+Inf"]) == (1, 1, 3, 3, 4)
    assert abs(total - 99.6005) < 1e-9


def test_two_daemons_in_one_process_do_not_share_anything() -> None:
    one, other = Metrics(), Metrics()
    one.answered("GET", "/health", 200, 0.001)
    assert sample(one, "agentstream_http_requests_total", method="GET", path="/health", status="200") == 1.0
    assert sample(other, "agentstream_http_requests_total", method="GET", path="/health", status="200") is None


def test_streams_are_counted_but_not_timed() -> None:
    metrics = Metrics()
    metrics.answered("GET", "/events", 200, None)
    assert sample(metrics, "agentstream_http_requests_total", method="GET", path="/events", status="200") == 1.0
    assert sample(metrics, "agentstream_http_request_seconds_count") == 0.0


def test_the_process_itself_is_measured() -> None:
    assert (sample(Metrics(), "process_resident_memory_bytes") or 0) > 1_000_000


async def test_a_blocked_event_loop_shows_as_lag() -> None:
    metrics = Metrics()
    async with trio.open_nursery() as nursery:
        await nursery.start(metrics.sample_loop_lag)
        with trio.fail_after(30):
            while not sample(metrics, "agentstream_event_loop_lag_seconds_count"):  # noqa: ASYNC110 - a scrape has no event
                await trio.lowlevel.checkpoint()
            time.sleep(0.6)  # noqa: ASYNC251 - blocking the loop is what is to be measured
            before = sample(metrics, "agentstream_event_loop_lag_seconds_count")
            while sample(metrics, "agentstream_event_loop_lag_seconds_count") == before:  # noqa: ASYNC110 - a scrape has no event
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert (sample(metrics, "agentstream_event_loop_lag_seconds_sum") or 0) >= 0.3


async def test_the_page_for_operators_names_every_metric(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        metrics = Metrics()
        metrics.watch(orchestration=service.orchestration, journal=service.journal, broadcast=service.broadcaster)
        exposed = metrics.render().decode()
    found = set(re.findall(r"^# TYPE (agentstream_\w+)", exposed, flags=re.MULTILINE))
    page = (ROOT / "docs" / "how-to" / "observability.md").read_text()
    assert found == set(re.findall(r"`(agentstream_\w+)`", page))
