/** Talking to a run: a further message, the interrupt, the end of the input; or going on with a session that has ended. */

import { h, setText } from "../dom.js";
import { FINAL } from "../store.js";

export class Composer {
  /** @param {object} actions {send(text), interrupt(), closeInput(), resume(text)}, each async */
  constructor(actions) {
    this._actions = actions;
    this._mode = null;
    this._text = h("textarea", { rows: "1", "aria-label": "Message to the agent", onkeydown: (event) => this._key(event), oninput: () => this._grow() });
    this._send = h("button", { type: "submit", class: "primary" }, "Send");
    this._interrupt = h("button", { type: "button", onclick: () => this._do(actions.interrupt) }, "Interrupt");
    this._close = h("button", { type: "button", onclick: () => this._do(actions.closeInput) }, "End input");
    this._problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.element = h(
      "form",
      { class: "composer", hidden: true, onsubmit: (event) => this._submit(event) },
      h("div", { class: "composer-line" }, this._text, h("div", { class: "composer-buttons" }, this._send, this._interrupt, this._close)),
      this._problem,
    );
  }

  render(detail, run, capabilities) {
    const { order } = detail;
    const running = order && !FINAL.has(order.status) && run?.status === "running" && detail.runIds.at(-1) === run.id;
    let mode = null;
    if (running && order.request.interactive) mode = "talk";
    else if (order && FINAL.has(order.status) && run?.sessionId && capabilities?.resume) mode = "resume";
    this.element.hidden = !mode;
    if (mode === this._mode) return;
    this._mode = mode;
    this._problem.hidden = true;
    this._interrupt.hidden = mode !== "talk" || capabilities?.interrupt === false;
    this._close.hidden = mode !== "talk";
    setText(this._send, mode === "resume" ? "Resume" : "Send");
    this._text.placeholder = mode === "resume" ? "Go on with this session: what next?" : "Message to the agent";
  }

  _key(event) {
    // Enter sends, as in every chat; Shift+Enter breaks the line; while an input method composes, Enter is its own.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.element.requestSubmit();
    }
  }

  _grow() {
    this._text.style.height = "auto";
    this._text.style.height = `${Math.min(160, this._text.scrollHeight + 2)}px`;
  }

  _submit(event) {
    event.preventDefault();
    const text = this._text.value.trim();
    if (!text) return;
    const act = this._mode === "resume" ? this._actions.resume : this._actions.send;
    this._do(async () => {
      await act(text);
      this._text.value = "";
      this._grow();
    });
  }

  async _do(action) {
    const buttons = [this._send, this._interrupt, this._close];
    for (const button of buttons) button.disabled = true;
    this._problem.hidden = true;
    try {
      await action();
    } catch (error) {
      this._problem.hidden = false;
      setText(this._problem, error.message);
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  }
}
