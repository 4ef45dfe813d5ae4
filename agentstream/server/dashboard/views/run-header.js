/** What a run is and how far it has come: title, numbers, progress, timeline, plan, and what can be done to it. */

import { h, setAttribute, setText } from "../dom.js";
import { clock, compact, grouped, money, oneLine, plain, wholeSeconds } from "../format.js";
import { FINAL } from "../store.js";
import { Timeline } from "../timeline.js";
import { RUN_LABELS } from "./order-list.js";

// Redrawing the picture more often than this shows nothing new.
const TIMELINE_MS = 500;

export class RunHeader {
  /** @param {object} actions {cancel, runAgain, pickRun(id), pickCall(call), again() for another frame} */
  constructor(actions) {
    this._actions = actions;
    this._drawn = 0;
    const p = (this._parts = {
      status: h("span", { class: "badge" }),
      title: h("h1", { class: "title", tabindex: "-1" }),
      facts: h("p", { class: "facts" }),
      whole: h("pre", { class: "prompt", tabindex: "0" }),
      runs: h("select", { "aria-label": "Run", onchange: (event) => actions.pickRun(event.target.value) }),
      cancel: h("button", { type: "button", class: "danger", onclick: actions.cancel }, "Cancel"),
      again: h("button", { type: "button", onclick: actions.runAgain }, "Run again"),
      phase: h("span", { class: "phase" }),
      percentage: h("span", { class: "percentage" }),
      fill: h("span", { class: "bar-fill" }),
      error: h("p", { class: "run-error", hidden: true }),
      planSummary: h("summary"),
      planItems: h("ol", { class: "plan-items" }),
      // Told to screen readers when it changes.
      told: h("p", { class: "offscreen", role: "status" }),
    });
    p.bar = h("div", { class: "progress-bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0", "aria-valuemax": "100" }, p.fill);
    p.more = h("details", { class: "whole-prompt" }, h("summary", {}, "Whole prompt"), p.whole);
    p.plan = h("details", { class: "plan", hidden: true }, p.planSummary, p.planItems);
    this._stats = Object.fromEntries(
      [
        ["calls", "Tool calls"],
        ["elapsed", "Elapsed"],
        ["remaining", "Remaining"],
        ["tokens", "Tokens in/out"],
        ["cost", "Cost"],
      ].map(([key, label]) => [key, stat(key, label)]),
    );
    this.timeline = new Timeline((call) => actions.pickCall(call));
    this.element = h(
      "header",
      { class: "run-header" },
      h(
        "div",
        { class: "headline" },
        h("a", { class: "back", href: "#/", "aria-label": "Back to the list" }, "‹"),
        h("div", { class: "headline-text" }, h("div", { class: "headline-title" }, p.status, p.title), p.facts),
        h("div", { class: "actions" }, p.runs, p.again, p.cancel),
      ),
      p.told,
      p.more,
      p.error,
      h(
        "div",
        { class: "numbers" },
        h("div", { class: "stat progress" }, h("div", { class: "stat-label" }, p.phase, p.percentage), p.bar),
        Object.values(this._stats).map(({ element }) => element),
      ),
      this.timeline.element,
      p.plan,
    );
  }

  render(detail, run, now, agents) {
    const p = this._parts;
    const { order } = detail;
    const status = run && order && !isLatest(detail, run) ? run.status : order?.status ?? "queued";
    setText(p.status, RUN_LABELS[status] ?? status);
    setAttribute(p.status, "data-status", status);
    setText(p.told, RUN_LABELS[status] ?? status);
    const prompt = plain(order?.request.taskPrompt ?? "");
    const title = oneLine(prompt, 160) || detail.id;
    setText(p.title, title);
    p.more.hidden = title === prompt.trim();
    if (p.whole.textContent !== prompt) setText(p.whole, prompt);
    this._facts(run, order, agents);
    this._runs(detail, run);
    p.cancel.hidden = FINAL.has(order?.status ?? "queued") || !order;
    p.again.hidden = !order || !FINAL.has(order.status);
    const error = run ? run.error : order?.error;
    p.error.hidden = !error;
    setText(p.error, error ? plain(error).slice(0, 2000) : "");
    this._numbers(run, now);
    this._plan(run);
    this._picture(run, now);
  }

  _facts(run, order, agents) {
    const agentType = run?.agentType || order?.request.agentType;
    const model = run?.model && run.model !== agentType ? run.model : null;
    const facts = [
      agents.find((agent) => agent.agentType === agentType)?.label ?? agentType,
      model,
      run?.number ? `run ${run.number}${run.resumed ? ", resumed" : ""}` : null,
      run?.startedAt ? `started ${clock(run.startedAt)}` : null,
      order?.workspace,
    ].filter(Boolean);
    setText(this._parts.facts, facts.join("  ·  "));
    setAttribute(this._parts.facts, "title", run?.sessionId ? `Session ${run.sessionId}` : null);
  }

  _runs(detail, run) {
    const { runs } = this._parts;
    runs.hidden = detail.runIds.length < 2;
    const labels = detail.runIds.map((id, index) => `Run ${detail.runs.get(id).number ?? index + 1}: ${detail.runs.get(id).status}`);
    const same = runs.options.length === labels.length && labels.every((label, index) => runs.options[index].text === label);
    if (!same) runs.replaceChildren(...detail.runIds.map((id, index) => h("option", { value: id }, labels[index])));
    if (run && runs.value !== run.id) runs.value = run.id;
  }

  _numbers(run, now) {
    const p = this._parts;
    const percentage = run?.percentage ?? 0;
    const over = run && run.status !== "running";
    setText(p.phase, !run ? "Waiting" : over ? RUN_LABELS[run.status] ?? run.status : run.phase ?? "Starting");
    setText(p.percentage, run ? `${percentage}%` : "");
    setAttribute(p.bar, "aria-valuenow", percentage);
    setAttribute(p.bar, "data-status", run?.status ?? "queued");
    p.fill.style.width = `${percentage}%`;
    const { calls, elapsed, remaining, tokens, cost } = this._stats;
    calls.set(run ? grouped(run.toolCalls) : "–");
    elapsed.set(wholeSeconds(run ? run.durationMs ?? (run.startedAt ? now - run.startedAt : null) : null));
    remaining.set(run && !over && run.remainingSeconds != null ? `~ ${wholeSeconds(run.remainingSeconds * 1000)}` : "–");
    const usage = run?.usage;
    const cached = (usage?.cacheReadTokens ?? 0) + (usage?.cacheCreationTokens ?? 0);
    tokens.set(usage ? `${compact(usage.inputTokens + cached)} / ${compact(usage.outputTokens)}` : "–");
    setAttribute(tokens.element, "title", usage ? `${grouped(usage.inputTokens)} in, ${grouped(usage.outputTokens)} out, ${grouped(cached)} of the input through the cache` : null);
    cost.set(money(run?.costUsd));
  }

  _plan(run) {
    const { plan, planSummary, planItems } = this._parts;
    const items = run?.plan ?? [];
    plan.hidden = items.length === 0;
    if (!items.length || this._planShown === items) return;
    this._planShown = items;
    const done = items.filter((item) => item.status === "completed").length;
    const current = items.find((item) => item.status === "in_progress");
    setText(planSummary, `Plan: ${done} of ${items.length} done${current ? `, now “${oneLine(current.content, 80)}”` : ""}`);
    const marks = { completed: "✓", in_progress: "▸" };
    planItems.replaceChildren(
      ...items.slice(0, 100).map((item) =>
        h("li", { "data-status": item.status }, h("span", { class: "mark", "aria-hidden": "true" }, marks[item.status] ?? "·"), h("span", {}, oneLine(item.content)), h("span", { class: "offscreen" }, ` (${item.status.replace("_", " ")})`)),
      ),
    );
  }

  _picture(run, now) {
    const { timeline } = this;
    if (!run?.startedAt || !run.calls.length) {
      timeline.element.hidden = true;
      this._shownRun = null;
      return;
    }
    const key = `${run.id} ${run.callsVersion} ${run.status}`;
    const running = run.status === "running";
    const same = this._shownRun === key && !running;
    if (same) return;
    const wait = TIMELINE_MS - (performance.now() - this._drawn);
    if (running && this._shownRun && wait > 0) {
      this._later ??= setTimeout(() => {
        this._later = null;
        this._actions.again();
      }, wait);
      return;
    }
    timeline.element.hidden = false;
    const start = run.callsDropped ? run.calls[0].at : run.startedAt;
    timeline.draw(run.calls, start, running ? now : run.endedAt ?? now);
    this._drawn = performance.now();
    this._shownRun = key;
  }
}

/** Whether this is the run that the work order's own status is about. */
function isLatest(detail, run) {
  return detail.runIds.at(-1) === run.id;
}

function stat(key, label) {
  const value = h("span", { class: "stat-value" }, "–");
  return { element: h("div", { class: `stat stat-${key}` }, h("span", { class: "stat-label" }, label), value), set: (text) => setText(value, text) };
}
