"""The daemon goes away and comes back; the page goes on where it was."""

from __future__ import annotations

import re

from playwright.sync_api import Page, WebSocketRoute, expect

from tests.browser.conftest import OpenPage
from tests.browser.daemon import PATIENCE, Daemon

expect.set_options(timeout=PATIENCE * 1000)

#: Each row's number as the list tells it to screen readers, and its text.
ROWS = "[...document.querySelectorAll('.activity .row')].map(row => [row.ariaPosInSet, row.innerText])"


def labels(page: Page) -> list[list[str]]:
    found: list[list[str]] = page.evaluate(ROWS)
    return sorted(found, key=lambda row: int(row[0]))


def test_after_a_restart_nothing_is_missing_and_nothing_twice(open_page: OpenPage, daemon: Daemon) -> None:
    page = open_page()
    order = daemon.submit("restart", scenario="approval")
    daemon.wait(order)
    page.goto(f"{daemon.url}/#/work-orders/{order}")
    done = page.locator(".activity .tone-good")
    expect(done).to_be_visible()
    before = labels(page)
    page.evaluate("window.sameDocument = true")

    daemon.stop()
    expect(page.get_by_text("Reconnecting")).to_be_visible()
    # Without a flicker: what was there is still there.
    assert labels(page) == before
    daemon.start()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    assert labels(page) == before

    # What happens next arrives, in a second run of the same work order.
    daemon.call("POST", f"/work-orders/{order}/runs", {"resume": False})
    daemon.wait(order)
    expect(page.get_by_label("Run", exact=True)).to_have_text("Run 1: succeededRun 2: succeeded")
    page.get_by_label("Run", exact=True).select_option(index=0)
    expect(done).to_be_visible()
    # The status change that ended the first run, and the one that queued the second, belong to the first.
    assert labels(page)[: len(before)] == before
    assert page.evaluate("window.sameDocument") is True
    complaints: list[str] = open_page.complaints  # type: ignore[attr-defined]
    assert all("WebSocket" in complaint or "ERR_CONNECTION" in complaint for complaint in complaints), complaints
    complaints.clear()


def test_a_page_that_was_cut_off_gets_what_happened_meanwhile(open_page: OpenPage, daemon: Daemon) -> None:
    reachable = True
    sockets: list[WebSocketRoute] = []

    def connect(socket: WebSocketRoute) -> None:
        if reachable:
            socket.connect_to_server()
            sockets.append(socket)
        else:
            socket.close(code=1013)

    page = open_page(prepare=lambda page: page.route_web_socket("**/ws", connect))
    order = daemon.submit("cut off", scenario="numbers", pace=0.2, count=20)
    page.goto(f"{daemon.url}/#/work-orders/{order}")
    expect(page.locator(".activity .row").filter(has_text="Demo: line 3")).to_be_visible()
    reachable = False
    sockets[-1].close(code=1011)
    expect(page.get_by_text("Reconnecting")).to_be_visible()
    daemon.wait(order)
    reachable = True
    expect(page.locator(".activity .tone-good")).to_be_visible()
    said = " ".join(text for _, text in labels(page) if "Says" in text)
    assert re.findall(r"line (\d+)", said) == [str(number) for number in range(1, 21)]
