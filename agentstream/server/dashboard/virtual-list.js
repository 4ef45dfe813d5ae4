/**
 * A list of any length of which only the visible rows are in the document.
 *
 * Every row has the same height, so where a row is follows from its number; one row may be expanded, and its extra height is
 * measured. The list follows its end until the reader scrolls up, and again once they scroll back down. When rows are dropped or
 * added at the head, the rows that are being read stay where they are.
 *
 * It reads from a `source`: {length, base, at(index), key(row)}; `base` is the number of the first row since the beginning, so
 * that a change of `base` tells how many rows came or went at the head.
 */

import { h, setAttribute, setText } from "./dom.js";

// Rows beyond the edges, so that a quick flick doesn't show white.
const OVERSCAN = 6;
// How long after a row was expanded what comes into it is brought into view, in milliseconds.
const BRING_IN = 1500;

export class VirtualList {
  /**
   * @param {object} options
   * @param {string} options.label accessible name
   * @param {number} options.rowHeight in CSS pixels; the style sheet must agree
   * @param {(row: object) => Node[]} options.row the cells of a row
   * @param {(row: object) => string} [options.rowClass]
   * @param {(row: object) => Node | null} [options.expand] what an expanded row shows; without it rows can't be expanded
   * @param {boolean} [options.follow] stay at the end
   * @param {() => void} [options.onTop] the reader came near the beginning
   * @param {string} options.empty what to say when there is nothing
   */
  constructor(options) {
    this.options = options;
    this.following = Boolean(options.follow);
    this.expandedKey = null;
    this._activeKey = null;
    this._rows = new Map();
    this._source = null;
    this._base = 0;
    this._extra = 0;
    this._lastTop = 0;
    this._empty = h("p", { class: "empty" }, options.empty);
    this._spacer = h("div", { class: "spacer", role: "list", "aria-label": options.label });
    this._jump = h("button", { type: "button", class: "jump", hidden: true, onclick: () => this.toEnd() }, "Jump to latest");
    this._scroller = h("div", { class: "scroller", tabindex: "-1", onscroll: () => this._scrolled() }, this._spacer, this._empty);
    this.element = h("div", { class: "virtual-list" }, this._scroller, this._jump);
    this._scroller.addEventListener("keydown", (event) => this._key(event));
    // Also when the panel that it is in is shown.
    this._sizes = new ResizeObserver(() => {
      if (this.following && this._source) this._stickToEnd();
      this._layout();
    });
    this._sizes.observe(this._scroller);
    this._expansion = null;
    this._expansionSize = new ResizeObserver(() => this._measure());
  }

  /** Show another source; the place and the expanded row are forgotten. */
  show(source) {
    this._source = source;
    this._base = source.base;
    this.collapse();
    this._activeKey = null;
    this.following = Boolean(this.options.follow);
    for (const entry of this._rows.values()) entry.element.remove();
    this._rows.clear();
    this._scroller.scrollTop = 0;
    this._lastTop = 0;
    this.update();
  }

  /** The source changed, or is a newer one of the same rows: stay at the end, or at the row that is being read. */
  update(source = this._source) {
    this._source = source;
    if (!source) return;
    const moved = (this._source.base - this._base) * this.options.rowHeight;
    this._base = this._source.base;
    this._empty.hidden = this._source.length > 0;
    if (this.expandedKey !== null && this._indexOf(this.expandedKey) < 0) this.collapse();
    this._resize();
    if (moved && !this.following) {
      this._lastTop = Math.max(0, this._scroller.scrollTop - moved);
      this._scroller.scrollTop = this._lastTop;
    }
    if (this.following) this._stickToEnd();
    this._layout();
  }

  /** Go to the end and follow it. */
  toEnd() {
    this.options.onEnd?.();
    this.following = Boolean(this.options.follow);
    this._stickToEnd();
    this._layout();
  }

  /** Expand the row with this key and bring it into view. */
  reveal(key) {
    const index = this._indexOf(key);
    if (index < 0) return;
    this.following = false;
    this._activeKey = key;
    this._scroller.scrollTop = Math.max(0, (index - 2) * this.options.rowHeight);
    this._layout();
    if (this.expandedKey !== key) this._toggle(key);
  }

  collapse() {
    this._expansionSize.disconnect();
    this._expansion?.remove();
    this._expansion = null;
    this.expandedKey = null;
    this._extra = 0;
  }

  _indexOf(key) {
    // Keys are ordered like rows, so that a list of 30,000 is searched in 15 steps.
    let low = 0;
    let high = this._source.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const found = this._source.key(this._source.at(middle));
      if (found === key) return middle;
      if (found < key) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  _resize() {
    const height = this._source.length * this.options.rowHeight + this._extra;
    if (this._height !== height) {
      this._height = height;
      this._spacer.style.height = `${height}px`;
    }
  }

  _stickToEnd() {
    this._scroller.scrollTop = this._scroller.scrollHeight;
    this._lastTop = this._scroller.scrollTop;
  }

  _scrolled() {
    const top = this._scroller.scrollTop;
    const atEnd = top + this._scroller.clientHeight >= this._scroller.scrollHeight - 2;
    // Only moving up lets go of the end; a list that grows under a still reader must not.
    if (top < this._lastTop - 1 && !atEnd) this.following = false;
    else if (atEnd && this.options.follow) this.following = true;
    this._lastTop = top;
    if (top < this.options.rowHeight * 20 && !this.following) this.options.onTop?.();
    this._layout();
  }

  _topOf(index) {
    const after = this.expandedKey !== null && index > this._expandedIndex ? this._extra : 0;
    return index * this.options.rowHeight + after;
  }

  _layout() {
    if (!this._source) return;
    const { rowHeight } = this.options;
    const view = this._scroller.clientHeight;
    if (!view) return;
    this._expandedIndex = this.expandedKey === null ? -1 : this._indexOf(this.expandedKey);
    const top = this._scroller.scrollTop;
    // The expanded row's extra height lies somewhere above or in the window: look that much further up.
    const first = Math.max(0, Math.floor((top - this._extra) / rowHeight) - OVERSCAN);
    const last = Math.min(this._source.length - 1, Math.ceil((top + view) / rowHeight) + OVERSCAN);
    const wanted = new Map();
    for (let index = first; index <= last; index += 1) {
      const row = this._source.at(index);
      wanted.set(this._source.key(row), { row, index });
    }
    for (const [key, entry] of this._rows) {
      if (!wanted.has(key)) {
        if (entry.element.contains(document.activeElement)) this._scroller.focus({ preventScroll: true });
        entry.element.remove();
        this._rows.delete(key);
      }
    }
    const active = this._activeKey !== null && wanted.has(this._activeKey) ? this._activeKey : wanted.keys().next().value;
    for (const [key, { row, index }] of wanted) {
      let entry = this._rows.get(key);
      if (!entry || entry.version !== row.version) {
        const fresh = this._build(key, row);
        if (entry) entry.element.replaceWith(fresh.element);
        else this._spacer.append(fresh.element);
        if (key === this.expandedKey && this._expansion) fresh.element.append(this._expansion);
        this._rows.set(key, (entry = fresh));
      }
      entry.element.style.transform = `translateY(${this._topOf(index)}px)`;
      setAttribute(entry.element, "aria-setsize", this._source.length);
      setAttribute(entry.element, "aria-posinset", index + 1);
      setAttribute(entry.button, "tabindex", key === active ? "0" : "-1");
      if (this.options.expand) setAttribute(entry.button, "aria-expanded", String(key === this.expandedKey));
    }
    const behind = this.options.follow && !this.following && this._height - top - view > rowHeight;
    if (this._jump.hidden === behind) this._jump.hidden = !behind;
    if (behind) setText(this._jump, this.options.jumpLabel?.() ?? "Jump to latest");
  }

  _build(key, row) {
    const attributes = { class: "row-main", tabindex: "-1" };
    const cells = this.options.row(row);
    const button = this.options.expand
      ? h("button", { ...attributes, type: "button", onclick: () => this._toggle(key) }, cells)
      : h("div", attributes, cells);
    const element = h("div", { class: `row ${this.options.rowClass?.(row) ?? ""}`, role: "listitem" }, button);
    return { element, button, version: row.version };
  }

  _toggle(key) {
    this._activeKey = key;
    const closing = this.expandedKey === key;
    this.collapse();
    if (!closing) {
      const index = this._indexOf(key);
      const content = index < 0 ? null : this.options.expand(this._source.at(index));
      if (content) {
        this.expandedKey = key;
        this._expansion = h("div", { class: "expansion" }, content);
        this._rows.get(key)?.element.append(this._expansion);
        this._expansionSize.observe(this._expansion);
        this._bringIn = performance.now() + BRING_IN;
        // Reading an expanded row and following the end exclude each other.
        if (this.following && this.options.follow) this.following = false;
      }
    }
    this._measure();
  }

  _measure() {
    const extra = this._expansion?.isConnected ? this._expansion.offsetHeight : this._expansion ? this._extra : 0;
    const grown = extra > this._extra;
    this._extra = extra;
    this._resize();
    if (grown && performance.now() < this._bringIn) {
      const top = this._indexOf(this.expandedKey) * this.options.rowHeight;
      const bottom = top + this.options.rowHeight + extra;
      const view = this._scroller;
      if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = Math.min(top, bottom - view.clientHeight);
    }
    this._layout();
  }

  _key(event) {
    if (!this._source?.length || event.target.closest(".expansion")) return;
    const page = Math.max(1, Math.floor(this._scroller.clientHeight / this.options.rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const current = this._activeKey === null ? -1 : this._indexOf(this._activeKey);
    const from = current < 0 ? Math.floor(this._scroller.scrollTop / this.options.rowHeight) : current;
    const index = Math.min(this._source.length - 1, Math.max(0, from + step));
    this._activeKey = this._source.key(this._source.at(index));
    const top = this._topOf(index);
    const view = this._scroller;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + this.options.rowHeight > view.scrollTop + view.clientHeight) {
      view.scrollTop = top + this.options.rowHeight - view.clientHeight;
    }
    this._layout();
    this._rows.get(this._activeKey)?.button.focus({ preventScroll: true });
  }
}
