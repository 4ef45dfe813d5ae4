/** What the agent says, as Markdown; while it is still saying it, as plain text. */

import { copyButton, h, setText } from "../dom.js";
import { grouped } from "../format.js";
import { render as markdown } from "../markdown.js";

// Rendering Markdown is the dearest thing on this page: so many pieces a frame, the rest in the next.
const PIECES_PER_FRAME = 24;

export class Output {
  /** @param {() => void} again ask for another frame */
  constructor(again) {
    this._again = again;
    this._sections = new Map();
    this._following = true;
    this._lastTop = 0;
    this._earlier = h("p", { class: "muted small", hidden: true });
    this._body = h("div", { class: "markdown" });
    this._pending = h("div", { class: "pending", hidden: true });
    this._empty = h("p", { class: "empty" }, "The agent has not said anything yet.");
    this._scroller = h("div", { class: "scroller prose", tabindex: "0", role: "region", "aria-label": "Output", onscroll: () => this._scrolled() }, this._earlier, this._body, this._pending, this._empty);
    const bar = h("div", { class: "panel-bar" }, h("span", { class: "grow" }), copyButton("Copy all", () => this._text()));
    this.element = h("div", { class: "output" }, bar, this._scroller);
  }

  render(run) {
    if (run !== this._run) {
      this._run = run;
      this._sections.clear();
      this._body.replaceChildren();
      this._following = true;
      this._version = -1;
    }
    const out = run?.output;
    if (out && out.version !== this._version) this._sync(out);
    this._empty.hidden = Boolean(out && (out.pieces.length || out.pending));
  }

  _sync(out) {
    let left = PIECES_PER_FRAME;
    this._version = out.version;
    const kept = new Set(out.pieces.map((piece) => piece.key));
    for (const [key, { element }] of this._sections) {
      if (!kept.has(key)) {
        element.remove();
        this._sections.delete(key);
      }
    }
    for (const piece of out.pieces) {
      const known = this._sections.get(piece.key);
      if (known?.version === piece.version) continue;
      if (left-- <= 0) {
        this._version = -1;
        this._again();
        break;
      }
      const element = h("article", { class: `piece${piece.nested ? " nested" : ""}`, dir: "auto" }, markdown(piece.text));
      if (known) known.element.replaceWith(element);
      else this._body.append(element);
      this._sections.set(piece.key, { element, version: piece.version });
    }
    this._pending.hidden = !out.pending;
    setText(this._pending, out.pending);
    this._earlier.hidden = !out.first;
    setText(this._earlier, `${grouped(out.first)} earlier messages are in Activity.`);
    if (this._following) this._scroller.scrollTop = this._scroller.scrollHeight;
  }

  _scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this._scroller;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 2;
    if (atEnd) this._following = true;
    else if (scrollTop < this._lastTop - 1) this._following = false;
    this._lastTop = scrollTop;
  }

  _text() {
    return this._run?.output.pieces.map((piece) => piece.text).join("\n\n") ?? "";
  }
}
