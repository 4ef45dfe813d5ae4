"""axe-core finds nothing serious: light and dark, wide and narrow, each tab and form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.daemon import PATIENCE, Daemon

expect.set_options(timeout=PATIENCE * 1000)

AXE = Path(__file__).parents[2] / ".tools/node_modules/axe-core/axe.min.js"
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed in .tools")


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with where it is."""
    # Evaluated by the debugger: the page's Content-Security-Policy lets no other script in.
    page.evaluate(AXE.read_text())
    violations: list[dict[str, Any]] = page.evaluate("axe.run().then(found => found.violations)")
    return [
        f"{violation['id']}: {node['html'][:120]} {node.get('failureSummary', '')}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_serious_fault(open_page: OpenPage, daemon: Daemon, scheme: Literal["light", "dark"], width: int) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 844}, reduced_motion="reduce")
    done = daemon.submit("a run that ended")
    daemon.wait(done)
    daemon.wait(daemon.submit("a run that failed", scenario="no-such-scenario"))
    running = daemon.submit("a run that asks", scenario="approval", permissionMode="default", interactive=True)
    expect(page.get_by_role("link", name="a run that asks").last).to_contain_text("Needs you")
    assert faults(page) == []

    page.goto(f"{daemon.url}/#/work-orders/{running}")
    expect(page.get_by_text("May the agent use Write?")).to_be_visible()
    assert faults(page) == []
    daemon.call("DELETE", f"/work-orders/{running}")

    page.goto(f"{daemon.url}/#/work-orders/{done}")
    for name in ("Activity", "Tools", "Output", "Files", "Errors"):
        page.get_by_role("tab", name=name).click()
        if name in ("Activity", "Tools"):
            page.get_by_role("tabpanel").get_by_role("listitem").last.get_by_role("button").first.click()
            expect(page.locator(".expansion pre:visible").first).to_be_visible()
        assert faults(page) == [], name

    page.get_by_role("button", name="New").click()
    page.get_by_text("More options").click()
    assert faults(page) == []


@needs_axe
def test_no_serious_fault_where_the_token_is_asked_for(open_page: OpenPage) -> None:
    page = open_page("/")
    expect(page.get_by_label("Token")).to_be_visible()
    assert faults(page) == []
    complaints: list[str] = open_page.complaints  # type: ignore[attr-defined]
    assert all("401" in complaint for complaint in complaints), complaints
    complaints.clear()
