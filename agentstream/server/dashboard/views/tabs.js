/** Tabs as the ARIA practices describe them: one tab stop, arrows move, the panel belongs to its tab. */

import { h, setAttribute, setText } from "../dom.js";

export class Tabs {
  /** @param {{id: string, label: string, view: {element: Node}}[]} tabs */
  constructor(label, tabs, onSelect) {
    this._onSelect = onSelect;
    this._tabs = tabs.map(({ id, label: name, view }) => {
      const count = h("span", { class: "count", hidden: true });
      const button = h(
        "button",
        { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": `panel-${id}`, onclick: () => this.select(id) },
        name,
        count,
      );
      const panel = h("div", { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}`, class: "panel", hidden: true }, view.element);
      return { id, button, panel, count };
    });
    this._list = h("div", { role: "tablist", "aria-label": label, class: "tabs" }, this._tabs.map((tab) => tab.button));
    this._list.addEventListener("keydown", (event) => this._key(event));
    this.panels = h("div", { class: "panels" }, this._tabs.map((tab) => tab.panel));
    this.element = this._list;
    this.select(tabs[0].id);
  }

  select(id) {
    this.selected = id;
    for (const tab of this._tabs) {
      const chosen = tab.id === id;
      setAttribute(tab.button, "aria-selected", String(chosen));
      setAttribute(tab.button, "tabindex", chosen ? "0" : "-1");
      tab.panel.hidden = !chosen;
    }
    this._onSelect?.(id);
  }

  /** A number beside a tab's name; 0 hides it. `tone` "bad" marks errors. */
  count(id, number, text, tone) {
    const { count } = this._tabs.find((tab) => tab.id === id);
    count.hidden = !number;
    setText(count, text);
    count.classList.toggle("bad", tone === "bad" && number > 0);
  }

  _key(event) {
    const index = this._tabs.findIndex((tab) => tab.id === this.selected);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: this._tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = this._tabs[(to + this._tabs.length) % this._tabs.length];
    this.select(tab.id);
    tab.button.focus();
  }
}
