/** The form that asks for the token. */

import { h, setText } from "../dom.js";

export class Login {
  /** @param {(token: string) => Promise<void>} enter raises when the token is refused */
  constructor(enter) {
    this._token = h("input", { id: "token", type: "password", required: true, autocomplete: "current-password", spellcheck: "false" });
    this._problem = h("p", { class: "problem", role: "alert", hidden: true });
    this._button = h("button", { type: "submit", class: "primary" }, "Open");
    this.element = h(
      "main",
      { class: "login", hidden: true },
      h(
        "form",
        {
          onsubmit: async (event) => {
            event.preventDefault();
            this._button.disabled = true;
            try {
              await enter(this._token.value.trim());
              this._token.value = "";
            } catch (error) {
              this.problem(error.message);
            } finally {
              this._button.disabled = false;
            }
          },
        },
        h("h1", {}, "agentstream"),
        h("p", { class: "muted" }, "This daemon asks for its token. ", h("code", {}, "agentstream token"), " prints it; it is also in the data directory, in the file ", h("code", {}, "token"), "."),
        h("div", { class: "field" }, h("label", { htmlFor: "token" }, "Token"), this._token),
        this._problem,
        this._button,
      ),
    );
  }

  show(message) {
    this.element.hidden = false;
    if (message) this.problem(message);
    this._token.focus();
  }

  problem(message) {
    this._problem.hidden = false;
    setText(this._problem, message);
  }
}
