/** What the run did to files, folder by folder. */

import { h, setText } from "../dom.js";
import { bytes, clock, grouped } from "../format.js";
import { VirtualList } from "../virtual-list.js";

// Sorting 20,000 paths takes a few milliseconds: not in every frame.
const SORT_MS = 250;

export class Files {
  /** @param {() => void} again ask for another frame */
  constructor(again) {
    this._again = again;
    this._sorted = 0;
    this._note = h("span", { class: "muted small" });
    this._list = new VirtualList({
      label: "Changed files",
      rowHeight: 30,
      empty: "No file was changed.",
      row: (row) => (row.folder ? [h("span", { class: "folder" }, row.name)] : cells(row)),
      rowClass: (row) => (row.folder ? "is-folder" : `is-file action-${row.file.action}`),
    });
    this.element = h("div", { class: "files" }, h("div", { class: "panel-bar" }, this._note), this._list.element);
  }

  render(run) {
    const changed = run !== this._run;
    if (!changed && run?.filesVersion === this._version) return;
    if (!changed && performance.now() - this._sorted < SORT_MS && run.files.size > 1000) {
      this._again();
      return;
    }
    this._run = run;
    this._version = run?.filesVersion;
    this._sorted = performance.now();
    const rows = run ? arrange(run.files.values()) : [];
    const source = { length: rows.length, base: 0, at: (index) => rows[index], key: (row) => row.key };
    const counts = { created: 0, modified: 0, deleted: 0 };
    for (const file of run?.files.values() ?? []) counts[file.action] += 1;
    setText(this._note, Object.entries(counts).filter(([, count]) => count).map(([action, count]) => `${grouped(count)} ${action}`).join(" · "));
    if (changed) this._list.show(source);
    else this._list.update(source);
  }
}

/** Folder rows and file rows in the order of their keys; NUL can't occur in a path and sorts first. */
function arrange(files) {
  const rows = [];
  const folders = new Set();
  for (const file of files) {
    const cut = file.path.lastIndexOf("/") + 1;
    const folder = file.path.slice(0, cut);
    folders.add(folder);
    rows.push({ key: `${folder}\u0000${file.path.slice(cut)}`, name: file.path.slice(cut), file, version: `${file.changes} ${file.action}` });
  }
  for (const folder of folders) rows.push({ key: `${folder}\u0000`, name: folder || "./", folder: true, version: 0 });
  return rows.sort((a, b) => (a.key < b.key ? -1 : 1));
}

function cells({ name, file }) {
  return [
    h("span", { class: "action" }, file.action),
    h("span", { class: "text" }, name),
    h("span", { class: "outcome" }, h("span", { class: "muted" }, file.changes > 1 ? `${grouped(file.changes)} changes` : ""), h("span", { class: "size" }, bytes(file.size)), h("time", { class: "time", datetime: new Date(file.at).toISOString() }, clock(file.at))),
  ];
}
