/**
 * The picture of a run: its tool calls over time, one lane for each kind of tool.
 *
 * What it costs to draw does not depend on how many calls there were: calls that fall on the same pixels are joined, so a lane is
 * at most three paths (succeeded, failed, under way) of at most one rectangle per pixel.
 */

import { setText, svg } from "./dom.js";
import { duration, grouped, wholeSeconds } from "./format.js";

export const LANES = ["Read", "Grep", "Glob", "Write", "Edit", "Bash", "WebFetch", "WebSearch", "Other"];
const LANE_HEIGHT = 13;
const BAR_HEIGHT = 9;
const AXIS_HEIGHT = 16;
const LABEL_WIDTH = 68;
// Narrower bars than this can't be seen or hit.
const MIN_BAR = 3;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400];

export class Timeline {
  /** @param {(call: object) => void} onPick a call was clicked */
  constructor(onPick) {
    this._onPick = onPick;
    this._svg = svg("svg", { class: "timeline-picture", role: "img", preserveAspectRatio: "none" });
    this._note = document.createElement("p");
    this._note.className = "timeline-note";
    this.element = document.createElement("div");
    this.element.className = "timeline";
    this.element.append(this._svg, this._note);
    this._svg.addEventListener("pointermove", (event) => this._hover(event));
    this._svg.addEventListener("pointerleave", () => setText(this._note, this._summary ?? ""));
    this._svg.addEventListener("click", (event) => {
      const call = this._at(event);
      if (call) this._onPick(call);
    });
  }

  /**
   * @param {object[]} calls {tool, at, ms, ok}: epoch milliseconds, duration or null while under way
   * @param {number} start epoch milliseconds
   * @param {number} end now, or when the run ended
   */
  draw(calls, start, end) {
    const width = Math.max(240, Math.floor(this.element.clientWidth));
    const counts = new Map();
    for (const call of calls) counts.set(call.tool, (counts.get(call.tool) ?? 0) + 1);
    const lanes = LANES.filter((tool) => counts.has(tool));
    this.element.hidden = lanes.length === 0;
    if (!lanes.length) return;
    const span = Math.max(1000, end - start);
    this._view = { calls, lanes, start, span, width };
    const height = lanes.length * LANE_HEIGHT + AXIS_HEIGHT;
    const nodes = [...this._axis(span, width, height), ...this._lanes(lanes, counts)];
    for (const [tool, paths] of this._paths(calls, lanes, start, end, width)) {
      for (const [state, path] of Object.entries(paths)) {
        if (path.length) nodes.push(svg("path", { class: `bar tool-${tool} ${state}`, d: path.join("") }));
      }
    }
    this._svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this._svg.setAttribute("width", width);
    this._svg.setAttribute("height", height);
    this._svg.replaceChildren(...nodes);
    const parts = lanes.map((tool) => `${tool} ${grouped(counts.get(tool))}`);
    this._summary = `${grouped(calls.length)} tool call${calls.length === 1 ? "" : "s"} in ${wholeSeconds(span)}: ${parts.join(", ")}`;
    this._svg.setAttribute("aria-label", `Timeline. ${this._summary}`);
    if (!this._svg.matches(":hover")) setText(this._note, this._summary);
  }

  _lanes(lanes, counts) {
    return lanes.flatMap((tool, lane) => [
      svg("text", { class: "lane", x: 0, y: lane * LANE_HEIGHT + 10 }, tool),
      svg("text", { class: "lane count", x: LABEL_WIDTH - 8, y: lane * LANE_HEIGHT + 10, "text-anchor": "end" }, grouped(counts.get(tool))),
    ]);
  }

  _axis(span, width, height) {
    const room = width - LABEL_WIDTH;
    const seconds = span / 1000;
    const step = STEPS.find((candidate) => (candidate / seconds) * room >= 64) ?? STEPS.at(-1);
    const nodes = [];
    for (let second = 0; second <= seconds; second += step) {
      const x = LABEL_WIDTH + (second / seconds) * room;
      nodes.push(svg("line", { class: "tick", x1: x, x2: x, y1: 0, y2: height - AXIS_HEIGHT + 3 }));
      const last = x > width - 30;
      nodes.push(svg("text", { class: "tick", x: last ? width : x, y: height - 3, "text-anchor": last ? "end" : "start" }, short(second)));
    }
    return nodes;
  }

  _paths(calls, lanes, start, end, width) {
    const scale = (width - LABEL_WIDTH) / Math.max(1000, end - start);
    const paths = new Map(lanes.map((tool) => [tool, { ok: [], failed: [], open: [] }]));
    const ends = new Map();
    for (const call of calls) {
      const lane = lanes.indexOf(call.tool);
      const state = call.ms === null ? "open" : call.ok ? "ok" : "failed";
      const from = Math.min(width - MIN_BAR, Math.max(LABEL_WIDTH, LABEL_WIDTH + (call.at - start) * scale));
      const to = Math.min(width, Math.max(from + MIN_BAR, LABEL_WIDTH + ((call.ms === null ? end : call.at + call.ms) - start) * scale));
      const key = lane * 3 + (state === "ok" ? 0 : state === "failed" ? 1 : 2);
      // Whole pixels: a bar that ends on the pixel on which the last one of its kind ended adds nothing to see.
      if (Math.floor(to) <= (ends.get(key) ?? -1)) continue;
      const left = Math.max(from, ends.get(key) ?? 0);
      ends.set(key, Math.floor(to));
      const y = lane * LANE_HEIGHT + (LANE_HEIGHT - BAR_HEIGHT) / 2;
      paths.get(call.tool)[state].push(`M${left.toFixed(1)} ${y}H${to.toFixed(1)}v${BAR_HEIGHT}H${left.toFixed(1)}z`);
    }
    return paths;
  }

  _at(event) {
    if (!this._view) return null;
    const { calls, lanes, start, span, width } = this._view;
    const box = this._svg.getBoundingClientRect();
    const tool = lanes[Math.floor((event.clientY - box.top) / LANE_HEIGHT)];
    const x = event.clientX - box.left;
    if (!tool || x < LABEL_WIDTH) return null;
    const at = start + ((x - LABEL_WIDTH) / (width - LABEL_WIDTH)) * span;
    const slack = (span / (width - LABEL_WIDTH)) * 4;
    let best = null;
    let distance = slack;
    for (const call of calls) {
      if (call.tool !== tool) continue;
      const end = call.ms === null ? start + span : call.at + call.ms;
      const off = at < call.at ? call.at - at : at > end ? at - end : 0;
      if (off <= distance) [best, distance] = [call, off];
    }
    return best;
  }

  _hover(event) {
    const call = this._at(event);
    this._svg.classList.toggle("on-bar", Boolean(call));
    if (!call) setText(this._note, this._summary ?? "");
    else {
      const state = call.ms === null ? "under way" : `${duration(call.ms)}${call.ok ? "" : ", failed"}`;
      setText(this._note, `${call.name} · ${state} · ${call.text}`);
    }
  }
}

function short(second) {
  if (second < 60) return `${second} s`;
  if (second < 3600) return `${Math.floor(second / 60)} min${second % 60 ? ` ${second % 60}` : ""}`;
  return `${(second / 3600).toFixed(second % 3600 ? 1 : 0)} h`;
}
