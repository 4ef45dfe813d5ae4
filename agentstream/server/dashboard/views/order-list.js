/**
 * The list of work orders: what each asks for, where it stands, how far it is. Who needs an answer comes first, then what runs,
 * what waits and what has ended; each newest first.
 */

import { h, setAttribute, setText } from "../dom.js";
import { ago, compact, grouped, oneLine, wholeSeconds } from "../format.js";
import { FINAL, MAX_ORDERS, newestFirst } from "../store.js";

export const STATUS_LABELS = { queued: "Queued", running: "Running", succeeded: "Succeeded", failed: "Failed", canceled: "Canceled" };
export const RUN_LABELS = { ...STATUS_LABELS, interrupted: "Interrupted" };
const GROUPS = ["Needs you", "Running", "Queued", "Ended"];
// So many are shown, and so many more each time that somebody asks for more.
const PAGE = 200;

export class OrderList {
  /** @param {() => Promise<void>} onMore load the next part of the list */
  constructor(onMore) {
    this._rows = new Map();
    this._headings = GROUPS.map((name) => {
      const count = h("span", {});
      return { element: h("li", { class: "orders-group" }, h("h2", {}, name), count), count };
    });
    this._room = PAGE;
    this._search = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter work orders by their text", autocomplete: "off", oninput: () => this.render() });
    this._status = h("select", { "aria-label": "Filter work orders by status", onchange: () => this.render() }, [
      h("option", { value: "" }, "All"),
      ...Object.entries(STATUS_LABELS).map(([value, label]) => h("option", { value }, label)),
    ]);
    this._list = h("ul", { class: "orders" });
    this._empty = h("p", { class: "empty" }, "");
    this._end = h("p", { class: "muted small list-end", hidden: true }, `Older ones than the newest ${grouped(MAX_ORDERS)} are not listed here.`);
    this._more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this._showMore(onMore) }, "Load more");
    this.element = h(
      "nav",
      { class: "sidebar", "aria-label": "Work orders" },
      h("div", { class: "sidebar-filter" }, this._search, this._status),
      h("div", { class: "sidebar-scroll", tabindex: "-1" }, this._list, this._empty, this._more, this._end),
    );
  }

  render(state = this._state, view = this._view) {
    if (!state) return;
    [this._state, this._view] = [state, view];
    const { now, selected, hasMore, loaded } = view;
    const wanted = this._search.value.trim().toLowerCase();
    const status = this._status.value;
    const waiting = new Set([...state.approvals.values()].map((request) => request.workOrderId));
    const found = [...state.orders.values()]
      .filter((order) => (!status || order.status === status) && (!wanted || order.prompt.toLowerCase().includes(wanted) || order.id.includes(wanted)))
      .map((order) => ({ order, group: waiting.has(order.id) ? 0 : order.status === "running" ? 1 : order.status === "queued" ? 2 : 3 }))
      .sort((a, b) => a.group - b.group || newestFirst(a.order, b.order));
    const orders = found.slice(0, this._room);
    const focused = document.activeElement;
    const kept = new Set();
    let previous = null;
    const put = (element) => {
      const place = previous ? previous.nextSibling : this._list.firstChild;
      if (place !== element) this._list.insertBefore(element, place);
      previous = element;
    };
    for (const [index, { order, group }] of orders.entries()) {
      if (group !== orders[index - 1]?.group) put(this._headings[group].element);
      kept.add(order.id);
      let row = this._rows.get(order.id);
      if (!row) this._rows.set(order.id, (row = createRow(order.id)));
      fill(row, order, now, order.id === selected, group === 0);
      put(row.element);
    }
    for (const [group, { element, count }] of this._headings.entries()) {
      const size = found.filter((item) => item.group === group).length;
      setText(count, grouped(size));
      if (!size) element.remove();
    }
    for (const [id, row] of this._rows) {
      if (!kept.has(id)) {
        row.element.remove();
        this._rows.delete(id);
      }
    }
    // A link that moved has lost the focus.
    if (document.activeElement !== focused && this._list.contains(focused)) focused.focus({ preventScroll: true });
    this._empty.hidden = orders.length > 0;
    const nothing = hasMore ? `Nothing among the newest ${grouped(state.orders.size)} matches the filter.` : "Nothing matches the filter.";
    setText(this._empty, !loaded ? "Loading…" : state.orders.size ? nothing : "No work orders yet.");
    this._hidden = found.length - orders.length;
    const full = state.orders.size >= MAX_ORDERS;
    this._more.hidden = !this._hidden && (!hasMore || full);
    this._end.hidden = !full || !this._more.hidden;
  }

  async _showMore(load) {
    this._room += PAGE;
    this._more.disabled = true;
    // What is in memory already needs no question.
    if (this._hidden < PAGE && this._view.hasMore) await load();
    this._more.disabled = false;
    this.render();
  }
}

function createRow(id) {
  const parts = {
    dot: h("span", { class: "dot", "aria-hidden": "true" }),
    title: h("span", { class: "order-title" }),
    badge: h("span", { class: "badge attention", hidden: true }, "Needs you"),
    status: h("span", { class: "order-status" }),
    facts: h("span", { class: "order-facts" }),
    bar: h("span", { class: "bar-fill" }),
  };
  parts.track = h("span", { class: "order-bar", "aria-hidden": "true", hidden: true }, parts.bar);
  parts.link = h(
    "a",
    { class: "order", href: `#/work-orders/${encodeURIComponent(id)}` },
    h("span", { class: "order-line" }, parts.dot, parts.title, parts.badge),
    h("span", { class: "order-line small muted" }, parts.status, parts.facts),
    parts.track,
  );
  return { element: h("li", {}, parts.link), parts };
}

function fill({ parts }, order, now, selected, waiting) {
  setText(parts.title, oneLine(order.prompt, 120));
  setAttribute(parts.link, "aria-current", selected ? "true" : null);
  setAttribute(parts.link, "data-status", order.status);
  setText(parts.status, order.progress && order.status === "running" ? order.progress.phase : STATUS_LABELS[order.status] ?? order.status);
  parts.badge.hidden = !waiting;
  const facts = [];
  if (order.status === "running") {
    if (order.progress) facts.push(`${compact(order.progress.toolCalls)} tool call${order.progress.toolCalls === 1 ? "" : "s"}`);
    if (order.runStartedAt) facts.push(wholeSeconds(now - order.runStartedAt));
  } else facts.push(ago(FINAL.has(order.status) ? order.updatedAt : order.createdAt, now));
  if (order.agentType) facts.push(order.agentType);
  setText(parts.facts, facts.join(" · "));
  const running = order.status === "running";
  parts.track.hidden = !running;
  parts.track.classList.toggle("unknown", running && !order.progress);
  parts.bar.style.width = running && order.progress ? `${order.progress.percentage}%` : "";
}
