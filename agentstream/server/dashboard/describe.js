/** What an event says in one line. Pure. */

import { bytes, duration, grouped, money, oneLine, plain, relative } from "./format.js";

/** One line that tells a tool call apart: its command, file, pattern or address. */
export function describeInput(toolName, input, root) {
  const value = input && typeof input === "object" ? input : {};
  const path = value.file_path ?? value.path ?? value.notebook_path;
  const first =
    value.command ??
    (value.pattern !== undefined ? `${value.pattern}${path ? `  in ${relative(path, root)}` : ""}` : undefined) ??
    (path !== undefined ? relative(path, root) : undefined) ??
    value.url ??
    value.query ??
    (Array.isArray(value.todos) ? todos(value.todos) : undefined) ??
    value.description ??
    value.prompt;
  if (first !== undefined) return oneLine(Array.isArray(first) ? first.join(" ") : first);
  const text = JSON.stringify(value);
  return text === "{}" ? "" : oneLine(text);
}

function todos(items) {
  const done = items.filter((item) => item?.status === "completed").length;
  const current = items.find((item) => item?.status === "in_progress");
  return `${done}/${items.length} done${current ? `: ${current.content}` : ""}`;
}

/**
 * `{tone, label, text, tool?}` of an event, or null for events that are shown elsewhere (progress, usage, deltas).
 * `call` is the call that a result belongs to, if it is known.
 */
export function describe(event, root, call) {
  switch (event.type) {
    case "work_order_created":
      return { tone: "life", label: "Created", text: oneLine(event.taskPrompt) };
    case "work_order_updated":
      return { tone: "life", label: "Status", text: event.previousStatus ? `${event.previousStatus} → ${event.status}` : event.status };
    case "run_started":
      return { tone: "life", label: "Started", text: `Run ${event.runNumber}, ${event.agentType}${event.resumed ? ", resumed" : ""}` };
    case "run_completed":
      return { tone: "good", label: "Completed", text: completed(event) };
    case "run_failed":
      return { tone: "bad", label: "Failed", text: oneLine(`${event.errorCode}: ${event.error}`) };
    case "run_canceled":
      return { tone: "warn", label: "Canceled", text: oneLine(event.reason ?? "") };
    case "run_retry_scheduled":
      return { tone: "warn", label: "Retry", text: `attempt ${event.attempt} of ${event.maxAttempts} in ${Math.round(event.delaySeconds)} s (${event.errorCode})` };
    case "agent_session":
      return { tone: "life", label: "Session", text: [event.model, event.agentVersion, event.sessionId].filter(Boolean).join(" · ") };
    case "agent_tool_call":
      return { tone: "call", label: event.toolName, tool: event.tool, text: describeInput(event.toolName, event.input, root) };
    case "agent_tool_result":
      return {
        tone: event.success ? "result" : "bad",
        label: event.success ? duration(event.durationMs) : `failed, ${duration(event.durationMs)}`,
        tool: call?.tool,
        text: withoutRoot(oneLine(event.contentPreview), root) || "(no output)",
      };
    case "agent_output":
      return { tone: "say", label: "Says", text: oneLine(event.content) };
    case "agent_thinking":
      return { tone: "think", label: "Thinks", text: oneLine(event.content) };
    case "agent_error":
      return { tone: "bad", label: event.source === "stderr" ? "stderr" : "Error", text: oneLine(event.message) };
    case "agent_plan":
      return { tone: "life", label: "Plan", text: todos(event.items ?? []) };
    case "agent_rate_limit":
      return { tone: event.status === "rejected" ? "bad" : "warn", label: "Rate limit", text: [event.status, event.kind, event.resetsAt && `resets ${event.resetsAt}`].filter(Boolean).join(" · ") };
    case "agent_status":
      return { tone: "life", label: "Status", text: oneLine(event.message) };
    case "agent_raw":
      return { tone: "think", label: "Raw", text: oneLine(`${event.kind} ${JSON.stringify(event.raw)}`) };
    case "approval_requested":
      return { tone: "warn", label: "Asks", text: oneLine(`${event.toolName}: ${describeInput(event.toolName, event.input, root)}`) };
    case "approval_resolved":
      return { tone: event.decision === "allow" ? "good" : "warn", label: event.decision === "allow" ? "Allowed" : "Denied", text: oneLine(event.message ?? "") };
    case "file_changed":
      return { tone: "file", label: event.action, text: `${oneLine(event.path)}${event.sizeBytes == null ? "" : `  ${bytes(event.sizeBytes)}`}` };
    case "gap":
      return { tone: "warn", label: "Gap", text: event.reason === "epoch" ? "The daemon has a new journal; what came before is gone." : `Events ${grouped(event.fromSeq)} to ${grouped(event.toSeq)} are no longer kept.` };
    case "progress_update":
    case "agent_usage":
    case "agent_output_delta":
      return null;
    default:
      return { tone: "life", label: oneLine(event.type, 40), text: oneLine(JSON.stringify(event)) };
  }
}

/** Paths as they are below the workspace: its own long name tells nothing. */
function withoutRoot(text, root) {
  return root && root.length > 1 ? text.replaceAll(`${root}/`, "") : text;
}

function completed(event) {
  const parts = [duration(event.durationMs)];
  if (event.turns != null) parts.push(`${event.turns} turns`);
  if (event.totalCostUsd != null) parts.push(money(event.totalCostUsd));
  if (event.prUrl) parts.push(event.prUrl);
  return parts.join(" · ");
}

/** The parts of a whole event that are worth reading below its line: [{title, text}], text being plain. */
export function details(event) {
  const parts = [];
  const add = (title, value) => {
    if (value == null || value === "") return;
    parts.push({ title, text: plain(typeof value === "string" ? value : JSON.stringify(value, null, 2)) });
  };
  switch (event.type) {
    case "agent_tool_call":
    case "approval_requested":
      for (const [name, value] of Object.entries(event.input ?? {})) add(name, value);
      break;
    case "agent_tool_result":
      add("Result", event.contentPreview);
      break;
    case "agent_output":
    case "agent_thinking":
      add("", event.content);
      break;
    case "agent_error":
      add("", event.message);
      add("Code", event.code);
      add("Details", event.details);
      break;
    case "run_failed":
      add("", event.error);
      add("Code", event.errorCode);
      break;
    case "run_completed":
      add("Result", event.result);
      add("Usage", event.usage);
      break;
    case "work_order_created":
      add("Prompt", event.taskPrompt);
      break;
    default: {
      const { type, workOrderId, runId, timestamp, seq, ...rest } = event;
      add("", rest);
    }
  }
  for (const [path, length] of Object.entries(event.truncated ?? {})) add("Cut", `${path}: ${grouped(length)} characters in all`);
  return parts;
}
