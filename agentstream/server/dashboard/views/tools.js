/** The tool calls of a run: each with its result and duration; the whole input and output are fetched when a row is opened. */

import { h, setText } from "../dom.js";
import { clock, compact, duration, grouped, plain } from "../format.js";
import { LANES } from "../timeline.js";
import { VirtualList } from "../virtual-list.js";
import { part } from "./activity.js";

// More than this at once makes the page slow; the rest is one click away.
const SHOWN = 100_000;

export class Tools {
  /** @param {(run: object, call: object) => Promise<object>} fetchCall */
  constructor(fetchCall) {
    this._fetch = fetchCall;
    this._filter = "";
    this._select = h("select", { id: "tool-filter", onchange: () => this._filtered() });
    this._note = h("span", { class: "muted small" });
    this._list = new VirtualList({
      label: "Tool calls",
      rowHeight: 34,
      follow: true,
      empty: "No tool calls.",
      row: (call) => cells(call),
      rowClass: (call) => `${call.ms === null ? "open" : call.ok ? "ok" : "failed"}${call.parent ? " nested" : ""}`,
      expand: (call) => this._expand(call),
    });
    this.element = h(
      "div",
      { class: "tools" },
      h("div", { class: "panel-bar" }, h("label", { htmlFor: "tool-filter" }, "Tool"), this._select, this._note),
      this._list.element,
    );
  }

  render(run) {
    if (run === this._run && run?.callsVersion === this._version) return;
    const changed = run !== this._run;
    this._run = run;
    this._version = run?.callsVersion;
    this._options();
    const calls = run ? (this._filter ? run.calls.filter((call) => call.tool === this._filter) : run.calls) : [];
    this._calls = calls;
    const failed = calls.reduce((sum, call) => sum + (call.ok === false ? 1 : 0), 0);
    const open = calls.reduce((sum, call) => sum + (call.ms === null ? 1 : 0), 0);
    const parts = [`${grouped(calls.length)} call${calls.length === 1 ? "" : "s"}`];
    if (failed) parts.push(`${grouped(failed)} failed`);
    if (open && run.status === "running") parts.push(`${grouped(open)} under way`);
    if (run?.callsDropped) parts.push(`${grouped(run.callsDropped)} earlier ones are not shown`);
    setText(this._note, parts.join(" · "));
    const source = this._source();
    if (changed) this._list.show(source);
    else this._list.update(source);
  }

  /** Show this call, opened. */
  reveal(call) {
    if (this._filter && this._filter !== call.tool) {
      this._select.value = "";
      this._filtered();
    }
    this._list.reveal(call.key);
  }

  _source() {
    const calls = this._calls;
    return { length: calls.length, base: this._filter ? 0 : this._run?.callsDropped ?? 0, at: (index) => calls[index], key: (call) => call.key };
  }

  _filtered() {
    this._filter = this._select.value;
    const run = this._run;
    this._run = null;
    this.render(run);
  }

  _options() {
    const tools = this._run ? LANES.filter((tool) => this._run.tools.has(tool)) : [];
    const labels = ["All", ...tools.map((tool) => `${tool} (${grouped(this._run.tools.get(tool))})`)];
    const shown = [...this._select.options].map((option) => option.text);
    if (labels.join("\n") === shown.join("\n")) return;
    const values = ["", ...tools];
    this._select.replaceChildren(...values.map((value, index) => h("option", { value }, labels[index])));
    this._filter = values.includes(this._filter) ? this._filter : "";
    this._select.value = this._filter;
  }

  _expand(call) {
    const box = h("div", { class: "parts" }, h("p", { class: "muted" }, "Loading…"));
    this._fetch(this._run, call).then(
      (whole) => box.replaceChildren(...sections(whole, call)),
      (error) => box.replaceChildren(h("p", { class: "problem" }, error.message)),
    );
    return box;
  }
}

function cells(call) {
  const state = call.ms === null ? "…" : duration(call.ms);
  return [
    h("time", { class: "time", datetime: new Date(call.at).toISOString() }, clock(call.at)),
    h("span", { class: `label tool-${call.tool}` }, call.name),
    h("span", { class: "text", dir: "auto" }, call.text),
    h("span", { class: "outcome" }, call.ok === false ? h("span", { class: "badge", "data-status": "failed" }, "failed") : null, call.length ? h("span", { class: "muted length" }, `${compact(call.length)} chars`) : null, h("span", { class: "ms" }, state)),
  ];
}

function sections(whole, call) {
  const input = whole.input ?? {};
  const nodes = [];
  if (typeof input.old_string === "string" && typeof input.new_string === "string") {
    const { old_string: before, new_string: after, ...rest } = input;
    nodes.push(...inputs(rest), diff(plain(before), plain(after)));
  } else nodes.push(...inputs(input));
  const out = [];
  if (whole.content == null) out.push(h("p", { class: "muted" }, call.ms === null ? "No result yet." : "No output."));
  else out.push(long(call.ok === false ? "Error" : "Result", plain(whole.content)));
  return [fold("Input", nodes.length ? nodes : [h("p", { class: "muted" }, "No input.")]), fold("Output", out)];
}

function fold(title, nodes) {
  return h("details", { open: true, class: "fold" }, h("summary", {}, title), nodes);
}

/** Short values as a table of facts, long ones each in a block of its own. */
function inputs(input) {
  const facts = [];
  const blocks = [];
  for (const [name, value] of Object.entries(input)) {
    if (value === null || value === "") continue;
    const text = plain(typeof value === "string" ? value : JSON.stringify(value, null, 2));
    if (text.length <= 160 && !text.includes("\n") && name !== "command") facts.push(h("dt", {}, name), h("dd", { dir: "auto" }, text));
    else blocks.push(long(name, text));
  }
  return [facts.length ? h("dl", { class: "facts-list" }, facts) : null, ...blocks].filter(Boolean);
}

function long(title, text) {
  if (text.length <= SHOWN) return part({ title, text });
  const section = part({ title, text: text.slice(0, SHOWN) });
  const all = h("button", { type: "button", class: "quiet", onclick: () => section.replaceWith(part({ title, text })) }, `Show all ${grouped(text.length)} characters`);
  section.append(all);
  return section;
}

function diff(before, after) {
  const line = (sign, text) => h("span", { class: sign === "+" ? "added" : "removed" }, `${sign} ${text}\n`);
  const lines = [...before.split("\n").map((text) => line("-", text)), ...after.split("\n").map((text) => line("+", text))];
  return part({ title: "change", text: after, lines });
}
