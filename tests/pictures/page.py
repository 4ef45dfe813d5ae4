"""The pictures of the page in docs/images, made from the real daemon with the demo agent.

Run as ``python -m tests.pictures.page``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.daemon import PATIENCE, Daemon

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


def prepare(daemon: Daemon) -> tuple[str, str]:
    """A list worth looking at; the work order that runs, and one that has ended."""
    daemon.wait(daemon.submit("Say which tests are slow, and why"))
    daemon.wait(daemon.submit("Upgrade the parser to the new grammar", scenario="a scenario that is none"))
    stopped = daemon.submit("Rebuild the search index from scratch", scenario="long")
    daemon.wait(stopped, "running")
    daemon.call("DELETE", f"/work-orders/{stopped}")
    daemon.submit("Tidy up the release scripts", scenario="approval", permissionMode="default")
    ended = daemon.submit("Count the words of a text, with tests", pace=0.3)
    daemon.wait(ended)
    return daemon.submit("Write a word counter, and show that it works", pace=0.9, interactive=True), ended


def open_page(browser: Browser, daemon: Daemon, size: dict[str, int], scheme: str, work_order_id: str) -> Page:
    context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1.5, reduced_motion="reduce")  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(f"{daemon.url}/?token={daemon.token}#/work-orders/{work_order_id}")
    return page


def main() -> None:
    """Write light.png, dark.png, tools.png and phone.png."""
    if CHROMIUM is None:
        sys.exit("no chromium is installed")
    expect.set_options(timeout=PATIENCE * 1000)
    IMAGES.mkdir(parents=True, exist_ok=True)
    # A name without meaning: it can be read in the pictures.
    directory = Path(tempfile.gettempdir()) / "agentstream-demo"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        with Daemon(directory) as daemon, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            running, ended = prepare(daemon)
            light = open_page(browser, daemon, WIDE, "light", running)
            dark = open_page(browser, daemon, WIDE, "dark", running)
            phone = open_page(browser, daemon, PHONE, "light", running)
            for page, name in ((light, "light"), (dark, "dark"), (phone, "phone")):
                expect(page.locator(".activity .row").filter(has_text="Edit").last).to_be_attached()
                page.screenshot(path=IMAGES / f"{name}.png")
            tools = open_page(browser, daemon, WIDE, "light", ended)
            tools.get_by_role("tab", name="Tools").click()
            tools.get_by_role("listitem").filter(has_text="Edit").get_by_role("button").first.click()
            expect(tools.locator(".removed")).to_be_visible()
            tools.screenshot(path=IMAGES / "tools.png")
            output = open_page(browser, daemon, WIDE, "dark", ended)
            output.get_by_role("tab", name="Output").click()
            expect(output.get_by_role("heading", name="Demo: done")).to_be_visible()
            output.screenshot(path=IMAGES / "output.png")
            browser.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
