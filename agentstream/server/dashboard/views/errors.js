/** What went wrong in a run, in the agent or around it. */

import { details } from "../describe.js";
import { h } from "../dom.js";
import { clock } from "../format.js";
import { VirtualList } from "../virtual-list.js";
import { part } from "./activity.js";

export class Errors {
  constructor() {
    this._list = new VirtualList({
      label: "Errors",
      rowHeight: 34,
      follow: true,
      empty: "No errors.",
      row: (row) => [
        h("time", { class: "time", datetime: new Date(row.at).toISOString() }, clock(row.at)),
        h("span", { class: "label source" }, row.source),
        h("span", { class: "text", dir: "auto" }, row.text),
        h("span", { class: "outcome" }, h("code", {}, row.code)),
      ],
      expand: (row) => h("div", { class: "parts" }, details(row.event).map(part)),
    });
    this.element = h("div", { class: "errors" }, this._list.element);
  }

  render(run) {
    if (run === this._run && run?.errorsVersion === this._version) return;
    const changed = run !== this._run;
    this._run = run;
    this._version = run?.errorsVersion;
    const rows = run?.errors ?? [];
    const source = { length: rows.length, base: (run?.errorCount ?? 0) - rows.length, at: (index) => rows[index], key: (row) => row.key };
    if (changed) this._list.show(source);
    else this._list.update(source);
  }
}
