/**
 * One run: a reducer from its events to what the views show. No DOM, no network, no clock.
 *
 * A run is changed in place, and each part has a version number that grows when it changes: 100,000 events a few times a minute leave
 * no room for copies. Every collection has a bound, given here.
 */

import { describe, describeInput } from "./describe.js";
import { oneLine, plain } from "./format.js";
import { Log } from "./log.js";

// About 250 bytes each. The timeline draws all that are kept.
const MAX_CALLS = 50_000;
const MAX_ERRORS = 5_000;
const MAX_FILES = 20_000;
// What the Output tab keeps: beyond this a page is no longer read but searched, and Activity has it all.
const MAX_OUTPUT_PIECES = 400;
const MAX_OUTPUT_CHARACTERS = 512 * 1024;
// A message that was split for the wire (64 KiB an event) was split into pieces of at least this many characters.
const SPLIT_PIECE = 10_000;

export function createRun(id) {
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

/**
 * Rows are found by their keys, which rise. `seq` is the key; what has none (an event that the disk could not take) comes right after
 * the one before it.
 */
function keyAfter(rows, seq) {
  return seq ?? (rows.at(-1)?.key ?? 0) + 2 ** -10;
}

/** The row of an event in the activity list, or null when it has none. Also used for rows that are scrolled back to. */
export function rowOf(event, run, root) {
  const call = event.toolUseId ? run?.callIndex.get(event.toolUseId) : undefined;
  const line = describe(event, run?.cwd ?? root, call);
  if (!line) return null;
  return {
    key: keyAfter(run?.log.rows ?? [], event.seq),
    seq: event.seq ?? null,
    at: Date.parse(event.timestamp),
    type: event.type,
    nested: Boolean(event.parentToolUseId),
    toolUseId: event.toolUseId ?? null,
    ...line,
  };
}

/** Take one event of the run. `reading`: somebody looks at a place further up in its activity. */
export function runEvent(run, event, root, reading) {
  const at = Date.parse(event.timestamp);
  const row = rowOf(event, run, root);
  if (row) run.log.append(row, reading);
  run.version += 1;
  switch (event.type) {
    case "run_started":
      run.log.complete = true;
      run.number = event.runNumber;
      run.agentType = event.agentType;
      run.startedAt = at;
      run.resumed = Boolean(event.resumed);
      run.phase = "Starting";
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
      toolCall(run, event, at, root);
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
      end(run, "failed", event, at);
      break;
    case "run_canceled":
      end(run, "canceled", event, at);
      break;
    case "run_completed":
      run.result = event.result ?? null;
      run.usage = event.usage ?? run.usage;
      run.costUsd = event.totalCostUsd ?? run.costUsd;
      run.turns = event.turns ?? run.turns;
      run.percentage = 100;
      end(run, "succeeded", event, at);
      break;
  }
}

function end(run, status, event, at) {
  run.status = status;
  run.endedAt = at;
  run.durationMs = event.durationMs;
  run.sessionId = event.sessionId ?? run.sessionId;
  run.remainingSeconds = null;
  run.output.pending = "";
  run.output.version += 1;
}

function toolCall(run, event, at, root) {
  const call = {
    key: keyAfter(run.calls, event.seq),
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
    out.pieces.push({ key: keyAfter(out.pieces, event.seq), text, tail: text.length, messageId: event.messageId ?? null, nested: Boolean(event.parentToolUseId), at: Date.parse(event.timestamp), version: 0 });
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
  run.errors.push({ key: keyAfter(run.errors, event.seq), at, code, source: event.source, text: oneLine(event.message), event: { ...event, message: String(event.message ?? "").slice(0, 16_384) } });
  if (run.errors.length > MAX_ERRORS) run.errors.splice(0, 500);
  run.errorsVersion += 1;
}
