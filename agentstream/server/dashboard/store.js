/**
 * What the page knows: a reducer from the daemon's messages to state. No DOM, no network, no clock.
 *
 * `state.orders` is the list; `state.detail` is the one work order that is looked at, with a `run` for each of its runs. State is
 * changed in place and each part has a version number that grows when it changes: 100,000 events a few times a minute leave no
 * room for copies. Every collection has a bound, given beside it.
 */

import { describe, describeInput } from "./describe.js";
import { oneLine, plain } from "./format.js";
import { Log } from "./log.js";

export const FINAL = new Set(["succeeded", "failed", "canceled"]);

// About 250 bytes each. The timeline draws all that are kept.
export const MAX_CALLS = 50_000;
export const MAX_ERRORS = 5_000;
export const MAX_FILES = 20_000;
// What the Output tab keeps: beyond this a page is no longer read but searched, and Activity has it all.
export const MAX_OUTPUT_PIECES = 400;
export const MAX_OUTPUT_CHARACTERS = 512 * 1024;
// A message that was split for the wire (64 KiB an event) was split into pieces of at least this many characters.
const SPLIT_PIECE = 10_000;
// Rows that earlier runs keep when a further run starts; scrolling back loads the rest.
const EARLIER_RUN_ROWS = 2_000;

export function createState() {
  return { orders: new Map(), ordersVersion: 0, approvals: new Map(), detail: null };
}

/** Begin to look at a work order. */
export function openDetail(state, id) {
  state.detail = {
    id,
    order: null,
    runs: new Map(),
    runIds: [],
    /** The highest `seq` that was taken: whatever isn't above it came twice. */
    lastSeq: 0,
    replaying: true,
    version: 0,
  };
  return state.detail;
}

// --- the list ----------------------------------------------------------------------------------------------------------

/** A work order as `GET /work-orders` tells it. What live events have told since is newer and stays. */
export function putOrder(state, order) {
  const known = state.orders.get(order.id);
  const updatedAt = Date.parse(order.updatedAt);
  const fresh = {
    progress: null,
    runId: null,
    runStartedAt: null,
    ...known,
    id: order.id,
    prompt: order.request.taskPrompt,
    agentType: order.request.agentType,
    createdAt: Date.parse(order.createdAt),
    runCount: order.runCount,
    whole: true,
  };
  if (!known || updatedAt >= known.updatedAt) {
    fresh.status = order.status;
    fresh.updatedAt = updatedAt;
    fresh.error = order.error ?? null;
  }
  state.orders.set(order.id, fresh);
  state.ordersVersion += 1;
}

function listEvent(state, event) {
  const at = Date.parse(event.timestamp);
  let order = state.orders.get(event.workOrderId);
  if (!order) {
    // Not on the part of the list that is loaded; a new one is known from its first event.
    if (event.type !== "work_order_created") return;
    order = { id: event.workOrderId, prompt: event.taskPrompt, agentType: "", createdAt: at, updatedAt: at, status: event.status, runCount: 0, progress: null, runId: null, runStartedAt: null, error: null, whole: false };
    state.orders.set(order.id, order);
    state.ordersVersion += 1;
    return;
  }
  switch (event.type) {
    case "work_order_updated":
      if (at < order.updatedAt) return;
      order.status = event.status;
      order.updatedAt = at;
      if (event.status !== "running") order.runId = null;
      break;
    case "run_started":
      order.agentType = event.agentType;
      order.runCount = event.runNumber;
      order.runId = event.runId;
      order.runStartedAt = at;
      order.progress = null;
      order.error = null;
      break;
    case "run_failed":
      order.error = oneLine(event.error);
      break;
    case "progress_update":
      order.runId = event.runId;
      order.progress = { percentage: event.percentage, phase: event.currentPhase, toolCalls: event.toolCallCount };
      order.runStartedAt ??= at - event.elapsedSeconds * 1000;
      break;
    case "run_completed":
    case "run_canceled":
      break;
    default:
      return;
  }
  state.ordersVersion += 1;
}

/** Open questions as `GET /approvals` tells them. */
export function putApprovals(state, requests) {
  state.approvals = new Map(requests.map((request) => [request.requestId, request]));
  state.ordersVersion += 1;
  if (state.detail) state.detail.version += 1;
}

// --- one run -------------------------------------------------------------------------------------------------------------

function createRun(id) {
  return {
    id,
    number: null,
    agentType: "",
    status: "running",
    startedAt: null,
    endedAt: null,
    durationMs: null,
    phase: null,
    percentage: 0,
    toolCalls: 0,
    remainingSeconds: null,
    usage: null,
    costUsd: null,
    turns: null,
    sessionId: null,
    model: null,
    agentVersion: null,
    cwd: null,
    error: null,
    errorCode: null,
    result: null,
    resumed: false,
    plan: [],
    log: new Log(),
    calls: [],
    callIndex: new Map(),
    callsDropped: 0,
    callsVersion: 0,
    tools: new Map(),
    files: new Map(),
    filesVersion: 0,
    errors: [],
    errorCount: 0,
    errorsVersion: 0,
    output: { pieces: [], characters: 0, first: 0, version: 0, pending: "" },
    version: 0,
  };
}

/** The run with this id, made if it is new. */
export function runOf(detail, id) {
  let run = detail.runs.get(id);
  if (!run) {
    for (const earlier of detail.runs.values()) earlier.log.shrink(EARLIER_RUN_ROWS);
    run = createRun(id);
    detail.runs.set(id, run);
    detail.runIds.push(id);
    detail.version += 1;
  }
  return run;
}

/** A run as `GET /runs` tells it: what its events may not say (any more). */
export function putRun(detail, wire) {
  const run = runOf(detail, wire.id);
  run.number = wire.runNumber;
  run.agentType = wire.agentType;
  run.startedAt ??= Date.parse(wire.startedAt);
  run.sessionId ??= wire.sessionId ?? null;
  if (wire.status !== "running") {
    run.status = wire.status;
    run.endedAt ??= wire.endedAt ? Date.parse(wire.endedAt) : null;
    run.durationMs ??= wire.durationMs ?? null;
    run.usage ??= wire.usage ?? null;
    run.costUsd ??= wire.totalCostUsd ?? null;
    run.turns ??= wire.turns ?? null;
    run.error ??= wire.error ?? null;
    run.errorCode ??= wire.errorCode ?? null;
    run.result ??= wire.result ?? null;
  }
  run.version += 1;
  detail.runIds.sort((a, b) => (detail.runs.get(a).number ?? 0) - (detail.runs.get(b).number ?? 0));
  detail.version += 1;
}

/** The row of an event in the activity list, or null when it has none. Also used for rows that are scrolled back to. */
export function rowOf(event, run, root) {
  const call = event.toolUseId ? run?.callIndex.get(event.toolUseId) : undefined;
  const line = describe(event, run?.cwd ?? root, call);
  if (!line) return null;
  return {
    key: event.seq ?? 0,
    seq: event.seq ?? null,
    at: Date.parse(event.timestamp),
    type: event.type,
    nested: Boolean(event.parentToolUseId),
    toolUseId: event.toolUseId ?? null,
    ...line,
  };
}

function detailEvent(state, event, reading) {
  const detail = state.detail;
  const { order } = detail;
  const run = event.runId ? runOf(detail, event.runId) : detail.runs.get(detail.runIds.at(-1));
  const at = Date.parse(event.timestamp);
  if (event.type.startsWith("work_order_")) {
    if (order && event.status) order.status = event.status;
    detail.version += 1;
    if (!run) return;
  }
  const row = rowOf(event, run, order?.workspace);
  if (row) run.log.append(row, reading);
  run.version += 1;
  switch (event.type) {
    case "run_started":
      run.number = event.runNumber;
      run.agentType = event.agentType;
      run.startedAt = at;
      run.resumed = Boolean(event.resumed);
      run.phase = "Starting";
      detail.version += 1;
      break;
    case "agent_session":
      run.sessionId = event.sessionId;
      run.model = event.model ?? run.model;
      run.agentVersion = event.agentVersion ?? run.agentVersion;
      run.cwd = event.cwd ?? run.cwd;
      break;
    case "progress_update":
      run.percentage = event.percentage;
      run.phase = event.currentPhase;
      run.toolCalls = Math.max(run.toolCalls, event.toolCallCount);
      run.remainingSeconds = event.estimatedRemainingSeconds ?? null;
      break;
    case "agent_usage":
      run.usage = event;
      run.costUsd = event.totalCostUsd ?? run.costUsd;
      break;
    case "agent_plan":
      run.plan = event.items ?? [];
      break;
    case "agent_tool_call":
      toolCall(run, event, at, order?.workspace);
      break;
    case "agent_tool_result":
      toolResult(run, event);
      break;
    case "agent_output":
      output(run.output, event);
      break;
    case "agent_output_delta":
      // Ephemeral and bounded: what is over is seen when the whole message follows.
      run.output.pending = (run.output.pending + plain(event.content)).slice(-20_000);
      run.output.version += 1;
      break;
    case "file_changed":
      fileChanged(run, event, at);
      break;
    case "agent_error":
      addError(run, event, at, event.code);
      break;
    case "run_failed":
      addError(run, { ...event, message: event.error, source: "daemon" }, at, event.errorCode);
      run.error = event.error;
      run.errorCode = event.errorCode;
      end(detail, run, "failed", event, at);
      break;
    case "run_canceled":
      end(detail, run, "canceled", event, at);
      break;
    case "run_completed":
      run.result = event.result ?? null;
      run.usage = event.usage ?? run.usage;
      run.costUsd = event.totalCostUsd ?? run.costUsd;
      run.turns = event.turns ?? run.turns;
      run.percentage = 100;
      end(detail, run, "succeeded", event, at);
      break;
  }
}

function end(detail, run, status, event, at) {
  run.status = status;
  run.endedAt = at;
  run.durationMs = event.durationMs;
  run.sessionId = event.sessionId ?? run.sessionId;
  run.remainingSeconds = null;
  run.output.pending = "";
  run.output.version += 1;
  detail.version += 1;
}

function toolCall(run, event, at, root) {
  const call = {
    key: event.seq ?? 0,
    version: 0,
    id: event.toolUseId,
    tool: event.tool,
    name: event.toolName,
    text: describeInput(event.toolName, event.input, run.cwd ?? root),
    at,
    ms: null,
    ok: null,
    length: null,
    parent: event.parentToolUseId ?? null,
  };
  run.calls.push(call);
  run.callIndex.set(call.id, call);
  run.tools.set(call.tool, (run.tools.get(call.tool) ?? 0) + 1);
  run.toolCalls = Math.max(run.toolCalls, run.calls.length + run.callsDropped);
  run.callsVersion += 1;
  if (run.calls.length > MAX_CALLS + 5_000) {
    for (const old of run.calls.splice(0, 5_000)) run.callIndex.delete(old.id);
    run.callsDropped += 5_000;
  }
}

function toolResult(run, event) {
  const call = run.callIndex.get(event.toolUseId);
  if (!call) return;
  call.ms = event.durationMs;
  call.ok = event.success;
  call.length = event.contentLength;
  call.version += 1;
  run.callsVersion += 1;
}

function output(out, event) {
  const text = plain(event.content);
  const last = out.pieces.at(-1);
  out.pending = "";
  out.version += 1;
  out.characters += text.length;
  if (last && event.messageId && last.messageId === event.messageId && last.tail >= SPLIT_PIECE) {
    last.text += text;
    last.tail = text.length;
    last.version += 1;
  } else {
    out.pieces.push({ key: event.seq ?? 0, text, tail: text.length, messageId: event.messageId ?? null, nested: Boolean(event.parentToolUseId), at: Date.parse(event.timestamp), version: 0 });
  }
  while (out.pieces.length > 1 && (out.pieces.length > MAX_OUTPUT_PIECES || out.characters > MAX_OUTPUT_CHARACTERS)) {
    out.characters -= out.pieces.shift().text.length;
    out.first += 1;
  }
}

function fileChanged(run, event, at) {
  const known = run.files.get(event.path);
  // A file that is new to the run stays "created" when it is changed again: that is what became of it in this run.
  const action = known?.action === "created" && event.action === "modified" ? "created" : event.action;
  run.files.set(event.path, { path: event.path, action, size: event.sizeBytes ?? null, at, changes: (known?.changes ?? 0) + 1 });
  if (run.files.size > MAX_FILES) run.files.delete(run.files.keys().next().value);
  run.filesVersion += 1;
}

function addError(run, event, at, code) {
  run.errorCount += 1;
  run.errors.push({ key: event.seq ?? run.errorCount, at, code, source: event.source, text: oneLine(event.message), event: { ...event, message: String(event.message ?? "").slice(0, 16_384) } });
  if (run.errors.length > MAX_ERRORS) run.errors.splice(0, 500);
  run.errorsVersion += 1;
}

// --- messages ------------------------------------------------------------------------------------------------------------

/**
 * Take one message of the daemon. `reading`: somebody looks at a place further up in the activity list. Returns false for an event
 * of the work order that was taken before (a resume may bring one twice).
 */
export function reduce(state, message, reading = false) {
  const { detail } = state;
  switch (message.type) {
    case "subscription_confirmed":
      return true;
    case "replay_complete":
      if (detail?.id === message.workOrderId) {
        detail.replaying = false;
        detail.version += 1;
        caughtUp(state, detail);
      }
      return true;
    case "gap":
      if (detail?.id === message.workOrderId) gap(state, message);
      return true;
    case "approval_requested":
      state.approvals.set(message.requestId, message);
      break;
    case "approval_resolved":
      state.approvals.delete(message.requestId);
      break;
    case "run_completed":
    case "run_failed":
    case "run_canceled":
      for (const [id, request] of state.approvals) if (request.runId === message.runId) state.approvals.delete(id);
      break;
  }
  if (!message.workOrderId) return true;
  const old = detail?.id === message.workOrderId && message.seq != null && message.seq <= detail.lastSeq;
  // Replayed history of the open work order must not rewrite the list, which is about now; a status knows its time.
  const history = detail?.id === message.workOrderId && detail.replaying;
  if (!history || message.type === "work_order_updated") listEvent(state, message);
  if (detail?.id !== message.workOrderId) return true;
  if (old) return false;
  if (message.seq != null) detail.lastSeq = message.seq;
  detailEvent(state, message, reading);
  return true;
}

/** The list gets what the replay told of the latest run. */
function caughtUp(state, detail) {
  const order = state.orders.get(detail.id);
  const run = detail.runs.get(detail.runIds.at(-1));
  if (!order || !run || run.status !== "running" || order.status !== "running") return;
  order.runId = run.id;
  order.runStartedAt = run.startedAt;
  order.progress = { percentage: run.percentage, phase: run.phase ?? "Starting", toolCalls: run.toolCalls };
  state.ordersVersion += 1;
}

function gap(state, message) {
  if (message.reason === "epoch") {
    // Another journal: nothing of what is shown has a place in it.
    const order = state.detail.order;
    openDetail(state, message.workOrderId).order = order;
    return;
  }
  const detail = state.detail;
  const run = detail.runs.get(detail.runIds.at(-1));
  const row = rowOf({ ...message, seq: message.toSeq }, run);
  if (run) {
    run.log.append(row, false);
    run.log.complete = true;
  }
  detail.lastSeq = Math.max(detail.lastSeq, message.toSeq);
}
