/** Everything that happens in a run, one line an event; older ones come from the journal when the reader scrolls back. */

import { details } from "../describe.js";
import { copyButton, h } from "../dom.js";
import { clock, grouped } from "../format.js";
import { VirtualList } from "../virtual-list.js";

export class Activity {
  /** @param {object} source {event(seq): Promise<event>, older(run): Promise<void>, latest(run): Promise<void>} */
  constructor(source) {
    this._source = source;
    this._loading = false;
    this._list = new VirtualList({
      label: "Activity",
      rowHeight: 30,
      follow: true,
      empty: "Nothing has happened yet.",
      row: (row) => cells(row),
      rowClass: (row) => `tone-${row.tone}${row.nested ? " nested" : ""}`,
      expand: (row) => (row.seq ? this._expand(row) : null),
      onTop: () => this._older(),
      onEnd: () => this._latest(),
      jumpLabel: () => (this._run?.log.missed ? `Jump to latest (${grouped(this._run.log.missed)} new)` : "Jump to latest"),
    });
    this.element = h("div", { class: "activity" }, this._list.element);
  }

  /** Somebody looks at a place further up. */
  get reading() {
    return !this._list.following;
  }

  /** `settled`: all that is to be replayed was replayed. */
  render(run, settled) {
    // A run of which nothing was replayed.
    if (settled && run && run !== this._filled && !run.log.length) {
      this._filled = run;
      this._older(run);
    }
    if (run !== this._run || run?.log !== this._log) {
      this._run = run;
      this._log = run?.log;
      this._version = this._log?.version;
      this._list.show(this._log ?? EMPTY);
    } else if (this._log && this._version !== this._log.version) {
      this._version = this._log.version;
      this._list.update();
    }
  }

  async _older(run = this._run) {
    if (!run || run.log.complete || this._loading) return;
    this._loading = true;
    try {
      await this._source.older(run);
      this.render(this._run, false);
    } finally {
      this._loading = false;
    }
  }

  async _latest() {
    const run = this._run;
    if (!run?.log.detached || this._loading) return;
    this._loading = true;
    try {
      await this._source.latest(run);
      this._list.show(run.log);
    } finally {
      this._loading = false;
    }
  }

  _expand(row) {
    const box = h("div", { class: "parts" }, h("p", { class: "muted" }, "Loading…"));
    this._source.event(row.seq).then(
      (event) => box.replaceChildren(...details(event).map(part)),
      (error) => box.replaceChildren(h("p", { class: "problem" }, error.message)),
    );
    return box;
  }
}

const EMPTY = { length: 0, base: 0, at: () => null, key: () => 0 };

function cells(row) {
  return [
    h("time", { class: "time", datetime: new Date(row.at).toISOString() }, clock(row.at)),
    h("span", { class: `label${row.tool ? ` tool-${row.tool}` : ""}` }, row.type === "agent_tool_result" ? `↳ ${row.label}` : row.label),
    h("span", { class: "text", dir: "auto" }, row.text),
  ];
}

/** One titled block of text, with a copy button. */
export function part({ title, text, lines }) {
  return h(
    "section",
    { class: "part" },
    h("div", { class: "part-head" }, h("span", {}, title), copyButton("Copy", () => text)),
    h("pre", { tabindex: "0", dir: "auto" }, lines ?? text),
  );
}
