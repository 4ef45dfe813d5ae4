"""The page's pure modules, in the browser that runs them: Markdown, text, the reducer, the window over the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.daemon import PATIENCE, Daemon


@pytest.fixture(scope="module")
def page(browser: Browser, daemon: Daemon) -> Iterator[Page]:
    """The page, for all tests of this module: they only use its modules, under its Content-Security-Policy."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(f"{daemon.url}/#token={daemon.token}")
    yield page
    page.close()


def markdown(page: Page, text: str) -> str:
    html: str = page.evaluate(
        """async text => {
            const { render } = await import('/markdown.js');
            const { plain } = await import('/format.js');
            const box = document.createElement('div');
            box.append(render(plain(text)));
            for (const figure of box.querySelectorAll('figcaption')) figure.remove();
            return box.innerHTML;
        }""",
        text,
    )
    return html


def call(page: Page, module: str, function: str, *arguments: Any) -> Any:
    return page.evaluate(
        "async ([module, name, given]) => (await import(module))[name](...given)", [module, function, list(arguments)]
    )


LINK = '<a href="{0}" target="_blank" rel="noopener noreferrer nofollow">{1}</a>'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# One\n## Two", "<h3>One</h3><h4>Two</h4>"),
        ("a *b* **c** ~~d~~ `e`", "<p>a <em>b</em> <strong>c</strong> <del>d</del> <code>e</code></p>"),
        ("snake_case_name and 2 * 3 * 4", "<p>snake_case_name and 2 * 3 * 4</p>"),
        ("a\nb\n\nc", "<p>a\nb</p><p>c</p>"),
        ("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ("\\*not\\*", "<p>*not*</p>"),
        ("**open", "<p>**open</p>"),
        ("[a](https://x.test/b(c))", "<p>" + LINK.format("https://x.test/b(c)", "a") + "</p>"),
        ("see https://x.test/a.", "<p>see " + LINK.format("https://x.test/a", "https://x.test/a") + ".</p>"),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        ("[a](data:text/html,x)", "<p>[a](data:text/html,x)</p>"),
        ("![pic](https://x.test/p.png)", "<p>" + LINK.format("https://x.test/p.png", "pic") + "</p>"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("`<b>`", "<p><code>&lt;b&gt;</code></p>"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07ok\x00", "<p>red ok</p>"),
    ],
)
def test_markdown(page: Page, text: str, html: str) -> None:
    assert markdown(page, text) == html


def test_fenced_code_is_kept_as_it_is(page: Page) -> None:
    html = markdown(page, "```python\n# not a *heading*\n<b>\n```\nafter")
    assert "<code># not a *heading*\n&lt;b&gt;</code>" in html
    assert html.endswith("<p>after</p>")


def test_a_fence_that_is_never_closed_shows_the_rest(page: Page) -> None:
    assert "<code>a\nb</code>" in markdown(page, "```\na\nb")


def test_tables(page: Page) -> None:
    html = markdown(page, "| a | b |\n| --- | ---: |\n| `1` | 2 |")
    assert '<th scope="col">a</th><th scope="col" class="align-right">b</th>' in html
    assert '<td><code>1</code></td><td class="align-right">2</td>' in html


@pytest.mark.parametrize(
    "text", ["*a " * 20_000, "[" * 60_000, "~~a " * 15_000, "> " * 30_000, "`" * 60_000, "- " * 30_000]
)
def test_hostile_text_is_rendered_too(page: Page, text: str) -> None:
    # An unbounded search for a closing mark takes minutes for these, and the test's time runs out.
    assert markdown(page, text)


@pytest.mark.parametrize(
    ("function", "given", "shown"),
    [
        ("duration", 850, "850 ms"),
        ("duration", 4_200, "4.2 s"),
        ("duration", 185_000, "3 min 05 s"),
        ("wholeSeconds", 7_800_000, "2 h 10 min"),
        ("bytes", 3_500, "3.4 KB"),
        ("bytes", None, ""),
        ("compact", 12_345, "12.3k"),
        ("compact", 4_100_000, "4.1M"),
        ("money", 0.0041, "$0.0041"),
        ("money", 1.25, "$1.25"),
        ("money", None, "–"),
    ],
)
def test_numbers(page: Page, function: str, given: float | None, shown: str) -> None:
    assert call(page, "/format.js", function, given) == shown


def reduced(page: Page, messages: list[dict[str, Any]], look: str) -> Any:
    """``look`` at the state after these messages, with the work order ``w`` open."""
    # Written into the script: the page's Content-Security-Policy forbids to evaluate text.
    return page.evaluate(
        """async messages => {
            const store = await import('/store.js');
            const state = store.createState();
            store.openDetail(state, 'w').confirmed = true;
            for (const message of messages) store.reduce(state, message);
            return LOOK;
        }""".replace("LOOK", look),
        messages,
    )


def event(kind: str, seq: int | None, **fields: Any) -> dict[str, Any]:
    base = {"type": kind, "workOrderId": "w", "runId": "r", "timestamp": "2026-01-01T00:00:00.000Z"}
    return {**base, **({} if seq is None else {"seq": seq}), **fields}


def test_what_comes_twice_is_taken_once(page: Page) -> None:
    said = [event("agent_output", seq, content=f"line {seq}") for seq in (1, 2, 3)]
    rows = reduced(
        page, [*said, *said[1:], event("agent_output", 4, content="line 4")], "[...state.detail.runs.get('r').log.rows]"
    )
    assert [row["text"] for row in rows] == ["line 1", "line 2", "line 3", "line 4"]


def test_a_split_message_is_joined_and_two_messages_are_not(page: Page) -> None:
    pieces = reduced(
        page,
        [
            event("agent_output", 1, content="a" * 12_000, messageId="m1"),
            event("agent_output", 2, content="b", messageId="m1"),
            event("agent_output", 3, content="c", messageId="m1"),
        ],
        "state.detail.runs.get('r').output.pieces.map(piece => piece.text)",
    )
    assert pieces == ["a" * 12_000 + "b", "c"]


def test_memory_is_bounded(page: Page) -> None:
    sizes = page.evaluate(
        """async () => {
            const store = await import('/store.js');
            const state = store.createState();
            store.openDetail(state, 'w').confirmed = true;
            const base = { workOrderId: 'w', runId: 'r', timestamp: '2026-01-01T00:00:00.000Z' };
            for (let seq = 1; seq <= 300000; seq += 1) {
                const type = ['agent_tool_call', 'agent_output', 'agent_error', 'file_changed'][seq % 4];
                store.reduce(state, { ...base, type, seq, toolUseId: `t${seq}`, tool: 'Bash', toolName: 'Bash', input: {},
                    content: 'x'.repeat(2000), message: 'm', code: 'C', source: 'agent', path: `f${seq}`, action: 'created' });
            }
            const run = state.detail.runs.get('r');
            return { rows: run.log.length, calls: run.calls.length, index: run.callIndex.size, errors: run.errors.length,
                files: run.files.size, characters: run.output.characters, counted: run.errorCount };
        }"""
    )
    assert sizes["rows"] <= 33_000
    assert sizes["calls"] == sizes["index"] <= 55_000
    assert sizes["errors"] <= 5_000
    assert sizes["files"] <= 20_000
    assert sizes["characters"] <= 512 * 1024
    assert sizes["counted"] == 75_000


def test_a_question_that_was_asked_or_answered_meanwhile_is_newer_than_the_list_of_questions(page: Page) -> None:
    def asked(name: str) -> dict[str, Any]:
        return event("approval_requested", None, requestId=name, toolName="Bash", input={})

    messages = [asked("early"), asked("new"), event("approval_resolved", None, requestId="early", decision="allow")]
    open_questions = page.evaluate(
        """async ([listed, messages]) => {
            const store = await import('/store.js');
            const state = store.createState();
            const answers = [1, 2].map(() => store.askApprovals(state));
            for (const message of messages) store.reduce(state, message);
            const seen = [];
            for (const answer of answers) {
                store.putApprovals(state, answer, [listed]);
                seen.push([...state.approvals.keys()]);
            }
            store.putApprovals(state, store.askApprovals(state), null);
            return [...seen, [...state.approvals.keys()]];
        }""",
        [asked("early"), messages],
    )
    assert open_questions == [["new"]] * 3


def test_a_gap_is_shown(page: Page) -> None:
    rows = reduced(
        page,
        [
            event("run_started", 1, runNumber=1, agentType="demo"),
            {
                "type": "gap",
                "workOrderId": "w",
                "fromSeq": 2,
                "toSeq": 400,
                "reason": "retention",
                "timestamp": "2026-01-01T00:00:00.000Z",
            },
            event("agent_output", 401, content="after"),
        ],
        "state.detail.runs.get('r').log.rows.map(row => row.text)",
    )
    assert rows == ["Run 1, demo", "Events 2 to 400 are no longer kept.", "after"]


def test_what_is_of_no_run_is_told_in_the_run_before_it_or_the_first(page: Page) -> None:
    def order(kind: str, seq: int, **fields: Any) -> dict[str, Any]:
        return {key: value for key, value in event(kind, seq, **fields).items() if key != "runId"}

    waiting = [order("work_order_created", 1, taskPrompt="do it", status="queued")]
    assert reduced(page, waiting, "state.detail.prologue.log.rows.map(row => row.text)") == ["do it"]
    runs = reduced(
        page,
        [
            *waiting,
            order("work_order_updated", 2, status="running"),
            event("run_started", 3, runNumber=1, agentType="demo"),
            order("work_order_updated", 4, status="queued"),
            {**event("run_started", 5, runNumber=2, agentType="demo"), "runId": "r2"},
            order("work_order_updated", 6, status="succeeded"),
        ],
        "[...state.detail.runs.values()].map(run => [run.log.complete, run.log.rows.map(row => row.seq)])",
    )
    assert runs == [[True, [1, 2, 3, 4]], [True, [5, 6]]]


def test_the_list_shows_all_on_demand(page: Page) -> None:
    found = page.evaluate(
        """async () => {
            const { OrderList } = await import('/views/order-list.js');
            const { createState, MAX_ORDERS } = await import('/store.js');
            const state = createState();
            const order = { prompt: 'p', agentType: 'demo', status: 'succeeded', progress: null, runStartedAt: null };
            const add = number => state.orders.set(
                `w${number}`, { ...order, id: `w${number}`, createdAt: number, updatedAt: number });
            for (let number = 1; number <= 450; number += 1) add(number);
            let asked = 0;
            const view = { now: 1000, selected: null, hasMore: true, loaded: true };
            const list = new OrderList(async () => { asked += 1; add(0); view.hasMore = false; });
            const more = () => [...list.element.querySelectorAll('button')].find(button => button.textContent === 'Load more');
            const seen = () => [list.element.querySelectorAll('.order').length, asked, more().hidden];
            list.render(state, view);
            const steps = [seen()];
            for (let click = 0; click < 2; click += 1) {
                more().click();
                await new Promise(resolve => setTimeout(resolve));
                steps.push(seen());
            }
            for (let number = 451; number <= MAX_ORDERS; number += 1) add(number);
            view.hasMore = true;
            list.render(state, view);
            const end = () => !list.element.querySelector('.list-end').hidden;
            const before = end();
            for (const order of state.orders.values()) if (order.id === 'w7') order.prompt = 'needle';
            list.element.querySelector('input').value = 'needle';
            list.render(state, view);
            return { steps, before, after: [...seen(), end()] };
        }"""
    )
    assert found["steps"] == [[200, 0, False], [400, 0, False], [451, 1, True]]
    assert found["before"] is False
    assert found["after"] == [1, 1, True, True]


def test_a_page_that_stays_open_lets_go_of_the_oldest_that_ended(page: Page) -> None:
    left = page.evaluate(
        """async () => {
            const store = await import('/store.js');
            const state = store.createState();
            for (let number = 0; number < store.MAX_ORDERS + 600; number += 1) {
                store.reduce(state, { type: 'work_order_created', workOrderId: `w${number}`, taskPrompt: 'p', seq: number + 1,
                    status: number ? 'succeeded' : 'queued', timestamp: new Date(number).toISOString() });
            }
            return { size: state.orders.size, waiting: state.orders.has('w0'), old: state.orders.has('w1'), max: store.MAX_ORDERS };
        }"""
    )
    assert left["size"] <= left["max"] + 500
    assert (left["waiting"], left["old"]) == (True, False)


def test_another_journal_begins_anew(page: Page) -> None:
    lost = {
        "type": "gap",
        "workOrderId": "w",
        "fromSeq": 0,
        "toSeq": 9,
        "reason": "epoch",
        "timestamp": "2026-01-01T00:00:00.000Z",
    }
    rows = reduced(
        page,
        [event("agent_output", 9, content="old"), lost, event("agent_output", 1, content="new")],
        "[...state.detail.runs.values()].flatMap(run => run.log.rows.map(row => row.text))",
    )
    assert rows == ["new"]


def test_a_reader_far_up_is_not_pushed_away(page: Page) -> None:
    found = page.evaluate(
        """async () => {
            const { Log, MAX_ROWS } = await import('/log.js');
            const log = new Log();
            for (let key = 1; key <= MAX_ROWS * 2; key += 1) log.append({ key, seq: key }, true);
            return { first: log.firstSeq, detached: log.detached, missed: log.missed, length: log.length, max: MAX_ROWS };
        }"""
    )
    assert found["first"] == 1
    assert found["detached"] is True
    assert found["length"] + found["missed"] == 2 * found["max"]


def test_unknown_events_are_shown_and_hurt_nothing(page: Page) -> None:
    rows = reduced(page, [event("something_new", 1, detail="x")], "[...state.detail.runs.get('r').log.rows]")
    assert rows[0]["label"] == "something_new"
    assert json.loads(rows[0]["text"])["detail"] == "x"
