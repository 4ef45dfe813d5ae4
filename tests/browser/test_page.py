"""What a user does, tab by tab."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenPage, wait_until
from tests.browser.daemon import PATIENCE, Daemon

expect.set_options(timeout=PATIENCE * 1000)


def show(page: Page, daemon: Daemon, work_order_id: str) -> None:
    page.goto(f"{daemon.url}/#/work-orders/{work_order_id}")


def status(page: Page) -> Locator:
    return page.locator(".run-header .badge")


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def rows(page: Page) -> Locator:
    return page.get_by_role("tabpanel").get_by_role("listitem")


# --- coming in -------------------------------------------------------------------------------------------------------


def test_the_token_leaves_the_address_and_survives_a_reload(open_page: OpenPage, daemon: Daemon) -> None:
    for address in (f"/?token={daemon.token}", f"/#token={daemon.token}"):
        page = open_page(address)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        assert daemon.token not in page.url
        page.reload()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_without_a_token_it_asks_for_one(open_page: OpenPage, daemon: Daemon) -> None:
    page = open_page("/")
    page.get_by_label("Token").fill("not-a-token")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert").filter(visible=True)).to_be_visible()
    page.get_by_label("Token").fill(daemon.token)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    # The browser's console reports each refused request; nothing else.
    complaints: list[str] = open_page.complaints  # type: ignore[attr-defined]
    assert all("401" in complaint for complaint in complaints), complaints
    complaints.clear()


# --- one run, from the form to the end ---------------------------------------------------------------------------------


def test_a_work_order_from_the_form_to_its_end(page: Page, daemon: Daemon) -> None:
    page.get_by_role("button", name="New work order").click()
    page.get_by_label("What is to be done").fill("Count the words of a text")
    page.get_by_label("Agent", exact=True).select_option("demo")
    page.get_by_role("button", name="Start").click()

    # In the list and open at once; its run moves while it is watched.
    expect(page.get_by_role("heading", name="Count the words of a text")).to_be_visible()
    entry = page.get_by_role("navigation").get_by_role("link", name="Count the words of a text")
    expect(entry).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", "0")
    expect(status(page)).to_have_text("Succeeded")
    expect(entry).to_contain_text("Succeeded")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
    expect(page.locator(".stat-cost")).to_contain_text("$0.00")
    expect(page.get_by_role("img", name=re.compile(r"Timeline\. \d+ tool calls"))).to_be_visible()
    page.get_by_text("Plan: 5 of 5 done").click()
    expect(page.get_by_text("Make the tests pass")).to_be_visible()

    expect(rows(page).last).to_contain_text("Status")
    expect(page.locator(".activity .tone-good")).to_contain_text("Completed")


def test_tools_show_input_and_output_whole_and_can_be_filtered(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("tools")
    daemon.wait(order)
    show(page, daemon, order)
    tab(page, "Tools")
    panel = page.get_by_role("tabpanel")
    panel.get_by_label("Tool", exact=True).select_option("Bash")
    expect(rows(page)).to_have_count(5)
    failing = rows(page).filter(has_text="failed")
    expect(failing).to_have_count(1)
    failing.get_by_role("button").first.click()
    expect(failing.get_by_text("FAIL: test_case_does_not_matter")).to_be_visible()
    expect(failing.get_by_text("python3 -B -m unittest -v test_words")).to_have_count(2)
    panel.get_by_label("Tool", exact=True).select_option("Edit")
    rows(page).get_by_role("button").first.click()
    expect(page.locator(".removed")).to_contain_text('r"[a-z\']+", text)')
    expect(page.locator(".added")).to_contain_text("text.lower()")
    panel.get_by_label("Tool", exact=True).select_option("")
    assert rows(page).count() > 10


def test_output_is_markdown_that_can_be_copied(open_page: OpenPage, daemon: Daemon) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    order = daemon.submit("output")
    daemon.wait(order)
    show(page, daemon, order)
    tab(page, "Output")
    panel = page.get_by_role("tabpanel")
    expect(panel.get_by_role("heading", name="Demo: done")).to_be_visible()
    expect(panel.get_by_role("cell", name="demo/words.py")).to_be_visible()
    panel.locator("figure").get_by_role("button", name="Copy").click()
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == 'for word in re.findall(r"[a-z\']+", text.lower()):'


def test_files_are_shown_by_folder(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("files", pace=0.2)
    daemon.wait(order)
    show(page, daemon, order)
    tab(page, "Files")
    expect(rows(page).first).to_have_text("demo/")
    expect(rows(page).filter(has_text="test_words.py")).to_contain_text("created")
    expect(rows(page).filter(has_text="README.md")).to_contain_text("B")


def test_errors_are_shown_whole(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("errors", scenario="no-such-scenario")
    daemon.wait(order)
    show(page, daemon, order)
    expect(status(page)).to_have_text("Failed")
    tab(page, "Errors")
    stderr = rows(page).filter(has_text="no-such-scenario").first
    stderr.get_by_role("button").first.click()
    expect(stderr.locator("pre").first).to_contain_text("invalid choice")


# --- talking to a run ------------------------------------------------------------------------------------------------


def test_cancel(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("cancel me", scenario="long")
    show(page, daemon, order)
    expect(page.locator(".tools .open, .activity .row").filter(has_text="sleep 600")).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(status(page)).to_have_text("Canceled")
    assert daemon.wait(order) == "canceled"
    expect(page.get_by_role("button", name="Run again")).to_be_visible()


def test_interrupt_then_a_further_message_then_the_end(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("talk", scenario="long", interactive=True)
    show(page, daemon, order)
    expect(rows(page).filter(has_text="sleep 600")).to_be_visible()
    page.get_by_role("button", name="Interrupt", exact=True).click()
    expect(rows(page).filter(has_text="The user doesn't want to proceed")).to_be_visible()
    message = page.get_by_label("Message to the agent")
    message.fill("remember the milk")
    message.press("Enter")
    expect(message).to_have_value("")
    expect(rows(page).filter(has_text="you said: remember the milk")).to_be_visible()
    expect(rows(page).filter(has_text="I wrote that down")).to_be_visible()
    page.get_by_role("button", name="End input").click()
    expect(status(page)).to_have_text("Succeeded")

    # Its session can be taken up again.
    message.fill("and the bread")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_label("Run", exact=True)).to_be_visible()
    expect(rows(page).filter(has_text="resumed")).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(status(page)).to_have_text("Canceled")
    page.get_by_label("Run", exact=True).select_option(index=0)
    expect(rows(page).filter(has_text="you said: remember the milk")).to_be_visible()


def test_questions_are_answered_on_the_page(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("ask me", scenario="approval", permissionMode="default")
    show(page, daemon, order)
    questions = page.get_by_role("region", name="Questions of the agent")
    expect(questions).to_contain_text("May the agent use Write?")
    expect(page.get_by_role("navigation").get_by_role("link", name="ask me")).to_contain_text("Needs you")
    questions.get_by_role("button", name="Allow").click()
    expect(questions).to_contain_text("May the agent use Bash?")
    questions.get_by_label("Reason").fill("not on a Friday")
    questions.get_by_role("button", name="Deny").click()
    expect(questions).to_be_hidden()
    expect(status(page)).to_have_text("Succeeded")
    expect(rows(page).filter(has_text="not on a Friday").first).to_be_visible()
    tab(page, "Output")
    expect(page.get_by_role("tabpanel")).to_contain_text("the file was written, the command did not run")


# --- text stays text ---------------------------------------------------------------------------------------------------


def test_markup_in_what_an_agent_prints_stays_text(page: Page, daemon: Daemon) -> None:
    markup = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> \x1b[31mred\x1b[0m"
    order = daemon.submit(markup)
    daemon.wait(order)
    show(page, daemon, order)
    expect(page.locator(".title")).to_contain_text("<script>window.hacked = 1</script>")
    page.locator(".activity .scroller").evaluate("element => { element.scrollTop = 0; }")
    expect(rows(page).filter(has_text="<img src=x").first).to_be_visible()
    tab(page, "Output")
    said = page.get_by_role("tabpanel").get_by_text("You asked:")
    expect(said).to_contain_text("<script>window.hacked = 1</script>")
    expect(said).to_contain_text(" red")
    assert "\x1b" not in said.inner_text()
    assert page.get_by_role("tabpanel").locator("script, img").count() == 0
    assert page.evaluate("window.hacked") is None


# --- keyboard and scrolling --------------------------------------------------------------------------------------------


def test_everything_can_be_done_with_the_keyboard(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("keys")
    daemon.wait(order)
    show(page, daemon, order)
    page.get_by_role("tab", name="Activity").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Tools")).to_be_focused()
    expect(page.get_by_role("tab", name="Tools")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Errors")).to_be_focused()
    page.keyboard.press("Home")
    expect(rows(page).first).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expanded = page.locator('.row-main[aria-expanded="true"]')
    expect(expanded).to_be_focused()
    expect(expanded).to_have_count(1)
    expect(page.locator(".expansion")).to_be_visible()
    page.keyboard.press("Enter")
    expect(expanded).to_have_count(0)


def test_reading_further_up_is_not_disturbed(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("scroll", scenario="calls", pace=0.02, count=400)
    show(page, daemon, order)
    scroller = page.locator(".activity .scroller")
    # It follows: rows beyond the first screen are in view without anybody scrolling.
    wait_until(page, "document.querySelector('.activity .scroller').scrollTop > 600")
    scroller.evaluate("element => { element.scrollTop = 300; }")
    expect(page.get_by_role("button", name="Jump to latest")).to_be_visible()
    there = rows(page).nth(10).inner_text()
    height = scroller.evaluate("element => element.scrollHeight")
    wait_until(page, f"document.querySelector('.activity .scroller').scrollHeight > {height} + 600")
    assert scroller.evaluate("element => element.scrollTop") == 300
    assert rows(page).nth(10).inner_text() == there
    page.get_by_role("button", name="Jump to latest").click()
    expect(page.get_by_role("button", name="Jump to latest")).to_be_hidden()
    daemon.wait(order)
    expect(page.locator(".activity .tone-good")).to_contain_text("Completed")


# --- the list ----------------------------------------------------------------------------------------------------------


def test_the_list_is_filtered_and_lives(page: Page, daemon: Daemon) -> None:
    first = daemon.submit("a needle in the list")
    daemon.wait(first)
    navigation = page.get_by_role("navigation")
    expect(navigation.get_by_role("link", name="a needle in the list")).to_contain_text("Succeeded")
    navigation.get_by_label("Filter work orders by their text").fill("needle")
    expect(navigation.get_by_role("link")).to_have_count(1)
    navigation.get_by_label("Filter work orders by status").select_option("failed")
    expect(navigation.get_by_text("Nothing matches the filter.")).to_be_visible()
    navigation.get_by_label("Filter work orders by status").select_option("")
    # A work order that somebody else submits appears by itself.
    daemon.submit("another needle")
    expect(navigation.get_by_role("link")).to_have_count(2)


def test_what_needs_somebody_and_what_runs_is_on_top(page: Page, daemon: Daemon) -> None:
    daemon.wait(ended := daemon.submit("group ended"))
    asking = daemon.submit("group asking", scenario="approval", permissionMode="default")
    running = daemon.submit("group running", scenario="long")
    navigation = page.get_by_role("navigation")
    navigation.get_by_label("Filter work orders by their text").fill("group ")
    expect(navigation.get_by_role("heading")).to_have_text(["Needs you", "Running", "Ended"])
    titles = navigation.locator(".order-title")
    expect(titles).to_have_text(["group asking", "group running", "group ended"])
    # It moves while it has the focus, and keeps it.
    link = navigation.get_by_role("link", name="group running")
    link.focus()
    daemon.call("DELETE", f"/work-orders/{running}")
    expect(navigation.get_by_role("heading")).to_have_text(["Needs you", "Ended"])
    expect(titles).to_have_text(["group asking", "group running", "group ended"])
    expect(link).to_be_focused()
    daemon.call("DELETE", f"/work-orders/{asking}")
    daemon.wait(asking)
    show(page, daemon, ended)
    expect(rows(page).first).to_be_visible()


def test_activity_begins_with_the_order_and_shows_one_that_waits(page: Page, daemon: Daemon) -> None:
    order = daemon.submit("from the beginning", scenario="approval", permissionMode="acceptEdits")
    daemon.wait(order)
    show(page, daemon, order)
    for _ in range(2):
        expect(rows(page).nth(0)).to_contain_text("Createdfrom the beginning")
        expect(rows(page).nth(1)).to_contain_text("Statusqueued → running")
        expect(rows(page).nth(2)).to_contain_text("StartedRun 1, demo")
        page.reload()


def test_an_unknown_work_order_is_said_to_be_unknown(open_page: OpenPage, daemon: Daemon) -> None:
    page = open_page()
    show(page, daemon, "no-such-work-order")
    expect(page.get_by_text("There is no such work order.")).to_be_visible()
    complaints: list[str] = open_page.complaints  # type: ignore[attr-defined]
    assert all("404" in complaint for complaint in complaints), complaints
    complaints.clear()


def test_on_a_phone_the_list_leads_to_the_run_and_back(open_page: OpenPage, daemon: Daemon) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    order = daemon.submit("on a phone")
    daemon.wait(order)
    page.get_by_role("link", name="on a phone").click()
    expect(page.get_by_role("heading", name="on a phone")).to_be_visible()
    expect(page.get_by_role("navigation")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("link", name="Back to the list").click()
    expect(page.get_by_role("navigation")).to_be_visible()
