/** The form for a new work order. */

import { h, setText } from "../dom.js";

const PERMISSION_MODES = [
  ["", "The agent's own default"],
  ["default", "Ask before changing anything"],
  ["acceptEdits", "Edit files without asking"],
  ["plan", "Plan only"],
  ["bypassPermissions", "Never ask"],
];

export class SubmitDialog {
  /**
   * @param {() => Promise<object[]>} agents
   * @param {(request: object) => Promise<void>} submit
   */
  constructor(agents, submit) {
    this._agents = agents;
    this._submit = submit;
    const p = (this._parts = {
      prompt: h("textarea", { id: "new-prompt", rows: "6", required: true }),
      agent: h("select", { id: "new-agent" }),
      workspace: h("select", { id: "new-workspace", onchange: () => this._changed() }, h("option", { value: "fresh" }, "A fresh directory"), h("option", { value: "local" }, "An existing directory")),
      path: h("input", { id: "new-path", type: "text", placeholder: "/path/below/a/workspace/root", autocomplete: "off", spellcheck: "false" }),
      interactive: h("input", { id: "new-interactive", type: "checkbox" }),
      permission: h("select", { id: "new-permission" }, PERMISSION_MODES.map(([value, label]) => h("option", { value }, label))),
      model: h("input", { id: "new-model", type: "text", autocomplete: "off", spellcheck: "false" }),
      turns: h("input", { id: "new-turns", type: "number", min: "1", step: "1" }),
      timeout: h("input", { id: "new-timeout", type: "number", min: "1", step: "1" }),
      note: h("p", { class: "muted small", id: "new-agent-note" }),
      problem: h("p", { class: "problem", role: "alert", hidden: true }),
      start: h("button", { type: "submit", class: "primary" }, "Start"),
    });
    p.pathField = field("Directory", p.path);
    p.agent.setAttribute("aria-describedby", "new-agent-note");
    p.agent.addEventListener("change", () => this._changed());
    const form = h(
      "form",
      { class: "submit-form", onsubmit: (event) => this._send(event) },
      h("div", { class: "dialog-head" }, h("h2", { id: "new-title" }, "New work order"), h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => this.element.close() }, "✕")),
      field("What is to be done", p.prompt),
      h("div", { class: "columns" }, field("Agent", p.agent), field("Works in", p.workspace)),
      p.note,
      p.pathField,
      h("div", { class: "check" }, p.interactive, h("label", { htmlFor: "new-interactive" }, "Stays open for further messages")),
      h("details", {}, h("summary", {}, "More options"), h("div", { class: "columns" }, field("Permissions", p.permission), field("Model", p.model), field("At most so many turns", p.turns), field("At most so many seconds", p.timeout))),
      p.problem,
      h("div", { class: "dialog-actions" }, h("button", { type: "button", onclick: () => this.element.close() }, "Close"), p.start),
    );
    this.element = h("dialog", { class: "dialog", "aria-labelledby": "new-title" }, form);
  }

  async open() {
    const p = this._parts;
    p.problem.hidden = true;
    this._id = `web-${randomId()}`;
    this._changed();
    this.element.showModal();
    p.prompt.focus();
    try {
      this._known = await this._agents();
      const before = p.agent.value;
      p.agent.replaceChildren(
        ...this._known.map((agent) => h("option", { value: agent.agentType }, `${agent.label}${agent.problem ? " (not ready)" : ""}`)),
      );
      const ready = this._known.find((agent) => agent.agentType === before) ?? this._known.find((agent) => !agent.problem) ?? this._known[0];
      if (ready) p.agent.value = ready.agentType;
      this._changed();
    } catch (error) {
      this._fail(error);
    }
  }

  _changed() {
    const p = this._parts;
    const local = p.workspace.value === "local";
    p.pathField.hidden = !local;
    p.path.required = local;
    const agent = this._known?.find((candidate) => candidate.agentType === p.agent.value);
    setText(p.note, agent?.problem ?? "");
    p.note.hidden = !agent?.problem;
    const talks = agent?.capabilities.interactive !== false;
    p.interactive.disabled = !talks;
    if (!talks) p.interactive.checked = false;
  }

  async _send(event) {
    event.preventDefault();
    const p = this._parts;
    const request = {
      // The form's own id: pressing the button twice, or again after an answer was lost, starts one work order.
      id: this._id,
      taskPrompt: p.prompt.value,
      agentType: p.agent.value,
      workspaceSource: p.workspace.value === "local" ? { type: "local", path: p.path.value.trim() } : { type: "fresh" },
    };
    if (p.interactive.checked) request.interactive = true;
    if (p.permission.value) request.permissionMode = p.permission.value;
    if (p.model.value.trim()) request.model = p.model.value.trim();
    if (p.turns.value) request.maxTurns = Number(p.turns.value);
    if (p.timeout.value) request.timeoutSeconds = Number(p.timeout.value);
    p.start.disabled = true;
    p.problem.hidden = true;
    try {
      await this._submit(request);
      p.prompt.value = "";
      this.element.close();
    } catch (error) {
      // The next attempt may be another body, which the same id would not allow.
      if (error.status) this._id = `web-${randomId()}`;
      this._fail(error);
    } finally {
      p.start.disabled = false;
    }
  }

  _fail(error) {
    this._parts.problem.hidden = false;
    setText(this._parts.problem, error.message);
  }
}

function field(label, control) {
  return h("div", { class: "field" }, h("label", { htmlFor: control.id }, label), control);
}

// crypto.randomUUID exists only on https and loopback.
function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
