/** Questions that wait for an answer: may the agent use this tool? */

import { describeInput } from "../describe.js";
import { h, setText } from "../dom.js";
import { plain, wholeSeconds } from "../format.js";

export class Approvals {
  /** @param {(requestId: string, decision: "allow" | "deny", message?: string) => Promise<void>} resolve */
  constructor(resolve) {
    this._resolve = resolve;
    this._cards = new Map();
    this.element = h("section", { class: "approvals", "aria-label": "Questions of the agent", "aria-live": "polite", hidden: true });
  }

  render(state, detail, run, now) {
    const open = [...state.approvals.values()].filter((request) => request.workOrderId === detail.id);
    const ids = new Set(open.map((request) => request.requestId));
    for (const [id, card] of this._cards) {
      if (!ids.has(id)) {
        card.element.remove();
        this._cards.delete(id);
      }
    }
    for (const request of open) {
      let card = this._cards.get(request.requestId);
      if (!card) {
        card = this._card(request, run?.cwd ?? detail.order?.workspace);
        this._cards.set(request.requestId, card);
        this.element.append(card.element);
      }
      setText(card.left, `Denied by itself in ${wholeSeconds(Date.parse(request.expiresAt) - now)}`);
    }
    this.element.hidden = open.length === 0;
  }

  _card(request, root) {
    const left = h("span", { class: "muted small" });
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const reason = h("input", { type: "text", "aria-label": "Reason, told to the agent when denied", placeholder: "Reason if denied (optional)" });
    const buttons = [];
    const decide = async (decision) => {
      for (const button of buttons) button.disabled = true;
      try {
        await this._resolve(request.requestId, decision, decision === "deny" ? reason.value.trim() || undefined : undefined);
      } catch (error) {
        problem.hidden = false;
        setText(problem, error.message);
        for (const button of buttons) button.disabled = false;
      }
    };
    buttons.push(
      h("button", { type: "button", class: "primary", onclick: () => decide("allow") }, "Allow"),
      h("button", { type: "button", class: "danger", onclick: () => decide("deny") }, "Deny"),
    );
    const input = plain(JSON.stringify(request.input ?? {}, null, 2)).replaceAll("\\n", "\n");
    const element = h(
      "article",
      { class: "approval" },
      h("p", { class: "approval-title" }, "May the agent use ", h("strong", {}, plain(request.toolName)), "?"),
      h("pre", { class: "approval-input", dir: "auto" }, describeInput(request.toolName, request.input, root)),
      h("details", {}, h("summary", {}, "Whole input"), h("pre", { tabindex: "0", dir: "auto" }, input)),
      h("div", { class: "approval-actions" }, buttons, reason, left),
      problem,
    );
    return { element, left };
  }
}
