/**
 * What the page knows: a reducer from the daemon's messages to state. No DOM, no network, no clock.
 *
 * `state.orders` is the list; `state.detail` is the one work order that is looked at, with a `run` (run.js) for each of its runs.
 */

import { oneLine } from "./format.js";
import { createRun, rowOf, runEvent } from "./run.js";

export const FINAL = new Set(["succeeded", "failed", "canceled"]);

// Rows that earlier runs keep when a further run starts; scrolling back loads the rest.
const EARLIER_RUN_ROWS = 2_000;
// Work orders in the list: about 300 bytes each. A page that stays open while more come lets go of the oldest that have ended.
export const MAX_ORDERS = 10_000;
// Dropped at once, so that sorting is rare.
const ORDERS_CHUNK = 500;

export function createState() {
  return { orders: new Map(), ordersVersion: 0, approvals: new Map(), asking: new Set(), detail: null };
}

/** Begin to look at a work order. */
export function openDetail(state, id) {
  state.detail = {
    id,
    order: null,
    runs: new Map(),
    runIds: [],
    /** What happened before its first run, in the shape of one; when that starts, it begins with this. */
    prologue: createRun(null),
    /** The run of the last event that had one. */
    current: null,
    /** The highest `seq` that was taken: whatever isn't above it came twice. */
    lastSeq: 0,
    /** The `id` of the message that subscribed to it. */
    subscription: undefined,
    /** Its subscription was confirmed: what came before may belong to an earlier one, and comes again. */
    confirmed: false,
    replaying: true,
    version: 0,
  };
  return state.detail;
}

/** The order of the list. */
export function newestFirst(a, b) {
  return b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1);
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

function dropOldest(state) {
  if (state.orders.size < MAX_ORDERS + ORDERS_CHUNK) return;
  for (const order of [...state.orders.values()].sort(newestFirst).slice(MAX_ORDERS)) {
    if (FINAL.has(order.status)) state.orders.delete(order.id);
  }
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
    dropOldest(state);
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

/** Call before `GET /approvals`; give what it returns to `putApprovals`. */
export function askApprovals(state) {
  const news = [];
  state.asking.add(news);
  return news;
}

/** Open questions as `GET /approvals` told them (null: it failed). What the daemon said meanwhile is newer than its answer. */
export function putApprovals(state, news, requests) {
  state.asking.delete(news);
  if (!requests) return;
  state.approvals = new Map(requests.map((request) => [request.requestId, request]));
  for (const [id, request] of news) setApproval(state, id, request);
  state.ordersVersion += 1;
  if (state.detail) state.detail.version += 1;
}

function setApproval(state, id, request) {
  if (request) state.approvals.set(id, request);
  else state.approvals.delete(id);
  for (const news of state.asking) news.push([id, request]);
}

// --- one work order ----------------------------------------------------------------------------------------------------

/** The run with this id, made if it is new. Its activity is complete once its first event was seen. */
export function runOf(detail, id) {
  let run = detail.runs.get(id);
  if (!run) {
    run = createRun(id);
    run.log.complete = false;
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

function detailEvent(state, event, reading) {
  const detail = state.detail;
  const { order } = detail;
  // What a work order does between two runs is told in the one before.
  const run = event.runId ? runOf(detail, event.runId) : detail.current ?? detail.prologue;
  if (event.runId) detail.current = run;
  if (event.type === "run_started") {
    if (event.runNumber === 1) run.log.prepend(detail.prologue.log.rows, true);
    for (const other of detail.runs.values()) if (other !== run) other.log.shrink(EARLIER_RUN_ROWS);
  }
  if (event.type.startsWith("work_order_") && order && event.status) order.status = event.status;
  runEvent(run, event, order?.workspace, reading);
  if (event.type.startsWith("work_order_") || event.type.startsWith("run_")) detail.version += 1;
}

// --- messages ------------------------------------------------------------------------------------------------------------

/**
 * Take one message of the daemon. `reading`: somebody looks at a place further up in the activity list. Returns false for an event
 * of the work order that was taken before (a resume may bring one twice).
 */
export function reduce(state, message, reading = false) {
  const { detail } = state;
  const mine = detail !== null && detail.id === message.workOrderId;
  const history = mine && detail.replaying;
  switch (message.type) {
    case "subscription_confirmed":
      if (detail && message.id === detail.subscription) detail.confirmed = true;
      return true;
    case "replay_complete":
      if (mine) {
        detail.replaying = false;
        detail.version += 1;
        caughtUp(state, detail);
      }
      return true;
    case "gap":
      if (mine) gap(state, message);
      return true;
    case "approval_requested":
      // A replayed question may be answered long since; which are open is asked when the replay is over.
      if (!history) setApproval(state, message.requestId, message);
      break;
    case "approval_resolved":
      setApproval(state, message.requestId, null);
      break;
    case "run_completed":
    case "run_failed":
    case "run_canceled":
      for (const [id, request] of state.approvals) if (request.runId === message.runId) setApproval(state, id, null);
      break;
  }
  if (!message.workOrderId) return true;
  const old = mine && message.seq != null && message.seq <= detail.lastSeq;
  // Replayed history of the open work order must not rewrite the list, which is about now; a status knows its time.
  if (!history || message.type === "work_order_updated") listEvent(state, message);
  if (!mine || !detail.confirmed) return true;
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
    const { order, subscription } = state.detail;
    Object.assign(openDetail(state, message.workOrderId), { order, subscription, confirmed: true });
    return;
  }
  const detail = state.detail;
  const run = detail.current ?? detail.runs.get(detail.runIds.at(-1)) ?? detail.prologue;
  run.log.append(rowOf({ ...message, seq: message.toSeq }, run), false);
  run.log.complete = true;
  detail.lastSeq = Math.max(detail.lastSeq, message.toSeq);
}
