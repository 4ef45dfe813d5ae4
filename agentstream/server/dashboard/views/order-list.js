/** The list of work orders: what each asks for, where it stands, how far it is; newest first. */

import { h, setAttribute, setText } from "../dom.js";
import { ago, compact, oneLine, wholeSeconds } from "../format.js";
import { FINAL } from "../store.js";

export const STATUS_LABELS = { queued: "Queued", running: "Running", succeeded: "Succeeded", failed: "Failed", canceled: "Canceled" };
export const RUN_LABELS = { ...STATUS_LABELS, interrupted: "Interrupted" };
// The list in memory; older ones are found by the command line.
const MAX_ROWS = 500;

export class OrderList {
  /** @param {() => Promise<void>} onMore load the next part of the list */
  constructor(onMore) {
    this._rows = new Map();
    this._search = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter work orders by their text", autocomplete: "off", oninput: () => this.render() });
    this._status = h("select", { "aria-label": "Filter work orders by status", onchange: () => this.render() }, [
      h("option", { value: "" }, "All"),
      ...Object.entries(STATUS_LABELS).map(([value, label]) => h("option", { value }, label)),
    ]);
    this._list = h("ul", { class: "orders" });
    this._empty = h("p", { class: "empty" }, "");
    this._more = h("button", { type: "button", class: "quiet", hidden: true, onclick: onMore }, "Load more");
    this.element = h(
      "nav",
      { class: "sidebar", "aria-label": "Work orders" },
      h("div", { class: "sidebar-filter" }, this._search, this._status),
      h("div", { class: "sidebar-scroll", tabindex: "-1" }, this._list, this._empty, this._more),
    );
  }

  render(state = this._state, view = this._view) {
    if (!state) return;
    [this._state, this._view] = [state, view];
    const { now, selected, hasMore, loaded } = view;
    const wanted = this._search.value.trim().toLowerCase();
    const status = this._status.value;
    const waiting = new Set([...state.approvals.values()].map((request) => request.workOrderId));
    const orders = [...state.orders.values()]
      .filter((order) => (!status || order.status === status) && (!wanted || order.prompt.toLowerCase().includes(wanted) || order.id.includes(wanted)))
      .sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1))
      .slice(0, MAX_ROWS);
    const kept = new Set();
    let previous = null;
    for (const order of orders) {
      kept.add(order.id);
      let row = this._rows.get(order.id);
      if (!row) this._rows.set(order.id, (row = createRow(order.id)));
      fill(row, order, now, order.id === selected, waiting.has(order.id));
      const place = previous ? previous.nextSibling : this._list.firstChild;
      if (place !== row.element) this._list.insertBefore(row.element, place);
      previous = row.element;
    }
    for (const [id, row] of this._rows) {
      if (!kept.has(id)) {
        row.element.remove();
        this._rows.delete(id);
      }
    }
    this._empty.hidden = orders.length > 0;
    setText(this._empty, !loaded ? "Loading…" : state.orders.size ? "Nothing matches the filter." : "No work orders yet.");
    this._more.hidden = !hasMore || orders.length >= MAX_ROWS;
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
